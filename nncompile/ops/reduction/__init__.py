"""Ops along axes: sums, products, extremes, softmax, statistics."""
