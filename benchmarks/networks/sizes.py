"""Sizes of the networks that more than one file speaks of."""

from __future__ import annotations

IMAGES = ("autoencoder", "densenet", "lenet", "resnet", "vgg")
"""The networks of images: their inputs have channels, which may stand first or last."""
Stages = tuple[tuple[int, int], ...]

LENGTH, TOKENS, WIDTH, HEADS, BLOCKS = 128, 65, 128, 4, 4  # of the GPT
HIDDEN = 128  # of the recurrent networks
STAGES: Stages = ((16, 1), (32, 2), (64, 2))  # of the ResNet-20: channels, first stride
DEPTH = 3  # blocks in a stage
STAGES_18: Stages = ((64, 1), (128, 2), (256, 2), (512, 2))  # of the ResNet-18
SLIM_18: Stages = ((16, 1), (32, 2), (64, 2), (128, 2))  # with a quarter of its channels
DEPTH_18 = 2
WORDS, SENTENCE = 1000, 64  # of the encoder
VGG = ((32, 32), (64, 64), (128, 128))  # channels of the convolutions between two poolings
