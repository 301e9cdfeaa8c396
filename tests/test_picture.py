"""Pictures of models: where boxes stand, what is written in them, and that they open."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dsl import Conv2d, Dense, Layer, accuracy, cross_entropy, f32, i64, model, relu, softmax
from nncompile import ModelError
from nncompile.graphics import placing
from nncompile.graphics.layered import Layout, layered
from nncompile.graphics.placing import Occupied, place, sampled
from nncompile.graphics.svg import curve
from nncompile.program.model import Model
from tests.command_line import fails, succeeds
from tests.small_models import perceptron

SVG = "{http://www.w3.org/2000/svg}"


class Block(Layer):
    """A layer of layers."""

    def __call__(self, x: Any) -> Any:
        return x + (x >> Dense(x.shape[-1], relu) >> Dense(x.shape[-1]))


@model
def net(image: Any = f32["batch", 1, 8, 8], label: Any = i64["batch"]) -> Any:
    features = (image >> Conv2d(4, 3, name="stem")).mean((2, 3))
    logits = features >> Block(name="block") >> relu >> Dense(3, name="head")
    return {
        "probabilities": softmax(logits),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


def check(layout: Layout, sizes: list[tuple[float, float]], edges: set[tuple[int, int]]) -> None:
    """Boxes are apart, and edges go down from border to border, all within the picture."""
    for (x, y), (width, height) in zip(layout.centers, sizes, strict=True):
        assert x - width / 2 >= -1e-6 and x + width / 2 <= layout.width + 1e-6
        assert y - height / 2 >= -1e-6 and y + height / 2 <= layout.height + 1e-6
    for i, j in itertools.combinations(range(len(sizes)), 2):
        (x, y), (other_x, other_y) = layout.centers[i], layout.centers[j]
        across, down = ((a + b) / 2 for a, b in zip(sizes[i], sizes[j], strict=True))
        assert abs(x - other_x) >= across or abs(y - other_y) >= down, (i, j)
    assert layout.paths.keys() == edges
    for (i, j), path in layout.paths.items():
        assert path[0][1] == pytest.approx(layout.centers[i][1] + sizes[i][1] / 2)
        assert path[-1][1] == pytest.approx(layout.centers[j][1] - sizes[j][1] / 2)
        assert all(a[1] < b[1] + 1e-9 for a, b in itertools.pairwise(path)), path


def test_boxes_of_random_graphs_do_not_overlap() -> None:
    draw = random.Random(0)
    for count in (0, 1, 2, 5, 12, 30, 30, 30):
        sizes = [(draw.uniform(20, 200), draw.uniform(10, 60)) for _ in range(count)]
        pairs = list(itertools.combinations(range(count), 2))
        edges = set(draw.sample(pairs, min(len(pairs), 2 * count)))
        check(layered(sizes, edges), sizes, edges)


def test_edges_of_two_chains_do_not_cross_and_stand_straight() -> None:
    sizes = [(60.0, 20.0)] * 6
    layout = layered(sizes, [(0, 3), (1, 2), (2, 4), (3, 5)])
    columns = [layout.centers[i][0] for i in range(6)]
    assert columns[0] == columns[3] == columns[5] != columns[1] == columns[2] == columns[4]


def test_a_late_input_stands_above_what_needs_it() -> None:
    layout = layered([(60.0, 20.0)] * 4, [(0, 1), (1, 3), (2, 3)])
    assert layout.centers[2][1] == layout.centers[1][1]


def test_curves_end_upright() -> None:
    assert curve([(0.0, 0.0), (0.0, 5.0), (10.0, 15.0)]) == "M0 0V5C0 10 10 10 10 15"


def views(net: Model, **options: Any) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(net.picture(**options))
    return {g.get("id", ""): g for g in root.findall(f"{SVG}g")}


def texts(view: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in view.iter(f"{SVG}text")]


def test_a_picture_shows_layers_functions_data_and_types() -> None:
    found = views(net)
    outermost = texts(found["nn-0"])
    for text in ("image", "label", "stem", "Conv2d · 40 parameters", "block", "softmax", "loss"):
        assert text in outermost, text
    assert "batch×4×6×6" in outermost and "i64 batch" in outermost and "number" in outermost
    assert outermost.count("accuracy") == 2  # the function and the output
    assert not [text for text in outermost if text.startswith("dense")]
    edges = found["nn-0"].findall(f".//{SVG}path")
    assert len(edges) == 13


def test_every_layer_opens_and_leads_back() -> None:
    found = views(net, prefix="one")
    shown = [name for name, view in found.items() if "shown" in view.get("class", "").split()]
    assert shown == ["one-0"]
    opened = {g.get("data-opens"): name for name, v in found.items() for g in v.iter(f"{SVG}g")}
    assert set(found) - {"one-0"} <= set(opened)
    assert opened.keys() - {None} <= set(found)
    (block,) = [v for v in found.values() if texts(v)[:2] == ["net  ‹", "block"]]
    assert {"net  ‹", "block", "mean", "dense", "add"} <= set(texts(block)), texts(block)
    for view in found.values():
        *_, width, height = map(float, view.get("data-box", "").split())
        assert width > 0 and height > 0


def test_names_are_text_and_nothing_is_fetched() -> None:
    @model(name="<script>alert(1)</script>")
    def odd(x: Any = f32["batch", 3]) -> Any:
        return {"a<b>&": x >> Dense(2)}

    text = odd.picture()
    assert "<script>alert" not in text and "a<b>" not in text
    assert "a<b>&" in texts(views(odd)["nn-0"])
    assert re.findall(r"https?://[^\"']*", text) == ["http://www.w3.org/2000/svg"]


def test_a_model_is_drawn_to_a_file(tmp_path: Path) -> None:
    path = perceptron().plot(tmp_path / "new" / "net.svg")
    assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"
    assert path.read_bytes() == perceptron().plot(tmp_path / "again.svg").read_bytes()
    with pytest.raises(ModelError, match=r"\.svg file, got 'net\.png'"):
        perceptron().plot("net.png")


def test_the_command_line_draws(good: Path, tmp_path: Path) -> None:
    assert "wrote" in succeeds("show", good, "--plot", tmp_path / "net.svg")
    assert "stem" in (tmp_path / "net.svg").read_text("utf-8")
    assert ".svg" in fails("show", good, "--plot", tmp_path / "net.pdf")


def test_labels_stand_where_no_line_is() -> None:
    box = [(0.0, 0.0), (0.0, 46.0)]
    right, left = [(0.0, 0.0), (90.0, 46.0)], [(0.0, 0.0), (-90.0, 46.0)]
    straight = sampled(box)
    x, y, space = place([straight], 40.0, Occupied([straight], []))
    assert x > 0 and space[1] < y < space[3]  # on the right, where it is free
    x, _, space = place([straight], 40.0, Occupied([straight, sampled(right)], []))
    assert x < 0  # on the left, where an edge goes to the right
    assert not any(_is_in(point, space) for point in sampled(right))
    occupied = Occupied([straight, sampled(left)], [(2.0, -5.0, 60.0, 20.0)])
    x, _, space = place([straight], 40.0, occupied)
    assert not any(_is_in(point, space) for point in sampled(left))
    assert x < 0 or space[1] >= 20  # not over what is there already


def test_what_a_label_touches_is_found_without_looking_at_the_whole_drawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(3)
    points = [(draw.uniform(-500, 500), draw.uniform(-500, 500)) for _ in range(2000)]
    boxes = [(x, y, x + draw.uniform(5, 200), y + 12.0) for x, y in points[:200]]
    occupied = Occupied([points], boxes[:100])
    seen: list[bool] = []
    monkeypatch.setattr(placing, "_inside", lambda *given: seen.append(_is_in(*given)) or seen[-1])
    for left, top, right, bottom in boxes:
        over = [
            b for b in boxes[:100] if left < b[2] and b[0] < right and top < b[3] and b[1] < bottom
        ]
        within = sum(_is_in(point, (left, top, right, bottom)) for point in points)
        assert occupied.touched((left, top, right, bottom)) == within + 100 * len(over)
    assert len(seen) < 0.05 * len(points) * len(boxes)


def _is_in(point: tuple[float, float], box: tuple[float, float, float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
