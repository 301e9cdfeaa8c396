"""`python -m nncompile`: the command line."""

from nncompile.cli.app import main

if __name__ == "__main__":
    main()
