"""Models and weights as torch has them."""
