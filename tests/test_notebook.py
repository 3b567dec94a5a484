"""What Jupyter shows of a store and its report, and the store's tables in other libraries."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import dask.dataframe
import duckdb
import polars
from small_store import Small

import recsys_dask


class Seen(HTMLParser):
    """Tags by name, the attributes of the last of each, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: dict[str, dict[str, str | None]] = {}
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_store_shows_its_tables(small: Small, tmp_path: Path) -> None:
    opened = small.opened
    seen = Seen(opened._repr_html_())
    assert {"table", "tr", "td"} <= set(seen.tags)
    assert set(opened.manifest.tables) <= set(seen.text)
    assert f"{opened.entry('rows').rows:,}" in seen.text
    hostile = recsys_dask.Store.open(str(small.copy(tmp_path / "<script>alert(1)<")))
    assert "script" not in Seen(hostile._repr_html_()).tags


def test_a_report_shows_itself(small: Small, tmp_path: Path) -> None:
    shown = recsys_dask.report(small.store, tmp_path / "report.html")
    assert Path(shown).read_text(encoding="utf-8") == Seen(shown._repr_html_()).tags["iframe"]["srcdoc"]


def test_a_line_opens_a_table_elsewhere(small: Small) -> None:
    opened = small.opened
    expected = opened.pandas("artists")
    paths = opened.files("artists")
    for found in (
        polars.read_parquet(paths).to_pandas(),
        duckdb.read_parquet(paths).df(),
        dask.dataframe.read_parquet(paths).compute(),
    ):
        assert list(found.columns) == list(expected.columns)
        assert found.astype(str).reset_index(drop=True).equals(expected.astype(str))
