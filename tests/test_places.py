"""Inputs and stores at URLs, on a real S3 protocol: the same tables, no secrets anywhere, and clear errors."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import servers
import strategies

import recsys_dask as rd
from recsys_dask import cli, params
from recsys_dask.credentials import CREDENTIALS, keep_credentials, masked
from recsys_dask.errors import InputError, StoreError
from recsys_dask.formats.inputs import find
from recsys_dask.runtime.connecting import connect
from recsys_dask.runtime.lending import lent
from recsys_dask.store import files, lock
from recsys_dask.store.files import Folder

SECRET = "Wq7SECRET/of+the/environment"
URL_SECRET = "zX9secret/of+the-url"
AMOUNTS = {"mentions_over": 20, "workers": 1, "memory_limit": "1GB"}

# ------------------------------------------------------------------------------------------------- places and input


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server that speaks S3, with the buckets `data` and `stores`; this process and its workers know it."""
    with servers.served("moto") as url, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
            patch.delenv(name)
        for name, value in aws(url).items():
            patch.setenv(name, value)
        patch.setattr(lock, "SETTLE_S", 0.05)  # nobody else is about
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        for bucket in ("data", "stores"):
            fs.mkdir(bucket)
        forget_places()
        yield url
        forget_places()


def aws(url: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": url,
    }


def forget_places() -> None:
    """fsspec keeps file systems, with the environment that they were made in."""
    os.environ.pop(CREDENTIALS, None)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="module")
def workers(s3):
    """Two workers that were started in the environment of `s3`."""
    with connect(params.Cluster(workers=2, memory_limit="1GB")) as cluster:
        yield cluster.client


def playlists(n: int = 150) -> list[dict]:
    rng = np.random.default_rng(5)
    made = []
    for pid in range(n):
        ids = np.minimum(rng.pareto(1.0, int(rng.integers(1, 40))) * 6, 60).astype(int).tolist()
        tracks = [
            {
                "pos": pos,
                "artist_name": f"Künstler {one}",
                "track_uri": f"spotify:track:{one * 3 + pos % 3:022d}",
                "artist_uri": f"spotify:artist:{one:022d}",
                "track_name": f"Lied {one}",
                "album_uri": f"spotify:album:{one:022d}",
                "duration_ms": 1_000,
                "album_name": "",
            }
            for pos, one in enumerate(ids)
        ]
        made.append({"name": f"n{pid}", "pid": pid, "num_tracks": len(tracks), "tracks": tracks})
    return made


PACKED = strategies.Printing("packed", gz=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with the slices as `json` and as `gz`."""
    folder = tmp_path_factory.mktemp("slices")
    strategies.write_slices(folder / "json", playlists(), 4)
    strategies.write_slices(folder / "gz", playlists(), 4, PACKED)
    return folder


@pytest.fixture(scope="module")
def there(s3, here) -> str:
    """The same in the bucket `data`."""
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{here}/", "data/", recursive=True)
    return "s3://data"


@pytest.fixture(scope="module")
def reference(here, workers):
    """The tables and files of a run that stays on this machine."""
    rd.run(here / "json", here / "store", client=workers, mentions_over=20, models="none")
    return contents(str(here / "store"))


def contents(store: str):
    """All tables and exported files of a store, by name."""
    opened = rd.Store.open(store)
    tables = opened.manifest.tables
    exported = {file.path for name, entry in tables.items() if name.startswith("export") for file in entry.files}
    return (
        {name: opened.table(name) for name in tables if not name.startswith("export")},
        {path: opened.folder.read(path) for path in exported},
    )


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        assert [name for name in one if one[name] != other[name]] == []


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "recsys_dask", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def failed(capsys, *arguments: object) -> str:
    """The one line with which the program refuses, in this process."""
    with pytest.raises(SystemExit) as left:
        cli.program([str(one) for one in arguments], prog_name="recsys-dask")
    line, nothing = capsys.readouterr().err.split("\n")
    assert left.value.code == 1 and nothing == "" and "Traceback" not in line
    assert line.startswith("recsys-dask: ")
    return line.removeprefix("recsys-dask: ")


def options(**given):
    return [word for name, value in given.items() for word in (params.spelled(name), str(value))]


def assert_no_secret(done, store: str, *secrets: str):
    opened = Folder(store)
    manifest = opened.read("manifest.json").decode()
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
        assert secret not in manifest
        assert secret.encode() not in pickle.dumps(opened)


# ------------------------------------------------------------------------------------------------------------- runs


def test_run_from_s3_to_s3(there, reference, workers):
    store = "s3://stores/whole"
    rd.run(f"{there}/json", store, client=workers, mentions_over=20, models="none")
    assert_same(contents(store), reference)
    folder = Folder(store)
    listed = {file.path for entry in rd.Store.open(store).manifest.tables.values() for file in entry.files}
    assert set(folder.names()) == {*listed, "manifest.json"}  # no scratch, no temporary names
    paths = [file.path for file in rd.Store.open(store).manifest.inputs]
    assert paths[0] == "s3://data/json/mpd.slice.0-999.json" and len(paths) == 4
    again = rd.run(f"{there}/json/", store, mentions_over=20, models="none")  # without a cluster
    assert not any(outcome.fresh for outcome in again)


def test_packed_slices_from_s3_to_a_folder(there, reference, tmp_path, workers):
    rd.run(f"{there}/gz/*.json.gz", tmp_path / "store", client=workers, mentions_over=20, models="none")
    assert_same(contents(str(tmp_path / "store")), reference)


def test_a_folder_to_s3(s3, here, reference, workers):
    rd.run(here / "json", "s3://stores/from-here", client=workers, mentions_over=20, models="none")
    assert_same(contents("s3://stores/from-here"), reference)
    assert rd.similar("s3://stores/from-here", "Künstler 0", k=1)
    rd.export("s3://stores/from-here", "s3://stores/files/", client=workers, parquet=True)
    assert "pairs.parquet" in Folder("s3://stores/files").names()


def test_tables_on_s3(s3, tmp_path, workers):
    """Parquet in row groups, CSV and packed CSV, read over the network as from here."""
    rng = np.random.default_rng(2)
    table = pa.table({"user": rng.integers(0, 90, 4_000), "artist": [f"a {one}" for one in rng.integers(0, 50, 4_000)]})
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table.slice(0, 2_500), folder / "1.parquet", row_group_size=700)
    pacsv.write_csv(table.slice(2_500, 1_000), folder / "2.csv")
    with gzip.open(folder / "3.csv.gz", "wb") as file:
        pacsv.write_csv(table.slice(3_500), file)
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{folder}/", "data/tables/", recursive=True)
    rd.ingest(folder, tmp_path / "store", client=workers)
    rd.ingest("s3://data/tables", "s3://stores/tables", client=workers)
    assert_same(contents("s3://stores/tables"), contents(str(tmp_path / "store")))
    assert rd.Store.open("s3://stores/tables").table("rows").num_rows == 4_000


def test_run_on_a_bad_day(s3, there, reference):
    """Errors 500 and 503, some of them after the request was carried out, slow answers and bodies that break off."""
    with servers.served("proxy", target=s3, seed=7, errors=0.05, slow=0.01, cut=0.05) as proxy:
        # The other way to name an endpoint; fsspec's comes before botocore's.
        amounts = options(**AMOUNTS | {"workers": 2})
        done = command("run", f"{there}/gz", "s3://stores/bad-day", *amounts, FSSPEC_S3_ENDPOINT_URL=proxy)
        counts = servers.counted(proxy)
    assert done.returncode == 0, done.stderr
    assert counts["500"] > 3 and counts["503"] > 3 and counts["slow"] and counts["cut"]
    assert_same(contents("s3://stores/bad-day"), reference)
    assert_no_secret(done, "s3://stores/bad-day", SECRET, "AKIAENVIRONMENT")


def test_credentials_in_the_url(s3, there, reference):
    """Only they open the door; no trace of them is left."""
    user = f"AKIAURL:{URL_SECRET.replace('+', '%2B')}@"
    with servers.served("proxy", target=s3, key="AKIAURL") as proxy:
        environment = {"AWS_ENDPOINT_URL": proxy, "AWS_ACCESS_KEY_ID": "AKIAWRONG"}
        amounts = options(workers=1, memory_limit="1GB")
        done = command("ingest", f"s3://{user}data/json", f"s3://{user}stores/by-url", *amounts, **environment)
        assert done.returncode == 0, done.stderr
        refused = command("info", "s3://stores/by-url", **environment)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "Forbidden: wrong credentials" in refused.stderr
    tables, _ = contents("s3://stores/by-url")
    assert tables == {name: reference[0][name] for name in ("playlists", "rows", "artists", "tracks")}
    assert_no_secret(done, "s3://stores/by-url", URL_SECRET, user.rstrip("@"), "AKIAURL", SECRET)
    assert done.stdout.splitlines()[-1].startswith("s3://stores/by-url: 1 stages done")


def test_credentials_of_a_web_server(here, reference, tmp_path, workers):
    """They reach workers that were there before, and do not stay with them."""
    with servers.served("files", folder=str(here), login="someone:pass word") as web:
        source = web.replace("://", "://someone:pass%20word@") + "/gz/"
        rd.run(source, tmp_path / "store", client=workers, mentions_over=20, models="none")
        assert_same(contents(str(tmp_path / "store")), reference)
        file = rd.Store.open(tmp_path / "store").manifest.inputs[0]
        assert file.bytes == (here / "gz" / file.path.rpartition("/")[2]).stat().st_size and file.modified
        manifest = (tmp_path / "store/manifest.json").read_text()
        assert "pass" not in manifest and "someone" not in manifest and f"{web}/gz/mpd.slice" in manifest
        forget_places()
        fsspec.get_filesystem_class("http").clear_instance_cache()
        with pytest.raises(InputError, match="401") as caught:
            find(web + "/gz/mpd.slice.0-999.json.gz")
        assert "\n" not in str(caught.value)
    assert set(workers.run(os.getenv, CREDENTIALS).values()) == {None}


def test_credentials_are_lent(workers, monkeypatch):
    monkeypatch.setenv(CREDENTIALS, '{"s3://x": ["a", "b"]}')
    with lent(workers):
        assert set(workers.run(os.getenv, CREDENTIALS).values()) == {os.environ[CREDENTIALS]}
    assert set(workers.run(os.getenv, CREDENTIALS).values()) == {None}


# ------------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize(
    "url, shown",
    [
        ("https://user:secret@host/a@b", "https://host/a@b"),
        ("https://token@host/a", "https://host/a"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("https://[::1]:8080/a@b", "https://[::1]:8080/a@b"),
        ("https://[::1]/a@b:c@d", "https://[::1]/a@b:c@d"),
        ("s3://key:se/cr+et@bucket/a", "s3://bucket/a"),
        ("s3://key:se/cr+et@bucket/a@b", "s3://bucket/a@b"),
        ("s3://key:p@ss@bucket/a", "s3://bucket/a"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        ("simplecache::s3://key:secret@bucket/a", "simplecache::s3://bucket/a"),
        ("sftp://me:secret@host/a", "sftp://host/a"),
        ("sftp://me@host/a", "sftp://me@host/a"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("cannot open s3://key:secret@b/x, nor 'https://u:p@h'", "cannot open s3://b/x, nor 'https://h'"),
        ("/a/b@c:d", "/a/b@c:d"),
    ],
)
def test_masks(url, shown, monkeypatch):
    monkeypatch.delenv(CREDENTIALS, raising=False)
    assert masked(url) == shown
    if " " not in url:
        assert keep_credentials(url) == shown
        assert (CREDENTIALS in os.environ) == (url != shown)
    monkeypatch.delenv(CREDENTIALS, raising=False)


def test_a_folder_never_tells(monkeypatch):
    monkeypatch.setenv(CREDENTIALS, "")
    folder = Folder("s3://key:Se%2FcReT@bucket/a")
    assert folder.url == "s3://bucket/a" and folder.full("x") == "s3://bucket/a/x"
    assert b"cReT" not in pickle.dumps(folder) and "cReT" not in repr(folder)
    assert (folder.fs.key, folder.fs.secret) == ("key", "Se/cReT")
    assert pickle.loads(pickle.dumps(folder)) == folder


def test_full_paths_of_other_places():
    assert Folder("memory://a/b/").full("c") == "memory://a/b/c"
    with fsspec.open(Folder("memory://a/b/").full("c"), "wb") as file:
        file.write(b"1")
    assert Folder("memory://a/b").read("c") == b"1"
    assert Folder("memory://a").names() == ["b/c"]


# ----------------------------------------------------------------------------------------------------------- folders


def unfinished(fs) -> int:
    found = fs.call_s3("list_multipart_uploads", Bucket="stores")
    return len(found.get("Uploads", []))


def test_a_large_object_is_uploaded_in_parts_or_not_at_all(s3, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 5 << 20)
    folder, block = Folder("s3://stores/large"), os.urandom(1 << 20)
    with folder.writing("whole") as file:
        for _ in range(12):
            file.write(block)
        assert unfinished(folder.fs) == 1 and not folder.exists("whole")
    assert file.bytes == 12 << 20 and folder.read("whole") == block * 12
    assert file.checksum == files.checksum(block * 12)
    for size in (1, 12):  # before and after a first part was sent
        with pytest.raises(ZeroDivisionError), folder.writing("half") as file:
            for _ in range(size):
                file.write(block)
            1 / 0
    del file
    assert folder.names() == ["whole"] and unfinished(folder.fs) == 0


def test_replaced_and_removed_objects(s3):
    folder = Folder("s3://stores/few")
    for number in range(5):
        folder.write(f"a/{number}", b"1" * number)
    folder.write("a/0", b"another, longer")
    assert folder.read("a/0") == b"another, longer"
    assert folder.names("a") == [f"a/{number}" for number in range(5)]
    folder.remove("a/0")
    folder.remove("a/0", "a/1", "a/2", "gone")
    assert folder.names() == ["a/3", "a/4"]
    assert Folder("s3://stores/none").names() == [] and not Folder("s3://stores/none").exists("x")


# ------------------------------------------------------------------------------------------------------------ errors


def test_buckets_that_are_not_there(s3, there, here, capsys):
    assert failed(capsys, "run", "s3://nowhere/x", "s3://stores/e").startswith("s3://nowhere/x: ")
    assert "no such file or folder" in failed(capsys, "run", f"{there}/nothing", "s3://stores/e")
    line = failed(capsys, "run", here / "json", "s3://nowhere/x")
    assert line.startswith("s3://nowhere/x") and "cannot be written" in line
    assert "The specified bucket does not exist" in line
    assert failed(capsys, "info", "s3://nowhere/x").startswith("s3://nowhere/x: no store here")


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.delenv(name) if value is None else patch.setenv(name, value)
        forget_places()
        try:
            yield
        finally:
            forget_places()


def test_credentials_refused_or_missing(s3, there, here, capsys):
    with servers.served("proxy", target=s3, key="ANOTHER") as proxy, environment(AWS_ENDPOINT_URL=proxy):
        for arguments in ([f"{there}/json", here / "no"], [f"{there}/json/*", here / "no"], [here / "json", there]):
            line = failed(capsys, "run", *arguments)
            assert "Access Key Id you provided does not exist" in line or "Forbidden" in line
    with environment(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, HOME="/nonexistent"):
        line = failed(capsys, "run", f"{there}/json", here / "no")
        assert "Unable to locate credentials; set AWS_ACCESS_KEY_ID" in line
        assert "Unable to locate credentials" in failed(capsys, "run", here / "json", "s3://stores/e")
    assert not (here / "no").exists()


def test_a_place_that_does_not_answer(s3, there, here, capsys):
    with environment(AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1"):
        assert "Could not connect to the endpoint URL" in failed(capsys, "run", f"{there}/json", here / "no")
    with servers.served("proxy", target=s3, errors=1) as proxy:
        with environment(AWS_ENDPOINT_URL=proxy, AWS_MAX_ATTEMPTS="1"):
            assert failed(capsys, "run", here / "json", "s3://stores/e").startswith("s3://stores/e")


def test_a_store_that_can_only_be_read(s3, there, here, reference, workers, capsys):
    rd.ingest(here / "json", "s3://stores/read-only", client=workers)
    before = contents("s3://stores/read-only")
    with servers.served("proxy", target=s3, deny=["PUT", "POST", "DELETE"]) as proxy:
        with environment(AWS_ENDPOINT_URL=proxy):
            line = failed(capsys, "counts", "s3://stores/read-only")
            assert line.startswith("s3://stores/read-only") and "cannot be written" in line and "Access Denied" in line
            assert failed(capsys, "run", f"{there}/json", "s3://stores/new").startswith("s3://stores/new")
    assert_same(contents("s3://stores/read-only"), before)
    assert Folder("s3://stores/new").names() == []


def test_a_folder_that_can_only_be_read(here, tmp_path, capsys):
    folder = tmp_path / "store"
    folder.mkdir()
    with read_only(folder):
        line = failed(capsys, "run", here / "json", folder)
    assert line.startswith(str(folder)) and "cannot be written" in line and list(folder.iterdir()) == []


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A mode forbids it to everyone but root, a mount to root too."""
    if os.getuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    with mounted(["--bind", str(folder)], folder):
        mount("-o", "remount,ro,bind", str(folder))
        yield


@contextmanager
def mounted(what: list[str], at: Path) -> Iterator[None]:
    if mount(*what, str(at)).returncode:
        pytest.skip("may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def mount(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["mount", *arguments], capture_output=True)


def test_a_disk_that_fills_up(here, reference, workers, tmp_path):
    """What was finished before stays as it was; with room again the run goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(["-t", "tmpfs", "-o", "size=2m", "tmpfs"], disk):
        store = disk / "store"
        rd.ingest(here / "json", store, client=workers)
        before = contents(str(store))
        room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "ballast").write_bytes(bytes(room - 40_000))
        done = command("run", here / "json", store, *options(**AMOUNTS))
        assert done.returncode == 1
        ours = [line for line in done.stderr.splitlines() if line.startswith("recsys-dask: ")]
        assert len(ours) == 1 and "cannot be written: No space left on device; make room" in ours[0]
        assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1] == ours[0]
        found = contents(str(store))
        assert {name: found[0][name] for name in before[0]} == before[0]
        known = rd.Store.open(store).manifest.files()
        assert all((store / path).exists() for path in known) and not list(store.rglob("*.tmp"))
        (disk / "ballast").unlink()
        rd.run(here / "json", store, client=workers, mentions_over=20, models="none")
        assert_same(contents(str(store)), reference)


def test_a_packed_slice_that_ends_early(s3, there, tmp_path, workers, here):
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    whole = (here / "gz/mpd.slice.0-999.json.gz").read_bytes()
    fs.pipe("data/early/mpd.slice.0-999.json.gz", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"^s3://data/early/\S*: the compressed file ends early"):
        rd.ingest(f"{there}/early", "s3://stores/early", client=workers)
    with pytest.raises(StoreError, match="no store here"):
        rd.Store.open("s3://stores/early")


def test_without_the_package_of_a_protocol(capsys):
    code = "import sys; sys.modules['s3fs'] = None; from recsys_dask.cli import main; sys.argv[1:] = {!r}; main()"
    for arguments in (["run", "s3://data/x", "/tmp/x"], ["info", "s3://data/x"]):
        done = subprocess.run([sys.executable, "-c", code.format(arguments)], capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith("recsys-dask: s3://data/x: ") and len(done.stderr.splitlines()) == 1
        assert "pip install recsys-dask[s3]" in done.stderr
    assert "Protocol not known: nosuch" in failed(capsys, "run", "nosuch://x", "/tmp/x")


def test_what_can_only_be_read_by_its_kind(here, capsys):
    line = failed(capsys, "run", here / "json", "http://127.0.0.1:9/x")
    assert line.startswith("http://127.0.0.1:9/x")
