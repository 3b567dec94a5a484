"""The command line: arguments to calls of `api`, results to text. Nothing here computes."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import click

import recsys_dask
from recsys_dask import api, params
from recsys_dask.errors import RecsysDaskError

INTERRUPTED = 130


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "auto_envvar_prefix": "RECSYS_DASK"}
"""Every option of a command may be set in the environment, too: RECSYS_DASK_RUN_WORKERS."""


@click.group(context_settings=SETTINGS)
@click.version_option(recsys_dask.__version__, prog_name="recsys-dask")
def program() -> None:
    """Playlists in, popular artists, co-occurrence, similarities and recommendations out, on Dask."""


def _option(field: dataclasses.Field[Any], hint: Any) -> click.Option:
    """A dataclass field as an option of the same name."""
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if kind is not types.NoneType]
    name, rule = params.spelled(field.name), field.metadata
    show = field.default is not None and field.default is not False
    common: dict[str, Any] = {"default": field.default, "show_default": show, "help": rule["help"]}
    if kinds[0] is bool:
        return click.Option([name], is_flag=True, **common)
    if rule["choices"]:
        return click.Option([name], type=click.Choice(params.choices(rule["choices"])), **common)
    kind = kinds[0]
    if kind is int:
        return click.Option([name], type=click.IntRange(rule["low"], rule["high"]), **common)
    if kind is float:
        return click.Option([name], type=click.FloatRange(rule["low"], rule["high"]), **common)
    return click.Option([name], type=str, **common)


def _command(name: str, arguments: Sequence[click.Argument], extra: Sequence[click.Option] = ()) -> Callable[..., Any]:
    """Make a function that shows a result the command `name`, with an option for each parameter of the api's."""

    def enter(show: Callable[..., None]) -> click.Command:
        entry = api.COMMANDS[name]
        options: dict[str, click.Option] = {}
        for cls in entry.options:
            hints = typing.get_type_hints(cls)
            for field in dataclasses.fields(cls):
                options[field.name] = _option(field, hints[field.name])
        debug = click.Option(["--debug"], is_flag=True, help="Show where an error comes from.")

        def call(debug: bool, **given: Any) -> None:
            ours = {key: given.pop(key) for key in [option.name for option in extra] if key}
            _answer(lambda: show(entry.function, given, **ours), debug)

        short = (entry.function.__doc__ or "").partition("\n\nParameters:")[0]
        text = short.partition("Raises")[0].replace("`", "").strip()
        command = click.Command(
            name.replace("_", "-"), params=[*arguments, *options.values(), *extra, debug], callback=call, help=text
        )
        program.add_command(command)
        return command

    return enter


def _answer(act: Callable[[], None], debug: bool) -> None:
    """Do it, and turn what goes wrong into one line and an exit code."""
    from recsys_dask.runtime.interrupts import Interrupted, end, stoppable

    try:
        with stoppable(_abandon):
            act()
    except RecsysDaskError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            click.echo(f"recsys-dask: {line}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as error:
        click.echo("recsys-dask: interrupted; the same command goes on from here", err=True)
        if isinstance(error, Interrupted):
            end(error.exit_code, _abandon)  # a cluster that was interrupted while it closed keeps Python for a while
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _abandon() -> None:
    """What is left to do for a program that ends at once."""
    from recsys_dask.store import lock

    lock.abandon()


SOURCE = click.Argument(["source"], metavar="INPUT...", nargs=-1, required=True)
STORE = click.Argument(["store"], metavar="STORE")
OUT = click.Argument(["out"], metavar="OUT")
JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")


@_command("sample", [OUT])
def _sample(function: Callable[..., Any], given: dict[str, Any]) -> None:
    from recsys_dask.runtime.progress import for_people

    folder = function(given.pop("out"), progress=for_people(), **given)
    click.echo(f"{given['playlists']:,} playlists in {folder}")


@_command("run", [SOURCE, STORE])
def _run(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("plan", [SOURCE, STORE])
def _plan(function: Callable[..., Any], given: dict[str, Any]) -> None:
    source, store = given.pop("source"), given.pop("store")
    click.echo("stage                  tasks  memory a worker MB   disk MB")
    for one in function(source, store, **given):
        click.echo(f"{one.stage:20s} {one.tasks:7,d} {one.memory_bytes / 1e6:19,.0f} {one.disk_bytes / 1e6:9,.0f}")


@_command("ingest", [SOURCE, STORE])
def _ingest(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("counts", [STORE])
def _counts(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("near_duplicates", [STORE])
def _near_duplicates(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("pairs", [STORE])
def _pairs(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("train", [STORE])
def _train(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("neighbours", [STORE])
def _neighbours(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("fit", [STORE])
def _fit(function: Callable[..., Any], given: dict[str, Any]) -> None:
    _advanced(function, given)


@_command("embedding", [STORE, click.Argument(["queries"], metavar="ARTIST...", nargs=-1, required=True)], [JSON])
def _embedding(function: Callable[..., Any], given: dict[str, Any], as_json: bool) -> None:
    queries = given.pop("queries")
    vectors = function(given.pop("store"), queries, **given).tolist()
    if as_json:
        rows = [{"query": query, "vector": vector} for query, vector in zip(queries, vectors, strict=True)]
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    for query, vector in zip(queries, vectors, strict=True):
        click.echo(f"{query}: {' '.join(f'{value:.6g}' for value in vector)}")


@_command("export", [STORE, OUT])
def _export(function: Callable[..., Any], given: dict[str, Any]) -> None:
    from recsys_dask.runtime.progress import for_people

    files = function(given.pop("store"), given.pop("out"), progress=for_people(), **given)
    for file in files:
        click.echo(file)


@_command("similar", [STORE, click.Argument(["queries"], metavar="ARTIST...", nargs=-1, required=True)], [JSON])
def _similar(function: Callable[..., Any], given: dict[str, Any], as_json: bool) -> None:
    from recsys_dask.lookup import one_line

    rows = function(given.pop("store"), given.pop("queries"), **given)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        if row["rank"] == 1:
            click.echo(f"{row['query']}:")
        click.echo(f"{row['rank']:4d}  {row['score']:.6f}  {row['id']}  {one_line(row['name'])}")


ITEMS = click.Argument(["items"], metavar="[ID]...", nargs=-1)
AS_ITEMS = click.Option(["--items", "as_items"], is_flag=True, help="What follows is what one playlist holds.")
PLAYLISTS = click.Option(
    ["--playlists"], default=None, help="A file of playlists instead: MPD-shaped, or the challenge set."
)
OUT_FILE = click.Option(["--out"], default=None, help="--playlists: the CSV file to write, pid,id1,id2,…")


@_command("recommend", [STORE, ITEMS], [AS_ITEMS, PLAYLISTS, OUT_FILE, JSON])
def _recommend(
    function: Callable[..., Any],
    given: dict[str, Any],
    as_items: bool,
    playlists: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    from recsys_dask.lookup import one_line
    from recsys_dask.runtime.progress import for_people

    items = list(given.pop("items")) or None
    made = function(given.pop("store"), items, playlists=playlists, out=out, progress=for_people(), **given)
    if isinstance(made, str):
        click.echo(made)
    elif as_json:
        click.echo(json.dumps(made, ensure_ascii=False, indent=1))
    else:
        for row in made:
            click.echo(f"{row['rank']:4d}  {row['score']:9.4f}  {row['id']}  {one_line(row['name'])}")


SHOWN = ("r_precision", "ndcg@100", "recall@50")


@_command("evaluate", [STORE], [JSON])
def _evaluate(function: Callable[..., Any], given: dict[str, Any], as_json: bool) -> None:
    from recsys_dask.runtime.progress import for_people

    rows = function(given.pop("store"), progress=for_people(), **given)
    if as_json:
        plain = [{name: None if value != value else value for name, value in row.items()} for row in rows]  # no NaN
        click.echo(json.dumps(plain, ensure_ascii=False, indent=1))
        return
    of = {(row["method"], row["metric"]): row for row in rows}
    methods = sorted({row["method"] for row in rows}, key=lambda method: -of[method, "ndcg@100"]["mean"])
    click.echo(f"{'method':12s}" + "".join(f"  {name:>20s}" for name in SHOWN) + "  coverage@50  behind in ndcg@100")
    for method in methods:
        cells = [of[method, name] for name in SHOWN]
        text = "".join(f"  {one['mean']:.4f} {one['low']:.4f}-{one['high']:.4f}" for one in cells)
        gap = of[method, "ndcg@100"]
        apart = (
            f"  {gap['difference']:+.4f} ({gap['difference_low']:+.4f} to {gap['difference_high']:+.4f})"
            if gap["difference"]
            else ""
        )
        click.echo(f"{method:12s}{text}  {of[method, 'coverage@50']['mean']:11.3f}{apart}")
    click.echo(f"{of[methods[0], 'ndcg@100']['n']:,} test playlists; intervals of {given['level']:.0%} by bootstrap")


@_command("report", [STORE, click.Argument(["out"], metavar="OUT.html")])
def _report(function: Callable[..., Any], given: dict[str, Any]) -> None:
    from recsys_dask.runtime.progress import for_people

    click.echo(function(given.pop("store"), given.pop("out"), progress=for_people(), **given))


@_command("check", [STORE])
def _check(function: Callable[..., Any], given: dict[str, Any]) -> None:
    from recsys_dask.runtime.progress import for_people

    found = function(given.pop("store"), progress=for_people(), **given)
    click.echo(f"{found.files:,} files, {found.bytes:,} bytes: all as written")


@_command("info", [STORE], [JSON])
def _info(function: Callable[..., Any], given: dict[str, Any], as_json: bool) -> None:
    from recsys_dask.lookup import one_line

    found = function(given.pop("store"), **given)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
        return
    click.echo(f"{found['store']}: made by recsys_dask {found['package']}, format {found['format']}")
    click.echo(f"input: {found['input']['files']:,} files, {found['input']['bytes'] / 1e6:,.1f} MB")
    for path in found["set_aside"]:
        click.echo(f"set aside: {path}")
    click.echo("\nstage                      seconds  peak MB  parameters")
    for key, stage in found["stages"].items():
        given = {name: value for name, value in stage["params"].items() if name != "input" and value is not None}
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        click.echo(f"{key.replace(':', ' '):25s} {stage['seconds']:8.2f} {stage['peak_bytes'] / 1e6:8,.0f}  {shown}")
        for note in stage["notes"]:
            click.echo(f"  {note}")
    click.echo("\ntable                             rows          bytes  files")
    for name, table in found["tables"].items():
        click.echo(f"{name:25s} {table['rows']:12,d} {table['bytes']:14,d} {table['files']:6d}")
    if near := found["near_duplicates"]:
        click.echo(
            f"\nnear-duplicates: {near['near_duplicates']:,} of {near['playlists']:,} playlists ({near['share']:.1%})"
        )
    for name, pairs in found["frequent_pairs"].items():
        click.echo(f"\nmost frequent in {name}:")
        for pair in pairs:
            both = " + ".join(one_line(item) for item in pair["items"])
            click.echo(f"{pair['n_playlists']:10,d}  {both}")


def _advanced(function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Run stages, then the closing table and the one-line summary."""
    import time

    from recsys_dask.credentials import masked
    from recsys_dask.runtime.progress import for_people

    started = time.monotonic()
    places = [given.pop(name) for name in ("source", "store") if name in given]
    if isinstance(places[0], tuple) and len(places[0]) == 1:
        places[0] = places[0][0]
    outcomes = function(*places, progress=for_people(), **given)
    done = [outcome for outcome in outcomes if outcome.fresh]
    if done:
        click.echo("stage                       rows          bytes    seconds   peak MB")
    for one in done:
        report = one.report
        click.echo(
            f"{one.key.replace(':', ' '):20s} {report.rows:11,d} {report.bytes:14,d} {report.seconds:10.2f} "
            f"{report.peak_bytes / 1e6:9,.0f}"
        )
        for note in report.notes:
            click.echo(f"  {note}")
    seconds = time.monotonic() - started
    what = f"{len(done)} stages done" if done else "nothing to do"
    kept = f", {len(outcomes) - len(done)} finished before" if done and len(done) < len(outcomes) else ""
    click.echo(f"{masked(str(places[-1]))}: {what}{kept} in {seconds:.1f} s")


def main() -> None:
    """The console script."""
    program(prog_name="recsys-dask")
