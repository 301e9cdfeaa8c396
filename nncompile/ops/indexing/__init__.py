"""Elements written to indices, and searched for."""
