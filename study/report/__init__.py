"""Tables, figures and statistics, from recorded results alone, in every format."""
