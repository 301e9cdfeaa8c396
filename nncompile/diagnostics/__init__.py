"""What the user is told: errors with hints, the user's lines, tables of text."""
