"""The command line: `app.py` lists the commands, which have a file each."""
