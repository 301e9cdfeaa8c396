"""Praise or blame? A transformer reads a sentence, word by word.

The sentences are put together at random here: put yours in the place of `sentences`. Words outside
the vocabulary share one code. Short sentences are padded, and a mask hides the padding.
"""

import numpy as np

from dsl import (
    Dense,
    Embedding,
    TransformerEncoder,
    Value,
    Vocabulary,
    adamw,
    binary_accuracy,
    binary_cross_entropy_with_logits,
    cast,
    expand_dims,
    f32,
    i64,
    model,
    option,
    sigmoid,
    sum,
    training,
)

width = option(32, choices=[16, 32, 64, 128], help="features of a word")
layers = option(1, low=1, help="layers of the transformer")
rate = option(3e-3, low=1e-5, high=1.0, log=True, help="learning rate")

GOOD = ("good", "great", "lovely", "superb")
BAD = ("bad", "awful", "dull", "poor")
OTHER = ("the", "film", "was", "and", "a", "plot", "with", "actors")
PADDING, LENGTH = "", 12
words = Vocabulary((PADDING, *GOOD, *BAD, *OTHER, "not"), name="words")
padding_code = int(words.encode(PADDING))


def sentences(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Random sentences, and whether they praise: "not" turns the word after it round."""
    random = np.random.default_rng(seed)
    praises = random.integers(2, size=count)
    texts = []
    for praise in praises:
        sentence = list(random.choice(OTHER, random.integers(3, LENGTH - 2)))
        turned = random.random() < 0.3
        judgement = random.choice(GOOD if praise != turned else BAD)
        place = random.integers(len(sentence))
        sentence[place:place] = ["not", judgement] if turned else [judgement]
        texts.append(" ".join(sentence))
    return texts, praises.astype(np.float32)


def encoded(texts: list[str]) -> np.ndarray:
    """The codes of the words of each text, padded to `LENGTH`."""
    split = [text.lower().split()[:LENGTH] for text in texts]
    return words.encode([row + [PADDING] * (LENGTH - len(row)) for row in split])


@model(predict="probability")
def praise(text: Value = i64["batch", "time"], praises: Value = f32["batch"]) -> dict[str, Value]:
    """The probability that each text praises."""
    present = text != padding_code
    embedding = Embedding(len(words), width, padding_idx=padding_code, name="embedding")
    read = TransformerEncoder(num_heads=4, num_layers=layers, norm_first=True, rotary_base=1e4)
    counted = cast(expand_dims(present, -1), f32)
    pooled = sum(read(text >> words >> embedding, key_mask=present) * counted, 1) / sum(counted, 1)
    logit = (pooled >> Dense(1, name="answer"))[:, 0]
    return {
        "probability": sigmoid(logit),
        "loss": binary_cross_entropy_with_logits(logit, praises),
        "accuracy": binary_accuracy(logit, praises, threshold=0),
    }


recipe = training(praise, minimize="loss", optimizer=adamw(rate), batch_size=32, epochs=5)


def data() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Texts to train on, and others that are held out."""
    (texts, answers), (others, held_out) = sentences(1024, seed=0), sentences(256, seed=1)
    return (
        {"text": encoded(texts), "praises": answers},
        {"text": encoded(others), "praises": held_out},
    )
