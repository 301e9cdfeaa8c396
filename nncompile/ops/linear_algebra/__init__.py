"""Matrices: factors, inverses, determinants, systems of equations."""
