"""Ops that all others need: constants, casts, broadcasting, annotations, assertions."""
