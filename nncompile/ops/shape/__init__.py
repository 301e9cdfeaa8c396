"""Ops that arrange elements: reshape, slices, joins, elements by their indices."""
