"""Images in other sizes and grids."""
