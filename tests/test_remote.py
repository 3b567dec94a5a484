"""Running clusters, real ones: schedulers and workers as programs of a second environment that holds the wheel."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client

import recsys_dask
from recsys_dask import api, params
from recsys_dask.errors import ClusterError, UsageError
from recsys_dask.runtime import fitness, remote
from recsys_dask.runtime.clusters import workers_of
from recsys_dask.runtime.connecting import connect
from recsys_dask.runtime.fitness import Fitness
from recsys_dask.runtime.preflight import Reach, software
from recsys_dask.store.files import Folder
from recsys_dask.store.tables import Store

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60


@dataclass
class Farm:
    """A folder of environments and of the programs started from them, in a working folder that holds nothing."""

    folder: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    def place(self, name: str) -> Path:
        """A folder of its own, made when first asked for."""
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name

    def environment(self, name: str) -> Path:
        """A Python that finds what this one finds, save this package: a path file leads to our site-packages, and
        the path file of the editable install in there is not followed."""
        home = self.folder / name
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
        site = next((home / "lib").glob("python*/site-packages"))
        ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (site / "first.pth").write_text("\n".join(ours))
        return site

    def start(self, env: str, log: str, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
        python = self.folder / env / "bin" / "python"
        with (self.folder / log).open("w") as out:
            made = subprocess.Popen(
                [*before, str(python), "-P", "-m", "dask", *words],
                cwd=self.place("workers-are-here"), env=clean_env(self.folder), stdout=out, stderr=out,
            )  # fmt: skip
        self.started.append(made)
        return made

    def scheduler(self, log: str, *words: str, env: str = "wheel") -> str:
        file = self.folder / f"{log}.json"
        self.start(env, log, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file), *words)
        return until(lambda: file.exists() and json.loads(file.read_text() or "{}").get("address"))

    def worker(self, env: str, log: str, address: str, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
        common = ("--nthreads", "1", "--memory-limit", "2GB", "--no-dashboard", "--local-directory", str(self.folder))
        nanny = () if "--nanny" in words else ("--no-nanny",)
        return self.start(env, log, "worker", address, *common, *nanny, *words, before=before)

    def log(self, name: str) -> str:
        return (self.folder / name).read_text()

    def end(self, *programs: subprocess.Popen) -> None:
        """In this order: a scheduler after its workers, which take their leave of it."""
        for program in programs:
            program.terminate()
            try:
                program.wait(5)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


def clean_env(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASK_", "PYTHON"))}
    return kept | {"NUMBA_CACHE_DIR": str(folder / "kernels")}


def until(ask: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """What `ask` answers as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return answer


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    made = Farm(tmp_path_factory.mktemp("farm"))
    site = made.environment("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made.folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = made.folder.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)],
        check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    made.environment("bare")
    other = made.environment("other") / "recsys_dask"
    shutil.copytree(site / "recsys_dask", other, ignore=shutil.ignore_patterns("__pycache__"))
    text = (other / "__init__.py").read_text()
    (other / "__init__.py").write_text(text.replace(recsys_dask.__version__, "99.0"))
    try:
        yield made
    finally:
        made.end(*reversed(made.started))


@pytest.fixture(scope="module")
def address(farm: Farm) -> str:
    """A scheduler with two workers."""
    address = farm.scheduler("scheduler", "--host", "127.0.0.1")
    for number in range(2):
        farm.worker("wheel", f"worker-{number}", address)
    return address


@pytest.fixture
def remote_client(address: str) -> Iterator[Client]:
    """For looking at the cluster, which must be the same after a test."""
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE_S)
        before = addresses(client)
        yield client
        until(lambda: client.run_on_scheduler(lambda dask_scheduler: not dask_scheduler.tasks), 10)
        assert plugins_of(client) == []
        assert addresses(client) == before


def addresses(client: Client) -> set[str]:
    return set(workers_of(client))


def plugins_of(client: Client) -> list[str]:
    """Names of plugins of ours, on the scheduler and on workers."""
    names = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
    for plugins in client.run(lambda dask_worker: list(dask_worker.plugins)).values():
        names += plugins
    return [name for name in names if "recsys" in name]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory, client) -> Path:
    return Path(api.sample(tmp_path_factory.mktemp("slices") / "data", playlists=300, seed=11, client=client))


@pytest.fixture(scope="module")
def local(slices: Path, tmp_path_factory: pytest.TempPathFactory, client) -> Store:
    store = tmp_path_factory.mktemp("local") / "store"
    api.run(slices, store, client=client, models="none")
    return Store.open(str(store))


def command(farm: Farm, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recsys_dask", *map(str, words)],
        cwd=farm.place("client-is-here"), env=clean_env(farm.folder) | variables,
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line that a command that failed ends with."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("recsys-dask: ")]
    return line


# ------------------------------------------------------------------------------------------------------ same results


@pytest.mark.timeout(600)  # the first to use the wheel: all kernels are compiled, for minutes on a busy machine
def test_a_remote_run_makes_the_tables_of_a_local_one(
    farm: Farm, address: str, remote_client: Client, slices: Path, local: Store
) -> None:
    """By the command line, to a store named relative to a working folder that is not the workers'."""
    done = command(farm, "run", slices, "store", "--scheduler", address)
    assert done.returncode == 0, done.stderr
    assert address in done.stderr and "dashboard" in done.stderr
    store = Store.open(str(farm.place("client-is-here") / "store"))
    assert store.manifest.tables.keys() == local.manifest.tables.keys()
    for name in local.manifest.tables:
        if name.startswith("export"):
            for file in local.entry(name).files:
                assert store.folder.read(file.path) == local.folder.read(file.path), file.path
        else:
            assert store.table(name).equals(local.table(name)), name
    assert not [name for name in store.folder.names() if "probe" in name]
    assert not list(farm.place("workers-are-here").iterdir())


def test_kernels_were_compiled_once_on_the_machine(farm: Farm, address: str, remote_client: Client) -> None:
    with connect(params.Cluster(scheduler=address)):
        pass
    (stamp,) = (farm.folder / "kernels").glob("*/compiled-*")
    assert stamp.with_name("lock").exists()


def test_the_address_may_come_from_the_environment(
    farm: Farm, address: str, remote_client: Client, local: Store
) -> None:
    done = command(farm, "export", local.folder.url, "exported", DASK_SCHEDULER_ADDRESS=address)
    assert done.returncode == 0, done.stderr
    assert address in done.stderr
    assert (farm.place("client-is-here") / "exported" / "coco.txt").read_bytes() == local.folder.read("export/coco.txt")


def test_a_client_of_any_cluster_may_be_given(remote_client: Client, tmp_path: Path) -> None:
    api.sample(tmp_path / "slices", playlists=30, client=remote_client, wait_s=5)
    assert sorted(path.name for path in (tmp_path / "slices").iterdir()) == ["mpd.slice.0-29.json", "sample.txt"]


def test_a_cluster_object_may_be_given(client: Client, tmp_path: Path) -> None:
    api.sample(tmp_path / "slices", playlists=30, client=client.cluster)
    assert client.status == client.cluster.status.name == "running"


def test_an_error_of_the_input_leaves_nothing_behind(address: str, remote_client: Client, tmp_path: Path) -> None:
    (tmp_path / "mpd.slice.0-0.json").write_text('{"playlists": [{}]}')
    with pytest.raises(recsys_dask.InputError) as caught:
        api.ingest(tmp_path, tmp_path / "store", client=remote_client)
    assert "pid" in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- unfit


def test_versions_are_compared() -> None:
    mine = software()
    assert fitness.version_faults(mine) == []
    assert fitness.version_faults(mine | {"sources": ""})[0].startswith(
        f"has a recsys_dask {recsys_dask.__version__} of other sources"
    )
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert fitness.version_faults(mine | {"python": "3.0"}) == [f"runs Python {here}, the client 3.0 (take the same)"]
    wanted = mine | {"versions": mine["versions"] | {"dask": "2020.1.0", "numpy": "1.0", "no-such": "1.0"}}
    has = mine["versions"]["dask"]
    assert fitness.version_faults(wanted) == [
        f"has dask {has}, the client 2020.1.0 (install the same)",
        "lacks no-such (install 1.0)",
    ]


def test_the_checks_travel_as_text_that_older_pythons_read() -> None:
    source = Path(fitness.__file__).read_text()
    ast.parse(source, feature_version=(3, 9))
    arrived = pickle.loads(pickle.dumps(fitness.Shipped("redacted")))
    assert arrived is not fitness.redacted and arrived.__globals__ is not vars(fitness)
    assert arrived("at s3://me:secret@host/a?signature=1 b") == "at s3://host/a b"
    plugin = pickle.loads(pickle.dumps(Fitness("name", {"package": "1"}, ["tcp://a:1"], "client")))
    assert type(plugin) is not Fitness
    assert vars(plugin) == {"name": "name", "wanted": {"package": "1"}, "known": ["tcp://a:1"], "client": "client"}


def blind(folder: Path) -> tuple[str, ...]:
    """Start a program that sees an empty folder where others see this one."""
    return ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{folder}" && exec "$@"', "sh")


def can_unshare() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(
            ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True
        ).returncode
    )


def test_all_unfit_workers_are_named_at_once(
    farm: Farm, address: str, remote_client: Client, slices: Path, tmp_path: Path
) -> None:
    before = addresses(remote_client)
    unfit = [farm.worker("bare", "unfit-bare", address), farm.worker("other", "unfit-other", address)]
    if can_unshare():
        unfit.append(farm.worker("wheel", "unfit-blind", address, before=blind(slices)))
        unfit.append(farm.worker("wheel", "unfit-apart", address, before=blind(tmp_path)))
    remote_client.wait_for_workers(2 + len(unfit), timeout=PATIENCE_S)
    logs = {path.name.removeprefix("unfit-"): path.read_text() for path in farm.folder.glob("unfit-*")}
    names = {log.split("Start worker at:")[1].split()[0]: name for name, log in logs.items()}
    assert names.keys() == addresses(remote_client) - before
    done = command(farm, "ingest", slices, tmp_path / "store", "--scheduler", address)
    farm.end(*unfit)
    until(lambda: addresses(remote_client) == before)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = {line.split()[1].rstrip(":"): line for line in done.stderr.splitlines() if "recsys-dask: tcp" in line}
    assert said.keys() == names.keys(), done.stderr
    by_name = {names[worker]: line for worker, line in said.items()}
    version = recsys_dask.__version__
    assert f"lacks recsys_dask {version} (install the client's wheel)" in by_name["bare"]
    assert f"has recsys_dask 99.0, the client {version} (install the client's wheel)" in by_name["other"]
    if can_unshare():
        assert f"cannot read the input {slices}" in by_name["blind"] and "mount it there" in by_name["blind"]
        assert f"does not see the store {tmp_path}" in by_name["apart"]
    assert not [name for name in names.values() if "Traceback" in farm.log(f"unfit-{name}")]
    assert not [name for name in Folder(str(tmp_path / "store")).names() if "probe" in name]


def test_a_scheduler_without_the_package_is_named(farm: Farm) -> None:
    address = farm.scheduler("scheduler-bare", "--host", "127.0.0.1", env="bare")
    worker = farm.worker("wheel", "worker-bare", address)
    with pytest.raises(ClusterError) as caught, connect(params.Cluster(scheduler=address)):
        pass
    assert str(caught.value).startswith(f"scheduler {address}: lacks recsys_dask")
    farm.end(worker, farm.started[-2])


def test_workers_that_join_late_are_checked(farm: Farm, address: str, remote_client: Client, tmp_path: Path) -> None:
    """A fit one takes part; an unfit one stops, its nanny as well, and says why."""
    from dask import delayed
    from distributed import get_worker

    def where(number: int) -> str:
        time.sleep(0.2)
        return str(get_worker().address)

    before = addresses(remote_client)
    reach = Reach(writes={"store": Folder(str(tmp_path / "store"))})
    with connect(params.Cluster(scheduler=address), reach=reach) as cluster:
        unfit = farm.worker("bare", "late-bare", address, "--nanny")
        fit = farm.worker("wheel", "late-fit", address)
        unfit.wait(PATIENCE_S)
        (late,) = until(lambda: running(remote_client) - before)
        places = cluster.compute("where", [delayed(where)(number) for number in range(15)])
    assert late in places
    assert set(places) == before | {late}
    log = farm.log("late-bare")
    assert f"cannot take part in the run and stops: it lacks recsys_dask {recsys_dask.__version__}" in log
    assert "Traceback" not in log.partition("Worker closed")[0]  # the nanny's own way to go prints one
    farm.end(fit)
    until(lambda: addresses(remote_client) == before)


def running(client: Client) -> set[str]:
    return {address for address, worker in workers_of(client).items() if worker["status"] == "running"}


def test_the_plugin_of_a_client_that_was_killed_stops_nobody(farm: Farm, address: str, remote_client: Client) -> None:
    before = addresses(remote_client)
    wanted = software() | {"package": "99", "reads": {}, "writes": {}}
    remote_client.register_plugin(Fitness("recsys_dask-preflight-x", wanted, sorted(before), "Client-gone"))
    assert plugins_of(remote_client)
    worker = farm.worker("bare", "late-other", address)
    until(lambda: running(remote_client) - before)
    until(lambda: not plugins_of(remote_client))
    farm.end(worker)
    until(lambda: addresses(remote_client) == before)


# ---------------------------------------------------------------------------------------------------------- no way in


def test_no_workers(farm: Farm, tmp_path: Path) -> None:
    address = farm.scheduler("scheduler-alone", "--host", "127.0.0.1")
    done = command(farm, "sample", tmp_path / "out", "--scheduler", address, "--wait-s", "1")
    farm.end(farm.started[-1])
    assert one_line(done).endswith(f"{address}: has no worker after 1 s: start some with: dask worker {address}")


def test_a_scheduler_that_goes(farm: Farm) -> None:
    from dask import delayed

    address = farm.scheduler("scheduler-gone", "--host", "127.0.0.1")
    scheduler = farm.started[-1]
    worker = farm.worker("wheel", "worker-gone", address)
    with pytest.raises(ClusterError, match="work: the connection to the scheduler broke off"):
        with connect(params.Cluster(scheduler=address)) as cluster:
            threading.Timer(0.5, scheduler.kill).start()
            cluster.compute("work", [delayed(time.sleep)(5)])
    farm.end(worker)


def refused(address: str, **options: Any) -> str:
    """The one line that connecting to a cluster ends with, within 15 s."""
    started = time.monotonic()
    with pytest.raises(ClusterError) as caught, connect(params.Cluster(scheduler=address, **options)):
        pass
    assert time.monotonic() - started < 15
    (line,) = str(caught.value).splitlines()
    return line


@contextlib.contextmanager
def other_server(answer: bytes) -> Iterator[str]:
    """Something that listens, answers this and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    with peer:
                        peer.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_nobody_there(farm: Farm, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    line = one_line(command(farm, "sample", tmp_path / "out", "--scheduler", address))
    assert f"{address}: nothing listens there (connection refused); start one with: dask scheduler" in line
    assert "unknown host" in refused("tcp://no-such-host.invalid:8786")


@pytest.mark.parametrize("answer", [b"", b"220 mail\r\n" * 9])
def test_no_dask_scheduler(answer: bytes) -> None:
    with other_server(answer) as address:
        assert "no Dask scheduler" in refused(address)


def test_the_address_of_a_worker(remote_client: Client) -> None:
    assert "is a Dask Worker, no scheduler" in refused(min(addresses(remote_client)))


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 2, "scheduler": "tcp://127.0.0.1:8786"},
        {"threads": 1, "scheduler": "tcp://127.0.0.1:8786"},
        {"memory_limit": "1GB", "scheduler": "tcp://127.0.0.1:8786"},
        {"scheduler": "127.0.0.1:8786"},
        {"scheduler": "tcp://127.0.0.1"},
        {"scheduler": "tls://127.0.0.1:8786", "tls_cert": "cert.pem"},
        {"scheduler": "tcp://127.0.0.1:8786", "tls_ca_file": "a", "tls_cert": "b", "tls_key": "c"},
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--"):
        api.sample(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_contradicting_options_are_usage_errors(farm: Farm, tmp_path: Path) -> None:
    words = ["sample", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:8786", "--workers", "2"]
    assert "--workers: for a local cluster" in one_line(command(farm, *words), code=2)


def test_where_the_address_comes_from() -> None:
    with dask.config.set({"scheduler-address": "there:8786"}):
        assert remote.address_of(params.Cluster()) == "tcp://there:8786"
        assert remote.address_of(params.Cluster(scheduler="tls://here:1")) == "tls://here:1"
        assert remote.address_of(params.Cluster(workers=1)) is None
    assert remote.address_of(params.Cluster()) is None


# ------------------------------------------------------------------------------------------------------ certificates

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl")


def certificates(folder: Path) -> dict[str, str]:
    """An authority, and a certificate with its key that it signed, as options."""
    folder.mkdir()
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch"]
    for words in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"],
        [*new, "-subj", "/CN=127.0.0.1", "-keyout", "key.pem", "-out", "request.pem"],
        ["openssl", "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
         "-days", "2", "-out", "cert.pem"],
    ):  # fmt: skip
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return {f"tls_{name}": str(folder / f"{file}.pem") for name, file in
            (("ca_file", "ca"), ("cert", "cert"), ("key", "key"))}  # fmt: skip


def words_of(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (params.spelled(name), value)]


@dataclass
class Secured:
    address: str
    ours: dict[str, str]
    foreign: dict[str, str]


@pytest.fixture(scope="module")
def secured(farm: Farm) -> Secured:
    ours, foreign = certificates(farm.folder / "ours"), certificates(farm.folder / "foreign")
    address = farm.scheduler("scheduler-tls", "--protocol", "tls", "--host", "tls://127.0.0.1", *words_of(ours))
    farm.worker("wheel", "worker-tls", address, *words_of(ours))
    return Secured(address, ours, foreign)


@needs_openssl
def test_certificates_by_options_or_configuration(farm: Farm, secured: Secured, tmp_path: Path) -> None:
    assert secured.address.startswith("tls://")
    words = ["--playlists", "20", "--scheduler", secured.address]
    done = command(farm, "sample", tmp_path / "one", *words, *words_of(secured.ours))
    assert done.returncode == 0, done.stderr
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    variables = {
        f"{tls}CA_FILE": secured.ours["tls_ca_file"],
        f"{tls}CLIENT__CERT": secured.ours["tls_cert"],
        f"{tls}CLIENT__KEY": secured.ours["tls_key"],
    }
    done = command(farm, "sample", tmp_path / "two", *words, **variables)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "sample.txt").read_bytes() == (tmp_path / "two" / "sample.txt").read_bytes()


@needs_openssl
def test_foreign_certificates(farm: Farm, secured: Secured, tmp_path: Path) -> None:
    assert "its certificate is foreign" in refused(secured.address, **secured.foreign)
    mixed = secured.foreign | {"tls_ca_file": secured.ours["tls_ca_file"]}
    words = ["--scheduler", secured.address, *words_of(mixed)]
    line = one_line(command(farm, "sample", tmp_path / "out", *words))
    assert "refuses the certificate of --tls-cert" in line


@needs_openssl
def test_certificates_that_are_none(secured: Secured, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.pem")
    for name in secured.ours:
        line = refused(secured.address, **secured.ours | {name: gone})
        assert line.startswith(f"{params.spelled(name)} {gone}: is not there")
    assert "no certificates and key that go together" in refused(
        secured.address, **secured.ours | {"tls_key": secured.foreign["tls_key"]}
    )
    assert "needs certificates: give --tls-ca-file" in refused(secured.address)


@needs_openssl
def test_tls_to_a_plain_scheduler_and_the_other_way_round(
    secured: Secured, address: str, remote_client: Client
) -> None:
    plain, hidden = address.removeprefix("tcp://"), secured.address.removeprefix("tls://")
    assert "does not speak TLS" in (line := refused(f"tls://{plain}", **secured.ours)) and f"try {address}" in line
    assert f"speaks TLS; give {secured.address}" in refused(f"tcp://{hidden}")
