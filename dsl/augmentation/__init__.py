"""Random changes of training data: images, colors, labels."""
