"""A model, its recipe, and the training step that is made of both."""
