"""What the compiler covers: one row a system, its ticks earned by running it."""
