"""What other ops share: annotations, assertions, recomputation, counting, axes, long sums."""
