"""The names of our own sides."""

OURS = "nncompile"
AGAIN = "nncompile again"  # the same, to see what is noise
NATIVE = "nncompile native"
SCRIPT = "nncompile TorchScript"
OWN = (OURS, AGAIN, NATIVE, SCRIPT)
