"""What several tables share: the protocol, analyses, and the shapes of tables and figures."""
