"""The program as people meet it: what it prints, what it skips, what it redoes and why, and how it is interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from click.testing import CliRunner, Result

import recsys_dask as rd
from recsys_dask import api, params
from recsys_dask.cli import program
from recsys_dask.runtime import connecting

PROGRAM = [sys.executable, "-m", "recsys_dask"]
HEAVY = ("torch", "fastai", "numba", "pyarrow", "pandas", "dask", "distributed", "bokeh")


def command(*arguments: Any, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """The real program, in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", timeout=timeout
    )


@pytest.fixture
def cli(client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The program in this process, on the cluster of the session instead of one of its own."""
    real = connecting.connect

    @contextlib.contextmanager
    def connect(options: params.Cluster, _: Any, progress: Any, *rest: Any) -> Iterator[connecting.Cluster]:
        with real(params.Cluster(), client, progress, *rest) as made:
            if progress:
                progress.say("dashboard: of the session")
            yield made

    monkeypatch.setattr(connecting, "connect", connect)
    return lambda *arguments: CliRunner().invoke(program, [str(one) for one in arguments], prog_name="recsys-dask")


# ---------------------------------------------------------------------------------------------------- slices and store


@pytest.fixture(scope="module")
def playlists(client, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = api.sample(tmp_path_factory.mktemp("sample") / "slices", playlists=330, seed=3, client=client)
    return json.loads((Path(folder) / "mpd.slice.0-329.json").read_bytes())["playlists"]


def write(folder: Path, playlists: list[dict[str, Any]]) -> Path:
    """Slices of a hundred playlists."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(playlists), 100):
        some = playlists[start : start + 100]
        path = folder / f"mpd.slice.{some[0]['pid']}-{some[-1]['pid']}.json"
        path.write_text(json.dumps({"info": {}, "playlists": some}))
    return folder


class Finished(NamedTuple):
    slices: Path
    store: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def finished(playlists: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A real `run` of 300 playlists."""
    folder = tmp_path_factory.mktemp("finished")
    slices = write(folder / "slices", playlists[:300])
    done = command("run", slices, folder / "store", "--workers", 2)
    return Finished(slices, folder / "store", done)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Finished:
    """Slices and store of the real run, to be changed; the store was made from the slices that are not copied."""
    store = Path(shutil.copytree(finished.store, tmp_path / "store"))
    slices = Path(shutil.copytree(finished.slices, tmp_path / "slices"))
    return Finished(slices, store, finished.done)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stages_of(store: Path) -> dict[str, Any]:
    return json.loads((store / "manifest.json").read_bytes())["stages"]


def tables_of(store: Path) -> dict[str, Any]:
    opened = rd.Store.open(str(store))
    return {name: opened.table(name) for name in opened.manifest.tables if not name.startswith("export_")}


def same_results(one: Path, other: Path) -> None:
    """Equal tables, and equal files of the export."""
    mine, others = tables_of(one), tables_of(other)
    assert sorted(mine) == sorted(others)
    for name in mine:
        assert mine[name].equals(others[name]), name
    assert files_of(one / "export") == files_of(other / "export")


# ----------------------------------------------------------------------------------------------------- help and version


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import contextlib, io, sys
from recsys_dask.cli import program
for command in (None, *program.commands):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        program([*([command] if command else []), "--help"], prog_name="recsys-dask")
    assert "Usage: recsys-dask" in out.getvalue()
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_the_program_itself_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "recsys_dask", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert imported.isdisjoint(HEAVY)


def test_help_tells_every_command_and_option() -> None:
    listing = command("--help").stdout
    for name, one in program.commands.items():
        assert re.search(rf"^  {name} ", listing, re.MULTILINE)
        text = CliRunner().invoke(program, [name, "--help"], prog_name="recsys-dask").output
        assert f"Usage: recsys-dask {name} " in text
        for option in one.params:
            if option.param_type_name == "option":
                assert option.opts[-1] in text and option.help
        assert "Raises" not in text and "`" not in text


def test_defaults_are_in_the_help() -> None:
    text = " ".join(CliRunner().invoke(program, ["pairs", "--help"]).output.split())
    for default in ("[default: 30; x>=0]", "[default: 0.004; x>=0.0]", "[default: 20; 1<=x<=1000]"):
        assert default in text


def test_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"recsys-dask, version {rd.__version__}\n", "")


# --------------------------------------------------------------------------------------------------------------- sample


def test_sample_twice_is_once(cli: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "slices"
    first = cli("sample", folder, "--playlists", 1_020, "--seed", 5)
    assert first.exit_code == 0
    assert first.stdout == f"1,020 playlists in {folder}\n"
    made = files_of(folder)
    assert sorted(name for name in made if name.endswith(".json")) == [
        "mpd.slice.0-999.json",
        "mpd.slice.1000-1019.json",
    ]
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    again = cli("sample", folder, "--playlists", 1_020, "--seed", 5)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.json")} == times

    # One that is missing is made again, and only that.
    (folder / "mpd.slice.1000-1019.json").unlink()
    assert cli("sample", folder, "--playlists", 1_020, "--seed", 5).exit_code == 0
    assert files_of(folder) == made
    assert (folder / "mpd.slice.0-999.json").stat().st_mtime_ns == times[folder / "mpd.slice.0-999.json"]


@pytest.mark.parametrize("other", [["--seed", 6], ["--playlists", 40, "--seed", 5], ["--seed", 5, "--copies", 0.5]])
def test_sample_refuses_a_folder_of_another(other: list[Any], cli: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "slices"
    assert cli("sample", folder, "--playlists", 30, "--seed", 5).exit_code == 0
    made = files_of(folder)
    refused = cli("sample", folder, "--playlists", 30, *other)
    assert refused.exit_code == 1
    assert re.fullmatch(r"recsys-dask: .*slices: holds another sample .*another folder\n", last_line(refused.stderr))
    assert files_of(folder) == made


def test_sample_refuses_a_folder_of_real_slices(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mpd.slice.0-999.json").write_text("{}")
    refused = cli("sample", tmp_path, "--playlists", 30)
    assert refused.exit_code == 1 and "holds other slices" in refused.stderr
    assert files_of(tmp_path) == {"mpd.slice.0-999.json": b"{}"}


def test_samples_of_two_seeds_differ(cli: Callable[..., Result], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert cli("sample", tmp_path / name, "--playlists", 30, "--seed", seed).exit_code == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b") != files_of(tmp_path / "c")


def last_line(text: str) -> str:
    return text.splitlines(keepends=True)[-1]


# ------------------------------------------------------------------------------------------------------------------ run

STAGES = [
    "ingest",
    "counts",
    "near_duplicates",
    "pairs:artist:article",
    "similar:artist:coco",
    "pairs:artist:full",
    *(f"similar:artist:{name}" for name in params.measures() if name != "coco"),
    "export:artist",
]


def test_run_prints_a_table_and_a_summary(finished: Finished) -> None:
    done = finished.done
    assert done.returncode == 0, done.stderr
    head, *rows, last = done.stdout.splitlines()
    assert re.split(r"\s{2,}", head) == ["stage", "rows", "bytes", "seconds", "peak MB"]
    shown = [re.fullmatch(r"(.+?) +[\d,]+ +[\d,]+ +[\d.]+ +[\d,]+", row) for row in rows]
    assert [row and row[1] for row in shown] == [stage.replace(":", " ") for stage in STAGES]
    assert re.fullmatch(rf"{re.escape(str(finished.store))}: {len(STAGES)} stages done in [\d.]+ s", last)
    n_rows = rd.Store.open(str(finished.store)).entry("rows").rows
    assert re.match(rf"ingest +{n_rows:,} ", rows[0])


def test_run_shows_progress_in_plain_lines(finished: Finished) -> None:
    lines = finished.done.stderr.splitlines()
    assert [line for line in lines if re.fullmatch(r"dashboard: http://127\.0\.0\.1:\d+/status", line)]
    for title in ("decode", "merge", "recode", "counts", "article pairs", "full pairs", "export"):
        assert [line for line in lines if re.match(rf"{title}: \d+ tasks in [\d.]+ s", line)], title
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", finished.done.stderr)
    assert "Traceback" not in finished.done.stderr and "Warning" not in finished.done.stderr


def test_run_leaves_a_whole_store(finished: Finished) -> None:
    manifest = json.loads((finished.store / "manifest.json").read_bytes())
    assert list(manifest["stages"]) == STAGES
    listed = {file["path"] for table in manifest["tables"].values() for file in table["files"]}
    assert set(files_of(finished.store)) == listed | {"manifest.json"}
    assert {"artist_counts.csv", "pairs.csv", "similar.txt", "coco.txt", "cosine.txt"} <= set(
        files_of(finished.store / "export")
    )


def test_run_again_does_nothing_and_starts_no_cluster(finished: Finished) -> None:
    before = files_of(finished.store)
    done = command("run", finished.slices, finished.store, "--workers", 2)
    assert done.returncode == 0
    assert re.fullmatch(rf"{re.escape(str(finished.store))}: nothing to do in [\d.]+ s\n", done.stdout)
    assert done.stderr == ""
    assert files_of(finished.store) == before


def test_single_steps_make_what_run_makes(finished: Finished, cli: Callable[..., Result], tmp_path: Path) -> None:
    store = tmp_path / "store"
    singles = (["ingest", finished.slices, store], ["counts", store], ["near-duplicates", store], ["pairs", store])
    for arguments, n in zip(singles, (1, 1, 1, 11), strict=True):
        shown = cli(*arguments)
        assert shown.exit_code == 0
        assert re.search(rf"{n} stages? done in", last_line(shown.stdout))
    shown = cli("export", store, store / "export")
    assert shown.exit_code == 0
    assert sorted(shown.stdout.splitlines()) == [str(store / "export" / name) for name in files_of(store / "export")]
    same_results(store, finished.store)
    done = cli("run", finished.slices, store)
    assert "1 stages done, 14 finished before" in done.stdout  # the store has not made that export itself


@pytest.mark.parametrize("command", ["ingest", "counts", "near-duplicates", "pairs"])
def test_a_single_step_again_does_nothing(command: str, finished: Finished, cli: Callable[..., Result]) -> None:
    before = files_of(finished.store)
    arguments = [finished.slices, finished.store] if command == "ingest" else [finished.store]
    shown = cli(command, *arguments)
    assert shown.exit_code == 0 and "nothing to do" in shown.stdout
    assert shown.stderr == ""
    assert files_of(finished.store) == before


FULL = ["pairs:artist:full", *(stage for stage in STAGES if stage.startswith("similar") and "coco" not in stage)]
ARTICLE = ["pairs:artist:article", "similar:artist:coco"]

CHANGES: dict[str, tuple[list[Any], list[str], str]] = {
    "score-over": (["--score-over", 0.01], ["similar:artist:coco"], "--score-over was 0.004, is 0.01"),
    "score": (["--score", "count"], ["similar:artist:coco"], "--score was normalised, is count"),
    "rows-high": (["--rows-high", 20], ARTICLE, "--rows-high was 30, is 20"),
    "mentions-over": (["--mentions-over", 9], ARTICLE, "--mentions-over was None, is 9"),
    "best": (["--best", 5], [stage for stage in STAGES if "similar" in stage], "--best was 20, is 5"),
    "top": (["--top", 500], ["counts", *ARTICLE, *FULL], "--top was 10000, is 500"),
    "parquet": (["--parquet"], [], "--parquet was False, is True"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_parameter_redoes_what_depends_on_it(
    name: str, finished: Finished, copied: Finished, cli: Callable[..., Result]
) -> None:
    options, redone, words = CHANGES[name]
    redone = [*redone, "export:artist"]
    before = stages_of(copied.store)
    shown = cli("run", finished.slices, copied.store, *options)
    assert shown.exit_code == 0, shown.stderr
    after = stages_of(copied.store)
    assert {stage for stage in STAGES if after[stage] != before[stage]} == set(redone)
    for stage in redone:
        assert after[stage]["fingerprint"] != before[stage]["fingerprint"]

    # It says what it does again and why, and what it left alone.
    again = re.findall(r"^(.*): again, since (.*)$", shown.stderr, re.MULTILINE)
    assert sorted(stage for stage, _ in again) == sorted(stage.replace(":", " ") for stage in redone)
    assert again[0][1] == words
    kept = len(STAGES) - len(redone)
    assert f"{len(redone)} stages done, {kept} finished before" in shown.stdout

    # No file of the earlier tables stays, those of untouched stages do.
    manifest = json.loads((copied.store / "manifest.json").read_bytes())
    listed = {file["path"] for table in manifest["tables"].values() for file in table["files"]}
    assert set(files_of(copied.store)) == listed | {"manifest.json"}
    untouched = {table for stage in set(STAGES) - set(redone) for table in before[stage]["tables"]}
    for file, content in files_of(finished.store).items():
        if file.startswith("tables/") and file.split("/")[1] in untouched:
            assert files_of(copied.store)[file] == content


def test_a_parameter_changed_back_makes_what_was(
    finished: Finished, copied: Finished, cli: Callable[..., Result]
) -> None:
    for options in (["--rows-high", 20], []):
        assert cli("run", finished.slices, copied.store, *options).exit_code == 0
    same_results(copied.store, finished.store)
    before, after = stages_of(finished.store), stages_of(copied.store)
    assert [after[stage]["fingerprint"] for stage in STAGES] == [before[stage]["fingerprint"] for stage in STAGES]


def test_bad_file_handling_is_a_parameter_too(finished: Finished, copied: Finished, cli: Callable[..., Result]) -> None:
    shown = cli("ingest", finished.slices, copied.store, "--on-bad-file", "skip")
    assert "ingest: again, since --on-bad-file was stop, is skip\n" in shown.stderr


def test_a_changed_input_is_noticed(
    playlists: list[dict[str, Any]], copied: Finished, cli: Callable[..., Result], tmp_path: Path
) -> None:
    slices, store = copied.slices, copied.store
    path = slices / "mpd.slice.100-199.json"

    def touch(old: str, new: str) -> None:
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))

    changes: dict[str, tuple[Callable[[], Any], list[Any]]] = {
        "3 new, 3 gone (of 3 files)": (lambda: None, []),  # the copies are other files to it
        "1 new (of 4 files)": (lambda: write(slices, playlists[300:]), []),
        "1 changed (of 4 files)": (lambda: touch('"name": "', '"name": "~'), []),
        "1 gone (of 3 files)": (path.unlink, []),
        "1 gone (of 2 files)": (lambda: None, ["--files", 2]),
    }
    options: list[Any] = []
    for news, (change, options) in changes.items():
        before = stages_of(store)
        change()
        shown = cli("ingest", slices, store, *options)
        assert shown.exit_code == 0, shown.stderr
        assert shown.stderr.startswith(f"the input changed: {news}\n")
        assert "ingest: again, since the input changed\n" in shown.stderr
        assert stages_of(store)["ingest"]["fingerprint"] != before["ingest"]["fingerprint"]
        assert "nothing to do" in cli("ingest", slices, store, *options).stdout

    # All that is made from it is made again, and nothing of what was is left.
    before = stages_of(store)
    shown = cli("run", slices, store, *options)
    assert f"{len(STAGES) - 1} stages done, 1 finished before" in shown.stdout
    after = stages_of(store)
    assert [stage for stage in STAGES if after[stage] != before.get(stage)] == STAGES[1:]
    assert cli("run", slices, tmp_path / "new", *options).exit_code == 0
    same_results(store, tmp_path / "new")


def test_a_changed_content_of_the_same_size_is_noticed(copied: Finished, cli: Callable[..., Result]) -> None:
    assert cli("ingest", copied.slices, copied.store).exit_code == 0
    path = copied.slices / "mpd.slice.100-199.json"
    path.write_text(path.read_text().replace('"duration_ms": 1', '"duration_ms": 3'))
    shown = cli("ingest", copied.slices, copied.store)
    assert "the input changed: 1 changed (of 3 files)" in shown.stderr
    assert "1 stages done" in shown.stdout


@pytest.fixture(scope="module")
def other(client, playlists: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Other slices, and the store of them."""
    folder = tmp_path_factory.mktemp("other")
    slices = write(folder / "slices", playlists[200:])
    api.run(slices, folder / "store", client=client, models="none")
    return Finished(slices, folder / "store", subprocess.CompletedProcess([], 0))


@pytest.fixture
def reingested(other: Finished, copied: Finished, cli: Callable[..., Result]) -> Path:
    """A finished store on which `ingest` alone was run again, of other slices: its codes are others now."""
    assert cli("ingest", other.slices, copied.store).exit_code == 0
    return copied.store


def test_pairs_do_not_mix_two_inputs(reingested: Path, other: Finished, cli: Callable[..., Result]) -> None:
    """`pairs` on the counts of an earlier input is refused, or the counts are made anew."""
    shown = cli("pairs", reingested)
    if shown.exit_code:
        assert shown.exit_code == 1 and "recsys-dask counts" in last_line(shown.stderr)
        return
    mine, others = tables_of(reingested), tables_of(other.store)
    for name in others:
        if name.startswith(("pairs_", "pair_items_", "similar_")):
            assert mine[name].equals(others[name]), name


def test_similar_does_not_mix_two_inputs(reingested: Path, other: Finished, cli: Callable[..., Result]) -> None:
    """A table whose codes are those of an earlier ingest is not read with the names of this one."""
    artist = rd.Store.open(str(other.store)).table("artists")["artist_id"][0].as_py()
    shown = cli("similar", reingested, artist, "--json")
    assert shown.exit_code == 1 or shown.stdout == cli("similar", other.store, artist, "--json").stdout


def test_info_does_not_mix_two_inputs(reingested: Path, other: Finished, cli: Callable[..., Result]) -> None:
    shown = cli("info", reingested, "--json")
    pairs = json.loads(cli("info", other.store, "--json").stdout)["frequent_pairs"]
    assert shown.exit_code == 1 or json.loads(shown.stdout)["frequent_pairs"] in ({}, pairs)


def test_export_does_not_mix_two_inputs(
    reingested: Path, other: Finished, cli: Callable[..., Result], tmp_path: Path
) -> None:
    shown = cli("export", reingested, tmp_path / "out")
    if shown.exit_code:
        assert "a task failed" not in shown.stderr and shown.stderr.startswith("recsys-dask: ")
        return
    whole = files_of(other.store / "export")
    assert [name for name, content in files_of(tmp_path / "out").items() if whole[name] != content] == []


# -------------------------------------------------------------------------------------------------------------- similar


class Answers(NamedTuple):
    """What a store holds, read without the package's look-up."""

    ids: list[str]
    names: list[str]
    similar: dict[str, dict[int, list[dict[str, Any]]]]

    def rows(self, code: int, query: str, k: int = 20, method: str = "cosine") -> list[dict[str, Any]]:
        return [
            {
                "query": query,
                "rank": row["rank"],
                "id": self.ids[row["neighbour"]],
                "name": self.names[row["neighbour"]],
                "score": row["score"],
            }
            for row in self.similar[method].get(code, [])[:k]
        ]


@pytest.fixture(scope="module")
def answers(finished: Finished) -> Answers:
    store = rd.Store.open(str(finished.store))
    artists = store.table("artists").to_pylist()
    assert [row["artist"] for row in artists] == list(range(len(artists)))
    similar: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for method in params.measures():
        seeds: dict[int, list[dict[str, Any]]] = similar.setdefault(method, {})
        for row in store.table(f"similar_artist_{method}").to_pylist():
            seeds.setdefault(row["item"], []).append(row)
    return Answers([row["artist_id"] for row in artists], [row["artist_name"] for row in artists], similar)


@pytest.fixture
def ask(finished: Finished, cli: Callable[..., Result]) -> Callable[..., Result]:
    return lambda *arguments: cli("similar", finished.store, *arguments)


def test_similar_by_id_uri_and_name(ask: Callable[..., Result], answers: Answers) -> None:
    for code in (0, 1, 7):
        name = answers.names[code]
        for query in (answers.ids[code], f"spotify:artist:{answers.ids[code]}", name, name.upper(), name.lower()):
            shown = ask("--json", query)
            assert shown.exit_code == 0, shown.stderr
            assert json.loads(shown.stdout) == answers.rows(code, query)
            assert shown.stderr == ""


def test_similar_by_a_unique_prefix(ask: Callable[..., Result], answers: Answers) -> None:
    folded = [name.lower() for name in answers.names]
    code = next(
        at for at, name in enumerate(folded) if len(name) > 9 and sum(one.startswith(name[:-2]) for one in folded) == 1
    )
    query = answers.names[code][:-2].upper()
    assert json.loads(ask("--json", query).stdout) == answers.rows(code, query)


ALIKE = ["Air", "Air Supply", "AIRBORNE", "Fair", "Beyoncé", "two\nlines", "two\r\nmore", "two\x0bforms\x1b[31m"]
SCRIPTS = ["İstanbul", "ΟΔΥΣΣΕΥΣ", "ΣΊΣΥΦΟΣ", "ǅ", "\u212aelvin", "Straße", "ſ", "ŉ"]


@pytest.fixture(scope="module")
def named(client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which artists of these names stand in the same three playlists."""
    tracks = [
        {
            "pos": at,
            "artist_name": name,
            "artist_uri": f"spotify:artist:{at:022}",
            "track_name": "",
            "track_uri": f"spotify:track:{at:022}",
        }
        for at, name in enumerate([*ALIKE, *SCRIPTS])
    ]
    folder = tmp_path_factory.mktemp("named")
    lists = [{"pid": pid, "num_tracks": len(tracks), "tracks": tracks} for pid in range(3)]
    api.run(write(folder / "slices", lists), folder / "store", client=client, models="none")
    return folder / "store"


@pytest.mark.parametrize(
    "query, name",
    [("air", "Air"), ("AIR", "Air"), ("air s", "Air Supply"), ("airb", "AIRBORNE"), ("BEYONCÉ", "Beyoncé")],
)
def test_similar_prefers_the_whole_name_to_a_prefix(
    query: str, name: str, named: Path, cli: Callable[..., Result]
) -> None:
    shown = cli("similar", named, query, "--json")
    assert {row["name"] for row in json.loads(shown.stdout)} == {*ALIKE, *SCRIPTS} - {name}


@pytest.mark.parametrize("query", ["ai", "two"])
def test_similar_does_not_choose_among_several(query: str, named: Path, cli: Callable[..., Result]) -> None:
    shown = cli("similar", named, query, "--json")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "3 artists go by that" in shown.stderr


@pytest.mark.parametrize("name", [*ALIKE, *SCRIPTS])
def test_similar_by_the_name_as_it_stands(name: str, named: Path, cli: Callable[..., Result]) -> None:
    """Whatever lower case is in that script, an artist's own name finds it."""
    shown = cli("similar", named, name, "--json")
    assert shown.exit_code == 0, shown.stderr
    assert {row["name"] for row in json.loads(shown.stdout)} == {*ALIKE, *SCRIPTS} - {name}


def test_similar_of_an_ambiguous_name_lists_candidates(ask: Callable[..., Result], answers: Answers) -> None:
    folded = [name.lower() for name in answers.names]
    for length in (1, 2, 3):
        query = folded[0][:length]
        codes = [code for code, name in enumerate(folded) if name.startswith(query)]
        if len(codes) == 1:
            continue
        shown = ask(query)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert shown.stderr.startswith(f"recsys-dask: {query}: {len(codes)} artists go by that: {answers.ids[0]}")
        for code in codes[:8]:  # by falling mentions, as codes are
            assert f"{answers.ids[code]} ({answers.names[code]})" in shown.stderr
        assert shown.stderr.endswith("; give the id\n")


def test_similar_says_it_in_one_line_whatever_names_hold(named: Path, cli: Callable[..., Result]) -> None:
    shown = cli("similar", named, "two")
    assert shown.exit_code == 1
    (line,) = shown.stderr.splitlines()
    assert line.startswith("recsys-dask: two: 3 artists go by that") and line.isprintable()


def test_similar_shows_a_neighbour_a_line_whatever_names_hold(named: Path, cli: Callable[..., Result]) -> None:
    lines = cli("similar", named, "air").stdout.splitlines()
    assert len(lines) == len([*ALIKE, *SCRIPTS])
    assert all(line.isprintable() for line in lines)


def test_similar_of_an_unknown_name_lists_the_nearest(ask: Callable[..., Result], answers: Answers) -> None:
    name = answers.names[0]
    query = name[:3] + "x" + name[3:]
    shown = ask(query)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert re.fullmatch(
        rf"recsys-dask: {query}: no such artist in this store; nearest are .*{answers.ids[0]} \({name}\).*\n",
        shown.stderr,
    )


@pytest.mark.parametrize("query", ["0" * 22, "spotify:artist:" + "0" * 22, "spotify:track:" + "0" * 22, "\x7f\x7f"])
def test_similar_of_nothing_like_it(query: str, ask: Callable[..., Result]) -> None:
    shown = ask(query)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert re.fullmatch(r"recsys-dask: .*: no such artist in this store\n", shown.stderr)


def test_similar_of_bytes_that_are_no_text(finished: Finished) -> None:
    done = subprocess.run([*map(os.fsencode, [*PROGRAM, "similar", finished.store]), b"\xff"], capture_output=True)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr and done.stderr.startswith(b"recsys-dask: ")


def test_similar_of_several_at_once(ask: Callable[..., Result], answers: Answers) -> None:
    queries = [answers.ids[3], answers.names[0], answers.ids[3], f"spotify:artist:{answers.ids[12]}"]
    shown = ask("--json", "-k", 4, *queries)
    assert json.loads(shown.stdout) == [
        row for code, query in zip((3, 0, 3, 12), queries, strict=True) for row in answers.rows(code, query, 4)
    ]
    shown = ask(answers.ids[0], "not there")
    assert (shown.exit_code, shown.stdout) == (1, "")


def test_similar_k(ask: Callable[..., Result], answers: Answers) -> None:
    for k in (1, 3, 20, 500):
        shown = ask("-k", k, "--json", answers.ids[0])
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout) == answers.rows(0, answers.ids[0], k)
    assert ask("-k", 0, answers.ids[0]).exit_code == 2


def test_similar_by_every_method(ask: Callable[..., Result], answers: Answers) -> None:
    for method in params.measures():
        code = min(answers.similar[method])
        query = answers.ids[code]
        shown = ask("--method", method, "--json", query)
        assert json.loads(shown.stdout) == answers.rows(code, query, method=method)
    shown = ask("--method", "cosinus", answers.ids[0])
    assert shown.exit_code == 2
    assert "cosinus" in shown.stderr and "cosine" in shown.stderr


def test_similar_of_one_without_neighbours(ask: Callable[..., Result], answers: Answers) -> None:
    code = next(code for code in range(len(answers.ids)) if code not in answers.similar["coco"])
    shown = ask("--method", "coco", answers.ids[code])
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith(f"recsys-dask: {answers.ids[code]}: coco has no neighbours of ")


def test_similar_json_has_the_shape_of_the_contract(ask: Callable[..., Result], answers: Answers) -> None:
    rows = json.loads(ask("--json", answers.names[0]).stdout)
    assert isinstance(rows, list) and len(rows) == 20
    for rank, row in enumerate(rows, 1):
        assert list(row) == ["query", "rank", "id", "name", "score"]
        assert [type(value) for value in row.values()] == [str, int, str, str, float]
        assert row["rank"] == rank and re.fullmatch("[0-9A-Za-z]{22}", row["id"])
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)


def test_similar_for_people(ask: Callable[..., Result], answers: Answers) -> None:
    shown = ask("-k", 20, answers.ids[0], answers.ids[1])
    lines = shown.stdout.splitlines()
    assert len(lines) == 2 * 21
    assert (lines[0], lines[21]) == (f"{answers.ids[0]}:", f"{answers.ids[1]}:")
    for line, row in zip(lines[1:21], answers.rows(0, ""), strict=True):
        assert line.split()[:3] == [str(row["rank"]), f"{row['score']:.6f}", row["id"]]


def test_similar_from_python_is_the_same(ask: Callable[..., Result], answers: Answers, finished: Finished) -> None:
    query = answers.names[0]
    assert api.similar(finished.store, query) == json.loads(ask("--json", query).stdout)
    assert api.similar(finished.store, [query]) == api.similar(finished.store, (query,))
    assert api.similar(str(finished.store), [query, query], k=2) == 2 * answers.rows(0, query, 2)


# ------------------------------------------------------------------------------------------------------ info and export


def test_info_as_json(finished: Finished, cli: Callable[..., Result]) -> None:
    found = json.loads(cli("info", finished.store, "--json").stdout)
    assert found == json.loads(json.dumps(api.info(finished.store)))
    manifest = json.loads((finished.store / "manifest.json").read_bytes())
    assert found["input"] == {
        "files": 3,
        "bytes": sum(path.stat().st_size for path in finished.slices.iterdir()),
    }
    assert set(found["stages"]) == set(STAGES)
    assert found["stages"]["counts"]["params"] == {"top": 10_000}
    for stage, entry in found["stages"].items():
        assert entry["finished_at"] == manifest["stages"][stage]["finished_at"]
    store = rd.Store.open(str(finished.store))
    for name, table in found["tables"].items():
        if not name.startswith("export"):
            assert table["rows"] == store.table(name).num_rows
            assert table["bytes"] == sum(os.path.getsize(path) for path in store.files(name))
            assert table["files"] == len(store.files(name))


@pytest.mark.parametrize("view", ["article", "full"])
def test_info_tells_the_most_frequent_pairs(
    view: str, finished: Finished, cli: Callable[..., Result], answers: Answers
) -> None:
    found = json.loads(cli("info", finished.store, "--json").stdout)["frequent_pairs"][f"pairs_artist_{view}"]
    pairs = rd.Store.open(str(finished.store)).table(f"pairs_artist_{view}").to_pylist()
    pairs.sort(key=lambda pair: (-pair["n_playlists"], pair["item1"], pair["item2"]))
    assert found == [
        {
            "n_playlists": pair["n_playlists"],
            "items": [answers.names[pair["item1"]], answers.names[pair["item2"]]],
        }
        for pair in pairs[:5]
    ]


def test_info_for_people(finished: Finished, cli: Callable[..., Result]) -> None:
    shown = cli("info", finished.store)
    assert shown.exit_code == 0 and shown.stderr == ""
    lines = shown.stdout.splitlines()
    assert lines[0] == f"{finished.store}: made by recsys_dask {rd.__version__}, format 1"
    assert re.fullmatch(r"input: 3 files, [\d.]+ MB", lines[1])
    first = [re.split(r"\s{2,}", line)[0] for line in lines]
    for stage in STAGES:
        assert any(line.startswith(stage.replace(":", " ")) for line in lines), stage
    for table in api.info(finished.store)["tables"]:
        assert table in [one.split(" ")[0] for one in first]
    assert "most frequent in pairs_artist_full:" in lines
    assert "rows_high=30" in shown.stdout
    assert all(line.isprintable() for line in lines)


def test_info_of_a_store_that_is_half_done(finished: Finished, cli: Callable[..., Result], tmp_path: Path) -> None:
    assert cli("ingest", finished.slices, tmp_path / "store").exit_code == 0
    shown = cli("info", tmp_path / "store")
    assert shown.exit_code == 0
    assert json.loads(cli("info", tmp_path / "store", "--json").stdout)["frequent_pairs"] == {}


def test_export_elsewhere_is_the_store_s_own(finished: Finished, cli: Callable[..., Result], tmp_path: Path) -> None:
    before = files_of(finished.store)
    shown = cli("export", finished.store, tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    assert files_of(tmp_path / "out") == files_of(finished.store / "export")
    assert set(shown.stdout.splitlines()) == {str(path) for path in (tmp_path / "out").iterdir()}
    assert files_of(finished.store) == before


def test_export_of_rows_and_parquet(finished: Finished, cli: Callable[..., Result], tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet as pq

    assert cli("export", finished.store, tmp_path / "csv", "--rows").exit_code == 0
    assert cli("export", finished.store, tmp_path / "parquet", "--rows", "--parquet").exit_code == 0
    assert set(files_of(tmp_path / "parquet")) == (
        set(files_of(tmp_path / "csv")) - {"playlist_1.csv"} | {"playlist_1.parquet", "pairs.parquet"}
    )
    for name in ("playlist_1.csv", "playlist_1.parquet"):
        assert (tmp_path / name.partition(".")[2] / name).stat().st_size > 0
    written = pq.read_table(tmp_path / "parquet" / "playlist_1.parquet")
    assert written.column_names == ["pid", "artist_name", "artist_uri", "track_name", "track_uri"]
    read = pyarrow.csv.read_csv(
        tmp_path / "csv" / "playlist_1.csv",
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=written.schema, strings_can_be_null=False),
    )
    assert read.num_rows == written.num_rows
    assert read["artist_uri"].equals(written["artist_uri"])
    pairs = pq.read_table(tmp_path / "parquet" / "pairs.parquet")
    assert pyarrow.csv.read_csv(tmp_path / "csv" / "pairs.csv").cast(pairs.schema).equals(pairs)


def test_output_into_a_closed_pipe_is_no_traceback(finished: Finished) -> None:
    store = str(finished.store)
    with subprocess.Popen([*PROGRAM, "info", store], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode in (0, 1)


# -------------------------------------------------------------------------------------------------------- interrupted


class Interrupted(NamedTuple):
    slices: Path
    store: Path
    returncode: int
    stderr: str
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def interrupted(client, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """A real run of 2,000 playlists, and Ctrl-C as a terminal sends it once slices are being decoded."""
    folder = tmp_path_factory.mktemp("interrupted")
    slices, store = folder / "slices", folder / "store"
    api.sample(slices, playlists=2_000, seed=3, client=client)
    running = subprocess.Popen(
        [*PROGRAM, "run", str(slices), str(store), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(store.glob("scratch/ingest/*.arrow")):
            assert running.poll() is None and time.monotonic() < deadline, "decoding never began"
            time.sleep(0.01)
        processes = psutil.Process(running.pid).children(recursive=True)
        os.killpg(running.pid, signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
    assert len(processes) >= 2
    deadline = time.monotonic() + 5
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return Interrupted(slices, store, running.returncode, stderr, [one for one in processes if alive(one)])


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_exits_130_and_leaves_no_process(interrupted: Interrupted) -> None:
    assert interrupted.returncode == 130, interrupted.stderr
    assert interrupted.left == []
    lines = [line for line in interrupted.stderr.splitlines() if line.startswith("recsys-dask: ")]
    assert lines == ["recsys-dask: interrupted; the same command goes on from here"]


def test_ctrl_c_prints_no_traceback(interrupted: Interrupted) -> None:
    assert "Traceback" not in interrupted.stderr


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_finishes(client, interrupted: Interrupted, tmp_path: Path) -> None:
    store = interrupted.store
    assert not (store / "manifest.json").exists()
    assert not list(store.rglob("*.tmp"))
    done = command("run", interrupted.slices, store, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert f"{len(STAGES)} stages done" in done.stdout
    manifest = json.loads((store / "manifest.json").read_bytes())
    listed = {file["path"] for table in manifest["tables"].values() for file in table["files"]}
    assert set(files_of(store)) == listed | {"manifest.json"}
    api.run(interrupted.slices, tmp_path / "store", client=client, models="none")
    same_results(store, tmp_path / "store")
