"""Runs that are interrupted, and what the next one finds: what is left, who holds the store, what is damaged."""

from __future__ import annotations

import glob
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pyarrow as pa
import pytest
from click.testing import CliRunner
from kills import Command, alive, campaign, commits, differing, finished_steps, resliced, table, tables_of

from recsys_dask import api, cli, params
from recsys_dask.errors import StoreError, UsageError
from recsys_dask.formats import mpd, parts
from recsys_dask.formats.inputs import find
from recsys_dask.runtime.progress import Progress
from recsys_dask.store import lock
from recsys_dask.store.files import Folder
from recsys_dask.store.tables import Store

N_FILES = 20
STEPS = 15


class Seen(Progress):
    """Remembers what was said, and the titles of steps."""

    def __init__(self):
        self.lines: list[str] = []
        self.titles: list[str] = []

    def say(self, line):
        self.lines.append(line)

    def step(self, title, tasks, unit=""):
        self.titles.append(title)
        return super().step(title, tasks, unit)

    def line(self, text: str) -> str:
        (found,) = [line for line in self.lines if text in line]
        return found


@pytest.fixture(scope="module")
def slices(tmp_path_factory, client) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    api.sample(folder / "whole", playlists=1_000, seed=11, client=client)
    return resliced(folder / "whole", folder / "small", 1_000 // N_FILES)


@pytest.fixture(scope="module")
def calm(tmp_path_factory, slices, client) -> Path:
    """The store of a run that nobody disturbed."""
    store = tmp_path_factory.mktemp("calm") / "store"
    api.run(slices, store, client=client, models="none")
    return store


@pytest.fixture(scope="module")
def expected(calm) -> dict[str, pa.Table]:
    return tables_of(calm)


@pytest.fixture
def copy(tmp_path, calm) -> Path:
    """A copy of the calm store to break."""
    subprocess.run(["cp", "-r", calm, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def names(store: Path) -> list[str]:
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())


def only_what_is_listed(store: Path) -> bool:
    listed = {file.path for entry in Store.open(str(store)).manifest.tables.values() for file in entry.files}
    return set(names(store)) == listed | {"manifest.json"}


# --------------------------------------------------------------------------------------------------------- the client


@pytest.fixture(scope="module")
def killed(tmp_path_factory, slices) -> Path:
    """A store whose run's client was killed while it decoded."""
    for _ in range(5):  # on a busy machine the kill may come when all is decoded
        store = tmp_path_factory.mktemp("killed") / "store"
        command = Command("run", slices, store, "--workers", "2", log=store.parent / "log")
        if command.until(lambda store=store: len(commits(store)) >= 3):
            command.signal(signal.SIGKILL)
        command.wait()
        assert not command.left_alone(), "workers outlive their client"
        if 3 <= len(commits(store)) < N_FILES:
            assert not finished_steps(store)
            return store
    pytest.fail(f"never caught while it decoded: {command.errors()}")


def test_only_the_slices_that_were_not_decoded_are(killed, tmp_path, slices, expected, client):
    """The files left make groups that the first run, with other workers, may not have had."""
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", killed, store], check=True)
    committed = commits(store)
    torn = json.loads(Path(committed[0]).read_text())
    os.unlink(store / f"scratch/ingest/{torn['parts'][0]['name']}-tracks.arrow")  # as if it never came that far
    done = sum(len(json.loads(Path(name).read_text())["files"]) for name in committed[1:])
    seen = Seen()
    api.run(slices, store, client=client, progress=seen, models="none")
    assert seen.line("taken over: its process is gone")
    assert seen.line(f"{done} of {N_FILES} files are done already")
    assert seen.line("left behind")
    assert not differing(expected, tables_of(store))
    assert only_what_is_listed(store)
    assert not (store / "scratch").exists()


def test_a_changed_slice_is_decoded_again(killed, tmp_path, slices, client):
    store, others = tmp_path / "store", tmp_path / "slices"
    subprocess.run(["cp", "-r", killed, store], check=True)
    subprocess.run(["cp", "-rp", slices, others], check=True)
    seen = Seen()
    api.ingest(others, store, client=client, progress=seen)  # other paths: nothing of it fits
    assert not [line for line in seen.lines if "done already" in line]
    assert only_what_is_listed(store)


KILLED_BEFORE_FULL_PAIRS = """
import os, signal, sys
from recsys_dask import api
from recsys_dask.runtime.progress import Progress

class Killing(Progress):
    def step(self, title, tasks, unit=""):
        if title == "full pairs":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(title, tasks, unit)

if __name__ == "__main__":
    api.run(sys.argv[1], sys.argv[2], workers=2, models="none", progress=Killing())
"""


def test_finished_steps_stay(tmp_path, slices, expected, client):
    store = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE_FULL_PAIRS, slices, store])
    assert done.returncode == -signal.SIGKILL
    there = set(finished_steps(store))
    assert {"ingest", "counts", "pairs:artist:article"} <= there and len(there) < STEPS
    outcomes = api.run(slices, store, client=client, models="none")
    assert {one.key for one in outcomes if not one.fresh} == there
    assert not differing(expected, tables_of(store))
    assert only_what_is_listed(store)


def test_ctrl_c_stops_in_good_order(tmp_path, slices, expected, client):
    store = tmp_path / "store"
    command = Command("run", slices, store, "--workers", "2", log=tmp_path / "log")
    assert command.until(lambda: commits(store)), command.errors()
    command.to_group(signal.SIGINT)
    assert command.wait(30) == 130
    first, second = command.errors().splitlines()[-2:]
    assert first.startswith("stopping: ")
    assert second == "recsys-dask: interrupted; the same command goes on from here"
    assert "Traceback" not in command.errors()
    assert not command.left_alone()
    assert not (store / "scratch/lock.json").exists()
    seen = Seen()
    api.run(slices, store, client=client, progress=seen, models="none")
    assert seen.line("files are done already")
    assert not differing(expected, tables_of(store))


def test_ctrl_c_twice_stops_at_once(tmp_path, slices):
    store = tmp_path / "store"
    command = Command("run", slices, store, "--workers", "2", log=tmp_path / "log")
    assert command.until(lambda: commits(store)), command.errors()
    command.to_group(signal.SIGINT)
    command.until(lambda: "stopping: " in command.errors())
    command.to_group(signal.SIGINT)
    assert command.wait() == 130
    assert "Traceback" not in command.errors()
    assert not command.left_alone()
    assert not (store / "scratch/lock.json").exists()


def test_sigterm_stops_in_good_order(tmp_path, slices):
    command = Command("run", slices, tmp_path / "store", "--workers", "1", log=tmp_path / "log")
    assert command.until(lambda: (tmp_path / "store/scratch/lock.json").exists())
    command.signal(signal.SIGTERM)
    assert command.wait(30) == 143
    assert "stopping: " in command.errors() and "Traceback" not in command.errors()
    assert not command.left_alone()
    assert names(tmp_path) == ["log"]


DEAF = """
import os, signal, time

try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    print("imported", flush=True)
except BaseException:
    pass
"""

HEARS = """
import time
from recsys_dask.runtime.interrupts import Interrupted, stoppable

try:
    with stoppable(lambda: None):
        import deaf
        time.sleep(60)
except Interrupted as stop:
    print(stop.exit_code)
"""


def test_an_import_swallows_no_signal(tmp_path):
    """Packages try imports with bare excepts, and Python drops what its import locks' callbacks raise."""
    (tmp_path / "deaf.py").write_text(DEAF)
    (tmp_path / "hears.py").write_text(HEARS)
    done = subprocess.run([sys.executable, tmp_path / "hears.py"], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["imported", "143"], done.stderr


# --------------------------------------------------------------------------------------------------------- a worker


class Killer(Seen):
    """Kills one worker of a cluster when the first task of a step is done."""

    def __init__(self, client, title: str):
        super().__init__()
        self.client, self.title = client, title
        self.victims: list[int] = []

    def step(self, title, tasks, unit=""):
        if title == self.title:
            (pid, *_) = self.client.run(os.getpid).values()
            self.victims.append(pid)
            threading.Timer(0.05, os.kill, (pid, signal.SIGKILL)).start()
        return super().step(title, tasks, unit)


@pytest.mark.parametrize("title", ["decode", "recode", "full pairs"])
def test_a_worker_that_dies_does_no_harm(title, tmp_path, slices, expected, client):
    """Its tasks are done again, what it kept is made again."""
    killer = Killer(client, title)
    api.run(slices, tmp_path / "store", client=client, progress=killer, models="none")
    (pid,) = killer.victims
    assert not psutil.pid_exists(pid)
    assert not differing(expected, tables_of(tmp_path / "store"))
    assert only_what_is_listed(tmp_path / "store")
    client.wait_for_workers(2, timeout=60)


# ------------------------------------------------------------------------------------------- parts of half-done groups


def decoded(folder: Folder, files, part_bytes: int = 1 << 26):
    return parts.decode_group(files, mpd.read, "mpd", folder, part_bytes, 1)


def test_no_file_counts_twice(tmp_path, slices):
    """A task of a killed run may commit its group after the next run committed its files in groups of its own."""
    folder, files = Folder(str(tmp_path)), find(slices)
    decoded(folder, files[:2])
    decoded(folder, files[1:3])
    decoded(folder, files[3:4])
    found = parts.finished(folder, 1, "mpd", files)
    taken = [file for one in found for file in one.files]
    assert len(set(taken)) == len(taken) == 3
    assert parts.finished(folder, 1, "mpd", files[3:]) and not parts.finished(folder, 1, "mpd", files[4:])
    assert not parts.finished(folder, 1, "another reader", files)
    assert not parts.finished(folder, 2, "mpd", files)
    assert not parts.finished(folder, 1, "mpd", files, whole=True)


def test_parts_of_another_size_have_other_names(tmp_path, slices):
    folder, files = Folder(str(tmp_path)), find(slices)[:3]
    one, other = decoded(folder, files), decoded(folder, files, part_bytes=1 << 19)
    assert len(one.parts) < len(other.parts)
    assert not {part.name for part in one.parts} & {part.name for part in other.parts}


def test_a_commit_file_that_is_no_such_thing_is_passed_over(tmp_path, slices):
    folder, files = Folder(str(tmp_path)), find(slices)[:2]
    decoded(folder, files[:1])
    folder.write("scratch/ingest/0123456789ab.1.json", b'{"files": [')
    (only,) = parts.finished(folder, 1, "mpd", files)
    assert only.files == files[:1]


# ----------------------------------------------------------------------------------------------------------- the lock


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_S", 0.02)
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    monkeypatch.setattr(lock, "LOOK_AGAIN_S", (0.01, 0.02, 0.0))


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path, quick) -> Folder:
    """A folder, and one on something like an object store."""
    return Folder(str(tmp_path) if request.param == "local" else f"memory://{tmp_path}")


def write(place: Folder, **changes) -> lock.Holder:
    """A lock file of somebody else's, who looks alive if nothing is changed."""
    holder = msgspec.structs.replace(lock.myself("recsys-dask run slices store"), **changes)
    place.write(lock.NAME, msgspec.json.encode(holder))
    return holder


def refused(place: Folder) -> str:
    with pytest.raises(StoreError) as caught, lock.held(place, "", pytest.fail):
        pass
    return str(caught.value)


def taken_over(place: Folder) -> str:
    said: list[str] = []
    with lock.held(place, "", said.append) as mine:
        assert lock._is(lock._read(place), mine.holder)
    assert not place.exists(lock.NAME)
    (line,) = said
    return line


ELSEWHERE = {"host": "other.example", "machine": "other.example 0 pid:[1]", "owner": "ana", "pid": 77}


def test_one_at_a_time(place):
    with lock.held(place, "recsys-dask run a b", pytest.fail):
        line = refused(place)
        assert "\n" not in line and str(os.getpid()) in line and "recsys-dask run a b" in line
        assert "wait until it ends" in line and lock.NAME in line
    with lock.held(place, "", pytest.fail):
        pass
    assert not place.names()


def test_a_holder_elsewhere_is_believed_while_it_is_heard_of(place):
    write(place, **ELSEWHERE)
    line = refused(place)
    assert "ana on other.example (process 77, since 20" in line and "stop it there" in line
    write(place, **ELSEWHERE, beat=time.time() - lock.STALE_S + 30)
    refused(place)
    write(place, **ELSEWHERE, beat=time.time() - 60 * 12)
    assert taken_over(place).endswith("is taken over: nothing was heard of it for 12 minutes")


def test_a_process_that_is_gone_holds_nothing(place):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    write(place, pid=process.pid)
    assert taken_over(place).endswith("its process is gone")


def test_a_process_that_nobody_has_fetched_yet_is_gone(place):
    process = subprocess.Popen([sys.executable, "-c", ""])
    while alive(psutil.Process(process.pid)):
        time.sleep(0.01)
    write(place, pid=process.pid, started=psutil.Process(process.pid).create_time())
    assert taken_over(place).endswith("its process is gone")
    process.wait()


def test_another_process_of_the_same_number_is_another(place):
    write(place, started=time.time() - 1e6)
    assert taken_over(place).endswith("another one has its number")


def test_garbage_is_no_lock(place):
    for garbage in (b"", b"\0" * 40, b"[1, 2", b'{"pid": "no"}', "ümlaut".encode("latin1")):
        place.write(lock.NAME, garbage)
        assert "says nothing" in taken_over(place)


def test_it_is_renewed_while_the_holder_lives(place):
    with lock.held(place, "", pytest.fail) as mine:
        time.sleep(0.3)
        found = lock._read(place)
        assert found.beat > mine.holder.beat and found.token == mine.holder.token
        place.remove(lock.NAME)
        time.sleep(0.3)
        assert lock._is(lock._read(place), mine.holder)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_it_is_released_whatever_happens(place, error):
    with pytest.raises(error), lock.held(place, "", pytest.fail):
        raise error
    assert not place.names()


def test_who_lost_it_commits_nothing(place):
    with lock.held(place, "", pytest.fail) as mine:
        mine.check()
        other = write(place, **ELSEWHERE, token="another")
        with pytest.raises(StoreError, match="taken over by ana on other.example"):
            mine.check()
        time.sleep(0.2)
        assert lock._is(lock._read(place), other)
    assert place.exists(lock.NAME)  # it is theirs


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_it(place, stale):
    if stale:
        write(place, **ELSEWHERE, beat=0.0)
    elif not place.is_local:
        pytest.skip("this one creates exclusively or not at all")
    n, inside, barrier = 8, [], threading.Barrier(8)

    def contend(number: int) -> bool:
        barrier.wait()
        try:
            with lock.held(place, str(number), lambda line: None):
                inside.append(number)
                assert inside == [number]
                time.sleep(0.5)
                inside.remove(number)
        except StoreError:
            return False
        return True

    with ThreadPoolExecutor(n) as pool:
        assert sum(pool.map(contend, range(n))) == 1
    assert not place.names()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"), lock.held(Folder(str(tmp_path / "store")), "", print):
        pass


def test_a_second_run_says_who_holds_the_store(copy, slices):
    before = {name: (copy / name).stat().st_mtime_ns for name in names(copy)}
    folder = Folder(str(copy))
    with lock.held(folder, "recsys-dask run there", pytest.fail):
        for arguments in (
            ["run", slices, copy, "--rebuild"],
            ["ingest", slices, copy],
            ["counts", copy],
            ["pairs", copy],
        ):
            answer = CliRunner().invoke(cli.program, [str(one) for one in arguments])
            assert answer.exit_code == 1
            assert answer.stderr.startswith(f"recsys-dask: {copy}: in use by ")
            assert "recsys-dask run there" in answer.stderr and answer.stderr.count("\n") == 1
        assert api.info(copy)["stages"] and api.similar(copy, api_id(copy))
    assert {name: (copy / name).stat().st_mtime_ns for name in names(copy)} == before


def api_id(store: Path) -> str:
    """An artist that has neighbours."""
    return (store / "export/cosine.txt").read_text().split()[0]


def test_a_store_that_is_none_is_left_alone(tmp_path):
    with pytest.raises(StoreError, match="no store here"):
        api.counts(tmp_path)
    assert not names(tmp_path)


# ---------------------------------------------------------------------------------------------------------- leftovers


def test_leftovers_go_and_nothing_else(copy, slices, client):
    mine = ["notes.txt", "tables/readme.md", "tables/rows/mine.parquet", "export/draft.tmp", "more/deep/x.tmp", "a.tmp"]
    left = [
        "tables/rows/0123456789abcdef-00000.parquet",
        "tables/old_table/0123456789abcdef-00001.parquet",
        "tables/rows/0123456789abcdef-00000.parquet.0123456789ab.tmp",
        "export/pairs.csv.0123456789ab.tmp",
        "manifest.json.0123456789ab.tmp",
        "scratch/ingest/0123456789ab-000-rows.arrow",
        "scratch/ingest/merged-artists-0000.arrow",
        "scratch/lock.json.0123456789ab.tmp",
        ".probe-0123456789abcdef",
    ]
    before = names(copy)
    for name in [*mine, *left]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("x")
    seen = Seen()
    api.run(slices, copy, client=client, progress=seen, models="none")
    assert seen.line(f"{len(left)} files")
    assert names(copy) == sorted([*before, *mine])


def test_another_command_leaves_what_an_ingest_may_go_on_from(copy, client):
    kept = copy / "scratch/ingest/0123456789ab.1.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    api.counts(copy, client=client)
    assert kept.exists()


# -------------------------------------------------------------------------------------------------------------- check


def test_all_as_written(copy, client):
    found = api.check(copy, client=client)
    listed = [file for entry in Store.open(str(copy)).manifest.tables.values() for file in entry.files]
    assert found == (len(listed), sum(file.bytes for file in listed))


def first(store: Path, pattern: str) -> Path:
    return Path(sorted(glob.glob(f"{store}/{pattern}"))[0])


def test_every_damage_is_named_with_what_to_do(copy, slices, client, expected):
    flipped, cut, gone = (
        first(copy, f"tables/{name}/*") for name in ("rows", "similar_artist_cosine", "popular_track")
    )
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    os.truncate(cut, cut.stat().st_size - 9)
    gone.unlink()
    (copy / "export/coco.txt").write_text("x")
    with pytest.raises(StoreError) as caught:
        api.check(copy, client=client)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and all(line.startswith(f"{copy}: table ") for line in lines)
    for line, table_, problem, remedy in zip(
        lines,
        ("export_artist", "popular_track", "rows", "similar_artist_cosine"),
        ("1 bytes long", "is missing", "altered", "bytes long"),
        (
            f"run INPUT {copy}",
            f"counts {copy} --rebuild",
            f"ingest INPUT {copy} --rebuild",
            "--measure cosine --rebuild",
        ),
        strict=True,
    ):
        assert f"table {table_}, " in line and problem in line and line.endswith(remedy)

    api.counts(copy, client=client, rebuild=True)
    api.ingest(slices, copy, client=client, rebuild=True)
    api.pairs(copy, client=client, measure="cosine", rebuild=True)
    (copy / "export/coco.txt").unlink()
    api.run(slices, copy, client=client, models="none")
    api.check(copy, client=client)
    assert not differing(expected, tables_of(copy))
    assert only_what_is_listed(copy)


def test_check_on_the_command_line(copy):
    first(copy, "tables/rows/*").unlink()
    answer = CliRunner().invoke(cli.program, ["check", str(copy), "--workers", "1"])
    assert answer.exit_code == 1
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("recsys-dask: ")]
    assert line.endswith("--rebuild")


def test_check_says_when_all_is_well(copy):
    answer = CliRunner().invoke(cli.program, ["check", str(copy), "--workers", "1"])
    assert answer.exit_code == 0
    assert re.fullmatch(r"\d+ files, [\d,]+ bytes: all as written\n", answer.stdout)


def test_a_run_makes_lost_files_again(copy, slices, client, expected):
    os.truncate(first(copy, "tables/pairs_artist_full/*"), 10)
    (copy / "export/mine.txt").write_text("mine")
    (copy / "export/coco.txt").unlink()
    seen = Seen()
    outcomes = api.run(slices, copy, client=client, progress=seen, models="none")
    assert {one.key for one in outcomes if one.fresh} == {"pairs:artist:full", "export:artist"}
    assert seen.line("export artist: again, since export/coco.txt is missing")
    (copy / "export/mine.txt").unlink()
    assert not differing(expected, tables_of(copy))


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "gone"])
def test_a_reader_of_a_damaged_file_is_told(copy, damage):
    path = first(copy, "tables/similar_artist_cosine/*")
    artist = api_id(copy)
    if damage == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-20], "empty": b"", "garbage": data[:200] + b"\xff" * 300 + data[500:]}[damage])
    with pytest.raises(StoreError, match=r"similar_artist_cosine/.*recsys-dask check") as caught:
        api.similar(copy, artist)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ rebuild


def test_rebuild_does_all_steps_again(copy, slices, client, expected):
    before = set(names(copy))
    outcomes = api.run(slices, copy, client=client, rebuild=True, models="none")
    assert len(outcomes) == STEPS and all(one.fresh for one in outcomes)
    assert not differing(expected, tables_of(copy))
    assert only_what_is_listed(copy)
    assert not {name for name in before & set(names(copy)) if name.startswith("tables/")}, "files in use were rewritten"


def test_a_view_can_be_rebuilt_alone(copy, client, expected):
    outcomes = api.pairs(copy, view="article", client=client, rebuild=True)
    assert [one.key for one in outcomes if one.fresh] == ["pairs:artist:article", "similar:artist:coco"]
    assert not differing(expected, tables_of(copy))


@pytest.fixture
def grown(tmp_path, slices, client) -> Path:
    """A store to whose first slices the others were appended: its codes are not by falling mentions."""
    api.run(slices, tmp_path / "grown", client=client, files=N_FILES // 2, models="none")
    api.run(slices, tmp_path / "grown", client=client, append=True, models="none")
    return tmp_path / "grown"


def test_codes_of_a_grown_store_change_when_it_is_rebuilt(grown, slices, client, expected):
    """So all that was made from the earlier ones is made again, even if only the ingest was asked for."""
    assert differing(expected, tables_of(grown))
    api.ingest(slices, grown, client=client, rebuild=True)
    with pytest.raises(StoreError, match="earlier input"):
        api.similar(grown, api_id(grown))
    api.run(slices, grown, client=client, models="none")
    assert not differing(expected, tables_of(grown))


def test_nothing_is_appended_to_a_damaged_store(grown, slices, client, expected):
    first(grown, "tables/rows/*").unlink()
    with pytest.raises(StoreError, match=r"nothing can be appended, since tables/rows/.* is missing"):
        api.run(slices, grown, client=client, append=True, models="none")
    api.run(slices, grown, client=client, models="none")
    assert not differing(expected, tables_of(grown))
    assert only_what_is_listed(grown)


def test_rebuild_goes_with_commands_that_make_tables():
    for name in "run ingest counts near_duplicates pairs train neighbours fit evaluate".split():
        assert params.Redo in api.COMMANDS[name].options
    with pytest.raises(UsageError, match="rebuild"):
        api.info("store", rebuild=True)


# --------------------------------------------------------------------------------------------------------- many kills


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_whoever_is_killed_whenever_the_tables_are_the_same(tmp_path, client, capsys):
    """The counts go to docs/reliability.md by hand: see there."""
    api.sample(tmp_path / "whole", playlists=2_000, seed=5, client=client)
    slices = resliced(tmp_path / "whole", tmp_path / "slices", 100)
    kills, seconds = campaign(slices, tmp_path, seed=2, stores=8)
    with capsys.disabled():
        print(f"\n{table(kills)}\n{kills.total()} kills in {seconds:.0f} s, all tables equal")
    assert kills.total() >= 20
