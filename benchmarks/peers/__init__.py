"""The sides of a row: ours, and those that it is measured against."""
