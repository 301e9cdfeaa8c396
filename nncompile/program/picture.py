"""The picture of a model: its layers as boxes that open, with the types of what flows between."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from nncompile.graphics.layered import Layout, Point, layered
from nncompile.graphics.placing import Occupied, Rectangle, place, sampled
from nncompile.graphics.svg import curve, element, label, shortened, width_of
from nncompile.ir.dims import grouped
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import TupleType, Type, f32
from nncompile.program.outline import Block, outline
from nncompile.program.summary import elements

_LONGEST = 40  # characters of a text in a box
_WIDEST = 30  # of the type at an edge
_MARGIN = 16.0
_HEAD = 26.0  # the line with the way back
_STYLE = """
.nn{--ink:#1f2430;--soft:#5b6472;--line:#8a93a3;--layer:#dce8fb;--layer-edge:#5b87c9;
--function:#f1f2f4;--function-edge:#a9b0bb;--data:#dff3e4;--data-edge:#57a06c;
--result:#fdeccf;--result-edge:#c99a3c;--paper:#fff;background:var(--paper);
font:12px system-ui,'DejaVu Sans',sans-serif}
@media (prefers-color-scheme:dark){.nn{--ink:#e6e9ef;--soft:#a4adbb;--line:#78818f;--layer:#20344f;
--layer-edge:#6f9fe0;--function:#2a2e36;--function-edge:#69717e;--data:#1d3a27;--data-edge:#68b981;
--result:#42351a;--result-edge:#d3a74c;--paper:#14171c}}
.nn text{fill:var(--ink)}.nn .soft{fill:var(--soft);font-size:10.5px}
.nn .type{paint-order:stroke;stroke:var(--paper);stroke-width:3px}
.nn .edge{fill:none;stroke:var(--line);stroke-width:1.2}.nn marker path{fill:var(--line)}
.nn rect{stroke-width:1.2}
.nn .layer rect{fill:var(--layer);stroke:var(--layer-edge)}
.nn .function rect,.nn .node rect{fill:var(--function);stroke:var(--function-edge)}
.nn .input rect{fill:var(--data);stroke:var(--data-edge)}
.nn .output rect{fill:var(--result);stroke:var(--result-edge)}
.nn [data-opens]{cursor:pointer}
.nn [data-opens]:hover rect,.nn [data-opens]:focus rect{stroke-width:2.4}
.nn .view{display:none}.nn .view.shown{display:inline}
"""
# Opens a box in the place of the picture, and goes back; without a script the picture stands.
_SCRIPT = """
(function(){var s=document.currentScript.closest('svg');
function show(id){s.querySelectorAll('.view').forEach(function(v){
v.classList.toggle('shown',v.id===id);
if(v.id===id){s.setAttribute('viewBox',v.dataset.box);
var b=v.dataset.box.split(' ');s.setAttribute('width',b[2]);s.setAttribute('height',b[3]);}});}
function go(e){var t=e.target.closest('[data-opens]');
if(t){show(t.dataset.opens);e.preventDefault();}}
s.addEventListener('click',go);
s.addEventListener('keydown',function(e){if(e.key==='Enter')go(e);});})();
"""


@dataclass(frozen=True)
class _Box:
    """What stands in a drawing: texts, a class of style, the view it opens, and what it says
    while the pointer rests on it."""

    kind: str
    texts: tuple[str, ...]
    tooltip: str = ""
    opens: str | None = None

    @property
    def size(self) -> tuple[float, float]:
        widest = max(
            (width_of(t, 12.0 if i == 0 else 10.5) for i, t in enumerate(self.texts)), default=0.0
        )
        sign = 20.0 if self.opens else 0.0
        return max(64.0, widest + 24.0 + sign), 14.0 + 15.0 * len(self.texts)


@dataclass
class _Picture:
    """Draws the views of a graph, each layer's and function's its own."""

    graph: Graph
    prefix: str
    views: list[str] = field(default_factory=list)
    names: dict[Value, str] = field(default_factory=dict)

    def view(
        self,
        blocks: Sequence[Block],
        results: Sequence[tuple[str, Value]],
        title: Sequence[tuple[str, str]],
    ) -> str:
        """Adds the view of these blocks, which give `results`, below those of `title`, names with
        the views that lead there; returns its name."""
        name = f"{self.prefix}-{len(self.views)}"
        place = len(self.views)
        self.views.append("")
        boxes, edges = self._boxes(blocks, results, name, title)
        layout = layered([box.size for box in boxes], edges)
        parts = [self._edge(path) for path in layout.paths.values()]
        parts += _type_labels(layout, boxes, edges)
        parts += [_drawn(box, *center) for box, center in zip(boxes, layout.centers, strict=True)]
        head = _HEAD if len(title) > 1 else 0.0
        across = max([width_of(" / ".join(n for n, _ in title)) if head else 0.0, layout.width])
        labels = [width_of(text, 10.5) for text in edges.values()]
        width = across + 2 * _MARGIN + max(labels, default=0.0)
        height = layout.height + 2 * _MARGIN + head
        moved = element("g", *parts, transform=f"translate({_MARGIN} {_MARGIN + head})")
        self.views[place] = element(
            "g",
            *(_way(title) if head else ()),
            moved,
            id=name,
            class_="view" if place else "view shown",
            data_box=f"0 0 {width:.0f} {height:.0f}",
        )
        return name

    def _boxes(
        self,
        blocks: Sequence[Block],
        results: Sequence[tuple[str, Value]],
        name: str,
        title: Sequence[tuple[str, str]],
    ) -> tuple[list[_Box], dict[tuple[int, int], str]]:
        """The boxes of a view, and the texts of its edges."""
        made = {v: i for i, block in enumerate(blocks) for v in block.values}
        needed = list(self._needed(blocks, made))
        outside = {
            a: _Box("input", (self.names[a], _short(a)), str(a.type))
            for a, _ in needed
            if a not in made
        }
        first = len(outside)
        numbers = {v: i for i, v in enumerate(outside)} | {v: i + first for v, i in made.items()}
        boxes = [*outside.values(), *(self._block(b, name, title) for b in blocks)]
        edges: dict[tuple[int, int], list[str]] = {}
        labelled: set[Value] = set(outside)  # the type of a value stands at one of its edges
        for a, i in needed:
            texts = edges.setdefault((numbers[a], i + first), [])
            if a not in labelled:
                labelled.add(a)
                texts.append(_short(a))
        for result, value in results:
            if value in made:
                edges[numbers[value], len(boxes)] = [] if value in labelled else [_short(value)]
                boxes.append(_Box("output", (result,), str(value.type)))
        return boxes, {edge: ", ".join(texts[:2]) for edge, texts in edges.items()}

    def _needed(
        self, blocks: Sequence[Block], made: Mapping[Value, int]
    ) -> Iterable[tuple[Value, int]]:
        """What blocks need of others and from outside, and the number of the block; once each."""
        return {
            (a, i): None
            for i, block in enumerate(blocks)
            for v in block.values
            for a in v.args
            if made.get(a, -1) != i and (a in made or a in self.names)
        }

    def _block(self, block: Block, name: str, title: Sequence[tuple[str, str]]) -> _Box:
        texts = [shortened(block.name, _LONGEST)]
        count = grouped(elements(block.parameters.values()))
        facts = [block.label, f"{count} parameters" if block.parameters else ""]
        if block.shares and not block.parameters:
            facts[1] = "shared"
        if any(facts):
            texts.append(shortened(" · ".join(filter(None, facts)), _LONGEST))
        parameters = [f"{n} : {v.type}" for n, v in block.parameters.items()]
        cost = [f"{grouped(block.macs)} MACs"] if block.macs != 0 else []
        types = ", ".join(str(v.type) for v in block.results)
        tooltip = "\n".join([block.place, types, *parameters, *cost])
        opens = None
        if block.blocks:
            path = [*title[:-1], (title[-1][0], name), (block.name, "")]
            results = [(self.names[v], v) for v in block.results]
            opens = self.view(block.blocks, results, path)
        return _Box(block.kind, tuple(texts), tooltip, opens)

    def _edge(self, points: Sequence[tuple[float, float]]) -> str:
        arrow = f"url(#{self.prefix}-arrow)"
        return element("path", d=curve(points), class_="edge", marker_end=arrow)


def picture(
    graph: Graph,
    classes: Mapping[str, str],
    hidden: Collection[str] = (),
    prefix: str = "nn",
) -> str:
    """The graph as SVG: data at the top, outputs below, and a box for each layer and for each
    function that is called outside of layers. A box opens where it is clicked, and what is within
    takes the place of the picture; where scripts do not run, the outermost stands alone.
    `prefix` begins the names of its parts, which must be others for each picture of a page."""
    drawing = _Picture(graph, prefix)
    blocks = outline(graph, classes, hidden)
    drawing.names = {v: n for n, v in graph.of_kind("input").items()}
    drawing.names |= _named(blocks)
    drawing.view(blocks, list(graph.outputs.items()), [(graph.name, "")])
    box = drawing.views[0].partition('data-box="')[2].partition('"')[0]
    _, _, width, height = box.split()
    arrow = element(
        "marker",
        element("path", d="M0 0L8 4L0 8z"),
        **{"id": f"{prefix}-arrow", "viewBox": "0 0 8 8", "refX": 7, "refY": 4},
        **{"markerWidth": 7, "markerHeight": 7, "orient": "auto"},
    )
    inner = (
        element("title", escape(graph.name)),
        element("style", _STYLE.strip()),
        element("defs", arrow),
        *drawing.views,
        element("script", _SCRIPT.strip()),
    )
    attributes = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box, "role": "img"}
    return element("svg", *inner, class_="nn", width=width, height=height, **attributes)


def _named(blocks: Sequence[Block]) -> dict[Value, str]:
    """What results are called where they enter or leave a box: as the innermost layer or function
    that gives them."""
    inner = [block for outer in blocks for _, block in outer.walk()]
    ordered = sorted(inner, key=lambda block: block.kind != "node")
    return {v: shortened(block.name, _LONGEST) for block in ordered for v in block.results}


def _way(title: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The names of the layers around a view, each of which leads there."""
    x = _MARGIN
    for name, opens in title:
        if opens:
            text = f"{name}  ‹"
            yield element(
                "g",
                label(text, x, 18.0, text_decoration="underline"),
                data_opens=opens,
                tabindex=0,
                role="button",
            )
        else:
            text = name
            yield label(text, x, 18.0, font_weight="600")
        x += width_of(text) + 12


def _drawn(box: _Box, x: float, y: float) -> str:
    width, height = box.size
    top = y - height / 2
    corner = 12.0 if box.kind in ("input", "output") else 5.0
    lines = [
        label(
            text,
            x,
            top + 18.0 + 15.0 * i,
            text_anchor="middle",
            class_="soft" if i else None,
            font_weight="600" if box.kind == "layer" and not i else None,
        )
        for i, text in enumerate(box.texts)
    ]
    rect = element("rect", x=x - width / 2, y=top, width=width, height=height, rx=corner)
    tooltip = [element("title", escape(box.tooltip))] if box.tooltip else []
    opening = {"data_opens": box.opens, "tabindex": 0, "role": "button"} if box.opens else {}
    mark = [label("+", x + width / 2 - 12, top + 13, class_="soft")] if box.opens else []
    return element("g", *tooltip, rect, *lines, *mark, class_=box.kind, **opening)


def _type_labels(
    layout: Layout, boxes: Sequence[_Box], edges: Mapping[tuple[int, int], str]
) -> Iterator[str]:
    """What flows along the edges, beside each, where nothing else is."""
    lines = {edge: sampled(path) for edge, path in layout.paths.items()}
    beginning: dict[int, list[Sequence[Point]]] = {}  # the lines from each box
    for (first, _), line in lines.items():
        beginning.setdefault(first, []).append(line)
    taken: list[Rectangle] = []
    for box, (x, y) in zip(boxes, layout.centers, strict=True):
        width, height = box.size
        taken.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    occupied = Occupied(lines.values(), taken)
    for edge, line in lines.items():
        if edges[edge]:
            same = [line, *beginning[edge[0]]]
            x, y, space = place(same, width_of(edges[edge], 10.5), occupied)
            occupied.take(space)
            yield label(edges[edge], x, y, class_="soft type")


def _short(v: Value) -> str:
    """`batch×6×28×28`: the shape, with the element type where it is not f32."""
    if isinstance(v.type, TupleType):
        return "…"
    type_: Type = v.type
    shape = "×".join(map(str, type_.shape)) or "number"
    return shortened(shape if type_.dtype is f32 else f"{type_.dtype} {shape}", _WIDEST)
