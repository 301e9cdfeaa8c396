"""Convolutions, their transposes, and patches of images."""
