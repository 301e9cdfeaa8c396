"""Other runtimes than onnxruntime: which of the examples' files they run, and whether they compute
the same. `python -m tests.runtimes` finds out, and writes the table of docs/deploying.md."""
