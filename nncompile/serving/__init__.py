"""Models over HTTP: the Open Inference Protocol, with batches of what waits, limits and metrics."""
