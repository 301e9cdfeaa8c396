"""Trains an exported step: train_with_onnxruntime.py STEP.onnx DATA.npz EPOCHS BATCH OUT.npz"""

import json
import sys

import numpy as np
import onnxruntime as ort

step, data, epochs, batch = sys.argv[1], dict(np.load(sys.argv[2])), *map(int, sys.argv[3:5])
raw = np.fromfile(step.replace(".onnx", ".state.safetensors"), np.uint8)
start = 8 + int(raw[:8].view("<u8")[0])  # a length, a header of that length, the numbers
header, state, session = json.loads(bytes(raw[8:start])), {}, ort.InferenceSession(step)
for name, x in ((k, x) for k, x in header.items() if k != "__metadata__"):
    numbers = raw[start:][slice(*x["data_offsets"])]
    state[name] = numbers.view({"F32": "<f4", "I64": "<i8"}[x["dtype"]]).reshape(x["shape"])
outputs = [output.name for output in session.get_outputs()]
for epoch in range(epochs):
    order = np.random.default_rng([int(state["seed"]), epoch]).permutation(len(data["label"]))
    for rows in np.split(order, range(batch, len(order), batch)):
        feeds = state | {k: x[rows] for k, x in data.items()}
        results = dict(zip(outputs, session.run(None, feeds), strict=True))
        state |= {k[:-5]: x for k, x in results.items() if k.endswith(".next")}
    print(f"epoch {epoch + 1}, loss {results['loss']:.9g}")
np.savez(sys.argv[5], **state)
