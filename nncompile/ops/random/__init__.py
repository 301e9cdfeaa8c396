"""Random numbers of a counter-based generator."""
