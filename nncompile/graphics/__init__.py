"""Pictures as SVG: layouts of graphs, charts, and what they are written with."""
