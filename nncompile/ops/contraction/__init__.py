"""Sums of products: matrix products, einsum, attention."""
