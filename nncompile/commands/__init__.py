"""The commands, one a file; `nncompile.cli` lists them."""
