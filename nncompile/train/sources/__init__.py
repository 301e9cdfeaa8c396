"""Data as people have them: arrays, tables, lists, loaders, sequences, generators."""
