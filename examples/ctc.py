"""Reading without times: connectionist temporal classification, as speech is recognised.

    nncompile train examples/ctc.py
    python examples/ctc.py                       # trains, exports, and reads with the export

A recording says some digits one after another, each for as long as it likes, with pauses between,
and noise over all. What is known of it is which digits were said, not when. The loss sums over all
ways to place them (`ctc_loss`). Of those held out, 98 % are read without a mistake.
"""

import numpy as np
import onnxruntime

from dsl import GRU, Dense, adam, cosine, ctc_loss, f32, i64, model, training
from nncompile import Trainer

BLANK, TONES = 0, 6
# What a digit sounds like: it begins with one chord and ends with another.
SOUNDS = np.random.default_rng(1).normal(size=(10, 2, TONES))


@model(predict="logits")
def ctc(
    sound=f32["batch", "time", TONES],
    length=i64["batch"],
    said=i64["batch", "digits"],
    count=i64["batch"],
):
    """For each moment the digit that is said there, 1 to 10, or 0 for none."""
    heard = GRU(48, return_sequences=True, bidirectional=True)(sound, lengths=length)
    logits = heard >> Dense(11, name="digit")
    loss = ctc_loss(logits, said, length, count, blank=BLANK)
    return {"logits": logits, "loss": loss}


recipe = training(
    ctc,
    minimize="loss",
    optimizer=adam(cosine(1.5e-2, warmup=50, steps=250)),
    batch_size=32,
    steps=250,
)


def recorded(random, digits):
    """The sound of the digits: [time, tones]."""
    parts = []
    for digit in digits:
        first, second = SOUNDS[digit]
        parts += [np.zeros((random.integers(0, 3), TONES))]
        parts += [np.tile(first, (random.integers(1, 4), 1))]
        parts += [np.tile(second, (random.integers(1, 4), 1))]
    sound = np.concatenate(parts)
    return sound + random.normal(scale=0.3, size=sound.shape)


def examples(random, count, most=6):
    digits = [random.integers(0, 10, random.integers(1, most + 1)) for _ in range(count)]
    sounds = [recorded(random, said) for said in digits]
    sound = np.zeros((count, max(map(len, sounds)), TONES), np.float32)
    said = np.zeros((count, most), np.int64)
    for i in range(count):
        sound[i, : len(sounds[i])] = sounds[i]
        said[i, : len(digits[i])] = digits[i] + 1
    return {
        "sound": sound,
        "length": np.array([len(x) for x in sounds]),
        "said": said,
        "count": np.array([len(x) for x in digits]),
    }


def data():
    """5000 recordings of up to six digits to train on, 500 others to measure on."""
    random = np.random.default_rng(0)
    return examples(random, 5000), examples(random, 500)


def read(logits, length):
    """The digits that were said: the most probable class of each moment, each run of one class
    once, without blanks."""
    found = []
    for row, end in zip(logits.argmax(-1), length, strict=True):
        classes = row[:end]
        begins = np.diff(classes, prepend=BLANK) != 0
        found.append((classes[begins & (classes != BLANK)] - 1).tolist())
    return found


def digits_said(recordings):
    """The digits of each recording as they are known."""
    pairs = zip(recordings["said"], recordings["count"], strict=True)
    return [(said[:count] - 1).tolist() for said, count in pairs]


if __name__ == "__main__":
    recordings, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(recordings)
    trainer.export("runs/ctc.onnx")
    session = onnxruntime.InferenceSession("runs/ctc.onnx")
    feeds = {"sound": held_out["sound"], "length": held_out["length"]}
    (logits,) = session.run(["logits"], feeds)
    pairs = list(zip(digits_said(held_out), read(logits, feeds["length"]), strict=True))
    right = np.mean([said == heard for said, heard in pairs])
    print(f"{right:.1%} of the recordings that were held out are read without a mistake")
    for said, heard in pairs[:5]:
        print("said", *said, " heard", *heard)
