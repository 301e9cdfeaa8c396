"""`python -m tests.cuda`: what a machine with an NVIDIA GPU makes of the compiler."""
