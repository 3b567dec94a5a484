"""The plots, as JSON that bokeh's own script draws; without a background, so that they fit a light and a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.reporting.atlas import Atlas, Map
from recsys_dask.reporting.gather import Curve, Lengths, Quality
from recsys_dask.reporting.scenes import Scenes

GREY = "#7d858f"
ACCENT, OTHER, PICKED = "#2f81d6", "#e0802b", "#e5484d"
FONT = "system-ui, sans-serif"
GROUPS = (
    "#4c8fd6", "#e0802b", "#3fa35a", "#d65a62", "#9a76cf", "#a1785f", "#d87abf", "#8c8f94", "#a8a637", "#2fb0bf",
    "#6f7ee8", "#c49a2c",
)  # fmt: skip
LETTERS, SPARE = 12, 14
"""The size of a plot's letters, and what is left at its right, in pixels."""


def rank_frequency(ranks: NDArray[np.int64], mentions: NDArray[np.int64], item: str) -> dict[str, Any]:
    """Mentions by rank, both logarithmic."""
    plot = _figure(f"rank of the {item}", "mentions", x_axis_type="log", y_axis_type="log")
    source = _source(rank=ranks.astype(np.int32), mentions=mentions.astype(np.float64))
    plot.line("rank", "mentions", source=source, line_width=2, color=ACCENT)
    dots = plot.scatter("rank", "mentions", source=source, size=5, color=ACCENT, line_color=None)
    _hover(plot, [("rank", "@rank{0,0}"), ("mentions", "@mentions{0,0}")], [dots])
    return _json(plot, "plot-ranks")


def lengths(found: Lengths) -> dict[str, Any]:
    """Playlists by how many entries they have."""
    plot = _figure("entries of a playlist", "playlists")
    left, right = found.edges[:-1].astype(np.int32), found.edges[1:].astype(np.int32)
    source = _source(left=left, right=right, last=right - 1, playlists=found.counts.astype(np.int32))
    bars = plot.quad(
        left="left", right="right", top="playlists", bottom=0, source=source,
        fill_color=ACCENT, fill_alpha=0.75, line_color=None,
    )  # fmt: skip
    plot.y_range.start = 0
    _hover(plot, [("entries", "@left–@last"), ("playlists", "@playlists{0,0}")], [bars])
    return _json(plot, "plot-lengths")


def heat_map(found: Scenes) -> dict[str, Any]:
    """Cosines of the top items; names on one side, since both are the same."""
    from bokeh.models import ColorBar, FixedTicker, LinearColorMapper, PlainText, Range1d
    from bokeh.palettes import Viridis256

    n = len(found.names)
    row, column = (one.ravel().astype(np.int8) for one in np.mgrid[:n, :n])
    apart = row != column
    row, column = row[apart], column[apart]
    cosine = found.cosine[row, column]
    top = float(np.nanquantile(cosine, 0.99)) if len(cosine) else 1.0
    plot = _figure("", "", height=90 + 13 * n, x_range=Range1d(-0.5, n - 0.5), y_range=Range1d(n - 0.5, -0.5))
    source = _source(
        x=column, y=row, cosine=cosine.astype(np.float32),
        playlists=found.n_playlists[row, column].astype(np.int32),
        one=[found.names[at] for at in row], other=[found.names[at] for at in column],
    )  # fmt: skip
    mapper = LinearColorMapper(palette=Viridis256, low=0, high=max(top, 1e-6))
    cells = plot.rect("x", "y", 1, 1, source=source, color={"field": "cosine", "transform": mapper}, line_width=0.5)
    plot.xaxis.visible = False
    plot.grid.visible = False
    plot.yaxis.ticker = FixedTicker(ticks=list(range(n)))
    # Plain: bokeh takes $$…$$ in a label for a formula.
    plot.yaxis.major_label_overrides = {at: PlainText(_short(name, 24)) for at, name in enumerate(found.names)}
    plot.yaxis.major_tick_line_color = None
    bar = ColorBar(
        color_mapper=mapper, height=10, title="cosine", title_text_font_style="normal", background_fill_color=None,
        title_text_color=GREY, major_label_text_color=GREY, title_text_font=FONT, major_label_text_font=FONT,
        title_text_font_size="12px", major_label_text_font_size="12px",
        major_tick_line_color=None, bar_line_color=None,
    )  # fmt: skip
    plot.add_layout(bar, "below")
    _hover(plot, [("", "@one"), ("and", "@other"), ("playlists", "@playlists{0,0}"), ("cosine", "@cosine{0.000}")], [
        cells
    ])  # fmt: skip
    return _json(plot, "plot-scenes")


def curve(found: Curve) -> dict[str, Any]:
    """A training's losses by epoch."""
    plot = _figure("epoch", "loss", height=260)
    dots = []
    for name, values, colour in (("training", found.train, ACCENT), ("validation", found.valid, OTHER)):
        if np.isnan(values).all():
            continue
        source = _source(epoch=found.epoch.astype(np.float32), loss=values.astype(np.float32), of=[name] * len(values))
        plot.line("epoch", "loss", source=source, line_width=2, color=colour, legend_label=name)
        dots.append(plot.scatter("epoch", "loss", source=source, size=6, color=colour, line_color=None))
    plot.xaxis.ticker.min_interval = 1
    _hover(plot, [("epoch", "@epoch{0}"), ("@of loss", "@loss{0.0000}")], dots)
    for legend in plot.legend:
        legend.update(
            background_fill_color=None, border_line_color=None, label_text_color=GREY, label_text_font=FONT,
            label_text_font_size="12px", padding=2,
        )  # fmt: skip
    return _json(plot, f"plot-curve-{found.model}")


def map_of(found: Map, atlas: Atlas) -> dict[str, Any]:
    """Every item that a model has a vector of; empty glyphs for the one that is looked for and its neighbours."""
    from bokeh.core.properties import value
    from bokeh.models import LinearColorMapper, Range1d

    at = found.at
    mentions = atlas.mentions[at]
    size = 4 + 10 * (np.log1p(mentions) / max(float(np.log1p(mentions.max(initial=1))), 1e-9)) ** 3
    plot = _figure("", "", height=620, tools="pan,wheel_zoom,box_zoom,reset,save", active_scroll="wheel_zoom",
                   x_range=Range1d(-1.06, 1.06), y_range=Range1d(-1.06, 1.06))  # fmt: skip
    plot.name = "map"
    plot.axis.visible = False
    plot.grid.visible = False
    source = _source(
        x=found.places[:, 0], y=found.places[:, 1], size=size.astype(np.float32), group=found.groups.astype(np.uint8),
        mentions=mentions.astype(np.int32), name=[atlas.names[one] for one in at.tolist()],
    )  # fmt: skip
    colours = LinearColorMapper(palette=GROUPS, low=-0.5, high=len(GROUPS) - 0.5)
    dots = plot.scatter(
        "x", "y", source=source, size="size", line_color=None, fill_alpha=0.65,
        fill_color={"field": "group", "transform": colours},
    )  # fmt: skip
    for name, colour, width in (("near", OTHER, 2), ("picked", PICKED, 3)):
        empty = _source(x=[], y=[], size=[], label=[])
        empty.name = name
        plot.scatter("x", "y", source=empty, size="size", fill_color=None, line_color=colour, line_width=width)
        plot.text(
            "x", "y", "label", source=empty, x_offset=10, y_offset=-6, text_color=colour, text_font=value(FONT),
            text_font_size="13px" if name == "picked" else "11px", text_font_style="bold",
        )  # fmt: skip
    _hover(plot, [("", "@name"), ("mentions", "@mentions{0,0}")], [dots])
    return _json(plot, "plot-map")


def quality(rows: Sequence[Quality], at: int, title: str) -> dict[str, Any]:
    """One metric of every recommender with its interval, best on top."""
    from bokeh.models import FactorRange

    methods = [row.method for row in rows]
    mean, low, high = (np.array([row.means[at][side] for row in rows], np.float64) for side in range(3))
    plot = _figure(title, "", height=80 + 20 * len(rows), y_range=FactorRange(*methods[::-1]))
    source = _source(method=methods, mean=mean, low=low, high=high)
    plot.segment("low", "method", "high", "method", source=source, line_width=3, line_alpha=0.5, color=ACCENT)
    dots = plot.scatter("mean", "method", source=source, size=8, color=ACCENT, line_color=None)
    plot.ygrid.visible = False
    plot.x_range.start = 0
    plot.xaxis.ticker.desired_num_ticks = 4
    _hover(plot, [("", "@method"), (title, "@mean{0.0000}"), ("interval", "@low{0.0000} to @high{0.0000}")], [dots])
    return _json(plot, f"plot-quality-{at}")


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def _source(**columns: Any) -> Any:
    from bokeh.models import ColumnDataSource

    return ColumnDataSource(columns)


def _figure(x_label: str, y_label: str, *, height: int = 320, tools: str = "", **options: Any) -> Any:
    """An empty plot without a background, in a grey that can be read on white and on black."""
    from bokeh.plotting import figure

    plot = figure(
        height=height, sizing_mode="stretch_width", tools=tools, background_fill_color=None, border_fill_color=None,
        outline_line_color=None, x_axis_label=x_label or None, y_axis_label=y_label or None, min_border_right=SPARE,
        toolbar_location="above" if tools else None, **options,
    )  # fmt: skip
    plot.toolbar.logo = None
    for axis in plot.axis:
        axis.update(
        axis_line_color=GREY, major_tick_line_color=GREY, minor_tick_line_color=None, major_label_text_color=GREY,
        axis_label_text_color=GREY, axis_label_text_font=FONT, major_label_text_font=FONT,
        axis_label_text_font_style="normal", axis_label_text_font_size=f"{LETTERS}px",
        major_label_text_font_size=f"{LETTERS}px",
    )  # fmt: skip
    for grid in plot.grid:
        grid.update(grid_line_color=GREY, grid_line_alpha=0.2)
    return plot


def _hover(plot: Any, tooltips: list[tuple[str, str]], renderers: Sequence[Any]) -> None:
    from bokeh.models import HoverTool

    plot.add_tools(HoverTool(tooltips=tooltips, renderers=list(renderers), visible=False))


def _json(plot: Any, target: str) -> dict[str, Any]:
    from bokeh.embed import json_item

    return dict(json_item(plot, target))
