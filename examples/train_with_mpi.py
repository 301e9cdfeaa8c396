"""Trains the halves of a step on several processes, with mpi4py, numpy and onnxruntime alone:
mpirun -n 4 python train_with_mpi.py GRADIENT UPDATE STATE.safetensors DATA.npz EPOCHS BATCH OUT"""

import json
import sys

import numpy as np
import onnxruntime as ort
from mpi4py import MPI

world, data, epochs, batch = MPI.COMM_WORLD, dict(np.load(sys.argv[4])), *map(int, sys.argv[5:7])
gradient, update = (ort.InferenceSession(file) for file in sys.argv[1:3])
about = json.loads(gradient.get_modelmeta().custom_metadata_map["nncompile.reduce"])
if "irreducible" in about:  # it would train something else than one process does
    sys.exit(f"several processes cannot train this: {about['irreducible']}")
rules, raw, state = about["tensors"], np.fromfile(sys.argv[3], np.uint8), {}
start = 8 + int(raw[:8].view("<u8")[0])  # a length, a header of that length, the numbers
for name, x in json.loads(bytes(raw[8:start])).items():
    if name != "__metadata__":
        numbers = raw[start:][slice(*x["data_offsets"])]
        state[name] = numbers.view({"F32": "<f4", "I64": "<i8"}[x["dtype"]]).reshape(x["shape"])


def run(session, feeds):
    results = session.run(None, {x.name: feeds[x.name] for x in session.get_inputs()})
    return {x.name: result for x, result in zip(session.get_outputs(), results, strict=True)}


for epoch in range(epochs):
    order = np.random.default_rng([int(state["seed"]), epoch]).permutation(len(data["label"]))
    for rows in np.split(order, range(batch, len(order), batch)):
        first, last = (len(rows) * (world.rank + i) // world.size for i in (0, 1))
        shard = {k: x[rows[first:last]] for k, x in data.items()} | {"first_row": np.array(first)}
        zeros = {x.name: np.zeros(x.shape, "f4") for x in gradient.get_outputs()}
        part = run(gradient, state | shard) if last > first else zeros
        weights = {n: part[r["weight"]] if "weight" in r else 1 for n, r in rules.items()}
        sums = np.concatenate([np.ravel(weights[n] * part[n]) for n in rules])
        world.Allreduce(MPI.IN_PLACE, sums)
        pieces = np.split(sums, np.cumsum([part[n].size for n in rules])[:-1])
        whole = {n: x.reshape(part[n].shape) for n, x in zip(rules, pieces, strict=True)}
        whole |= {n: whole[n] / whole[r["weight"]] for n, r in rules.items() if "weight" in r}
        results = whole | run(update, state | whole)
        state |= {k[:-5]: x for k, x in results.items() if k.endswith(".next")}
    if world.rank == 0:
        print(f"epoch {epoch + 1}, loss {whole['loss']:.9g}")
np.savez(f"{sys.argv[7]}.{world.rank}.npz", **state)
