"""Parts that several spaces share: the protocol, analyses, and the shapes of tables and figures."""
