"""Numbers as small integers, and back."""
