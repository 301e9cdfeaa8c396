"""Messages: errors with hints, the user's lines, tables of text."""
