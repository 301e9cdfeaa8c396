"""From a model to sessions and files."""
