"""`python -m nncompile`: the command line."""

from nncompile.cli import main

if __name__ == "__main__":
    main()
