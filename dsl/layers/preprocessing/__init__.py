"""Layers that prepare data, by statistics that they are adapted to."""
