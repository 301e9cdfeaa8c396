"""torch's names of parameters, as `dsl` has them."""

from __future__ import annotations

import re
from collections.abc import Iterable

COUNTER = "num_batches_tracked"  # torch's batch normalization always has it, ours where it counts
PARTS = ("query", "key", "value")  # in the order of torch's in_proj
# Within torch's layers of transformers: with one attention, and with two.
_ENCODER = {
    "self_attn": "attention",
    "linear1": "feed.hidden",
    "linear2": "feed.output",
    "norm1": "attention_norm",
    "norm2": "feed_norm",
}
_DECODER = _ENCODER | {"multihead_attn": "cross", "norm2": "cross_norm", "norm3": "feed_norm"}

Source = tuple[str, int, int]
"""A tensor's name, and which of how many equal parts of its rows."""


def canonical(names: Iterable[str]) -> dict[str, Source]:
    """The tensors by the names that `dsl` gives them: of attention, query, key and value stand for
    themselves, and layers of transformers have the layers that they have in `dsl`."""
    all_names = list(names)
    attentions = {
        name.rpartition(".")[0]
        for name in all_names
        if name.rpartition(".")[2] in ("in_proj_weight", "q_proj_weight")
    }
    blocks = {a.removesuffix("self_attn") for a in attentions if a.endswith("self_attn")}
    renamed = {block: _children(block, all_names) for block in blocks}
    sources: dict[str, Source] = {}
    for name in all_names:
        for new, source in _parameters_in(name, attentions):
            sources[_in_block(new, renamed)] = source
    return sources


def joined(*parts: str) -> str:
    """A dotted name of those parts that are not empty."""
    return ".".join(part for part in parts if part)


def _parameters_in(name: str, attentions: Iterable[str]) -> list[tuple[str, Source]]:
    """A tensor of attention as the parameters in it; of other layers, itself."""
    owner, _, last = name.rpartition(".")
    if owner in attentions:
        if last in ("in_proj_weight", "in_proj_bias"):
            kind = last.rpartition("_")[2]
            count = len(PARTS)
            return [(joined(owner, p, kind), (name, i, count)) for i, p in enumerate(PARTS)]
        if matched := re.fullmatch("([qkv])_proj_weight", last):
            return [(joined(owner, PARTS["qkv".index(matched[1])], "weight"), (name, 0, 1))]
    above, _, child = owner.rpartition(".")
    if child == "out_proj" and above in attentions:
        return [(joined(above, "output", last), (name, 0, 1))]
    return [(name, (name, 0, 1))]


def _children(block: str, names: Iterable[str]) -> dict[str, str]:
    """What the layers of a block are called, where it has those of a transformer."""
    inside = {n[len(block) :].partition(".")[0] for n in names if n.startswith(block)}
    return next((children for children in (_DECODER, _ENCODER) if inside >= children.keys()), {})


def _in_block(name: str, blocks: dict[str, dict[str, str]]) -> str:
    for block, children in blocks.items():
        child, _, rest = name[len(block) :].partition(".")
        if name.startswith(block) and child in children:
            owner = re.sub(r"(^|\.)layers\.(\d+)\.$", r"\1layer\2.", block)
            return f"{owner}{children[child]}.{rest}"
    return name
