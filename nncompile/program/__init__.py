"""A model, its recipe, and the training step that follows from both."""
