"""The names of our own sides."""

OURS = "nncompile"
AGAIN = "nncompile again"  # the same, to see what is noise
NATIVE = "nncompile native"
IN_PLACE = "nncompile in place"  # a state is written over the one before, as by torch and jax
SCRIPT = "nncompile TorchScript"
OWN = (OURS, AGAIN, NATIVE, IN_PLACE, SCRIPT)
