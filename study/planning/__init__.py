"""The plan of a run: drafted from its spaces, stored, grown, and cut into the stages of a tree."""
