"""The page: what was gathered and its figures, in one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from recsys_dask import params
from recsys_dask.errors import StoreError, UsageError
from recsys_dask.reporting import figures, gather
from recsys_dask.reporting.atlas import Atlas, Map, atlas, map_of
from recsys_dask.reporting.names import Catalogue, Missing, missing
from recsys_dask.reporting.scenes import scenes
from recsys_dask.store.files import Folder
from recsys_dask.store.tables import Store

METRIC_NAMES = ("R-precision", "NDCG@100", "recall@50")
PLOTS = "plots"


class Page(str):
    """The path of a page, which Jupyter shows as the page."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        folder, name = _place(str(self))
        text = html.escape(folder.read(name).decode(), quote=True)
        return f'<iframe srcdoc="{text}" style="width: 100%; height: 80vh; border: 0"></iframe>'


def write(store: Store, out: str, options: params.Report, say: Callable[[str], None]) -> Page:
    """Make the page and put it at `out`, over an earlier one. Returns its path.

    Raises `UsageError` where `out` is no file's name, `StoreError` where its folder is not there or cannot be written.
    """
    folder, name = _place(out)
    folder.write(name, page(store, options, say).encode())
    return Page(folder.full(name))


def _place(out: str) -> tuple[Folder, str]:
    name = os.path.basename(out)
    if not name:
        raise UsageError(f"{out}: is a folder; name the file, such as {out}report.html")
    folder = Folder(os.path.dirname(out) or ".")
    if folder.is_local:
        if os.path.isdir(out):
            raise UsageError(f"{out}: is a folder; name the file, such as {out}/report.html")
        if not os.path.isdir(folder.path("")):
            raise StoreError(f"{out}: its folder is not there; make it with: mkdir -p {folder.url}")
    return folder, name


def page(store: Store, options: params.Report, say: Callable[[str], None] = lambda line: None) -> str:
    """The page as a text."""
    item = options.item
    plots: list[dict[str, Any]] = []
    found: dict[str, Any] = {
        "item": item,
        "facts": gather.facts(store, item),
        "stages": gather.stages(store),
        "lengths": gather.lengths(store),
        "curves": gather.curves(store, item),
        "quality": gather.quality(store, item),
        "metrics": METRIC_NAMES,
        "plots": plots,
        "absent": missing(store, f"{item}s"),
    }
    if not isinstance(found["lengths"], Missing):
        plots.append(figures.lengths(found["lengths"]))
    if store.has(f"{item}s"):
        _of_items(store, options, say, found, plots)
    plots += [figures.curve(one) for one in found["curves"].values() if not isinstance(one, Missing)]
    if not isinstance(found["quality"], Missing):
        plots += [figures.quality(found["quality"], at, name) for at, name in enumerate(METRIC_NAMES)]
    return _rendered(found)


def _of_items(
    store: Store, options: params.Report, say: Callable[[str], None], found: dict[str, Any], plots: list[dict[str, Any]]
) -> None:
    """What is told of single artists (tracks)."""
    item = options.item
    catalogue = Catalogue(store, item)
    plots.insert(0, figures.rank_frequency(*gather.rank_frequency(catalogue), item))
    order = [] if isinstance(found["quality"], Missing) else [row.method for row in found["quality"]]
    found["atlas"] = known = atlas(store, item, catalogue, options.searched, order)
    found["scenes"] = scenes(store, item, catalogue)
    if not isinstance(found["scenes"], Missing):
        plots.append(figures.heat_map(found["scenes"]))
    say(f"projecting the vectors of {known.n_searched:,} {item}s")
    found["map"] = places = map_of(store, item, options.model, known.codes)
    if not isinstance(places, Missing):
        plots.append(figures.map_of(places, known))
    found["search"] = _search(known, places)


def _search(known: Atlas, places: Map | Missing) -> dict[str, Any]:
    """What the page's script looks things up in: numbers little-endian, in base64."""
    where = np.full((known.n_searched, 2), np.nan, np.float32)
    if not isinstance(places, Missing):
        where[places.at] = places.places
    return {
        "names": known.names,
        "searched": known.n_searched,
        "mentions": _base64(known.mentions.astype("<u4")),
        "places": _base64(where.astype("<f4")),
        "methods": known.methods,
        "neighbours": {method: _base64(one.astype("<u2")) for method, one in known.neighbours.items()},
    }


def _base64(values: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _rendered(found: dict[str, Any]) -> str:
    """The template filled in. Everything in it is escaped but bokeh's script and ours."""
    import bokeh
    import jinja2
    from bokeh.resources import Resources
    from markupsafe import Markup

    loader = jinja2.PackageLoader("recsys_dask.reporting", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.tests["missing"] = lambda one: isinstance(one, Missing)
    environment.filters["megabytes"] = lambda n: f"{n / 1e6:,.0f} MB" if n >= 1e7 else f"{n / 1e6:,.1f} MB"
    environment.filters["number"] = lambda x, digits: "–" if np.isnan(x) else f"{x:.{digits}f}"
    scripts = (
        "\n".join(Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw) if found["plots"] else ""
    )
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        {"atlas": None, "search": None, "scenes": None, "map": None} | found,
        bokeh_script=Markup(scripts), bokeh_version=bokeh.__version__, style=style, script=script,
    )  # fmt: skip
