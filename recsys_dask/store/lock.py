"""One run at a time on a store: a lock file in its scratch, renewed while its holder lives, taken over when it is gone.

A local lock file is created exclusively, and a stale one is moved away before, so that of several runs one gets it. An
object store creates exclusively where it can; everywhere but locally a new lock is also read again after a while, and
the last one written counts. Whoever has lost the lock (it slept, its network was away) notices at the next commit.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from recsys_dask.credentials import masked
from recsys_dask.errors import StoreError
from recsys_dask.store.files import Folder, os_errors, reason

NAME = "scratch/lock.json"
RENEW_S = 20.0
STALE_S = 300.0
"""A lock that was not renewed for so long has lost its holder."""

SETTLE_S = 2.0
"""How long another run may need between looking for a lock on an object store and writing its own."""

LOOK_AGAIN_S = (0.05, 0.2, 0.5, 0.0)
"""How long to wait, each time, for a lock file that says nothing yet."""

ATTEMPTS = 5
SAME_START_S = 3.0
"""Two readings of a process's start differ by less: the system's clock is set now and then."""


class Holder(msgspec.Struct, frozen=True):
    """What a lock file says. machine: tells machines and containers of one host name apart. started: of the process,
    in Unix seconds, as `beat` is; since: ISO 8601."""

    token: str
    owner: str
    host: str
    machine: str
    pid: int
    started: float
    command: str
    since: str
    beat: float

    def __str__(self) -> str:
        shown = self.since.replace("T", " ").partition("+")[0]
        return f"{self.owner} on {self.host} (process {self.pid}, since {shown} UTC: {self.command})"


class Garbage:
    """A lock file that says nothing."""


Found = Holder | Garbage | None


def myself(command: str) -> Holder:
    """A new lock of this process's."""
    import psutil

    try:
        owner = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        owner = f"user {os.getuid()}"
    now = datetime.datetime.now(datetime.UTC)
    return Holder(
        token=secrets.token_hex(8),
        owner=owner,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        command=masked(command),
        since=now.isoformat(timespec="seconds"),
        beat=now.timestamp(),
    )


def _machine() -> str:
    """Tells whether a process number of another run means anything here: same boot, same container."""
    seen = [socket.gethostname()]
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        seen.append(file.read().strip())
    with contextlib.suppress(OSError):
        seen.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(seen)


def gone(holder: Holder) -> str:
    """Why a lock counts no more, or nothing."""
    import psutil

    if holder.machine == _machine():
        try:
            process = psutil.Process(holder.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return "its process is gone"
            if abs(process.create_time() - holder.started) > SAME_START_S:
                return "its process is gone, another one has its number"
        except psutil.NoSuchProcess:
            return "its process is gone"
        except psutil.AccessDenied:
            pass
    silent = time.time() - holder.beat
    return f"nothing was heard of it for {silent / 60:.0f} minutes" if silent > STALE_S else ""


@dataclass
class Lock:
    """A store's lock, held by this process."""

    folder: Folder
    holder: Holder
    _taken_by: Found = None
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def check(self) -> None:
        """Raises `StoreError` if another run took the store over: nothing may be committed any more."""
        with contextlib.suppress(OSError):  # who cannot be asked has not been written to either
            self._renew(write=False)
        if isinstance(self._taken_by, Holder):
            raise StoreError(
                f"{self.folder.url}: taken over by {self._taken_by} while this run stood still for more than "
                f"{STALE_S / 60:.0f} minutes; this one stops"
            )

    def _acquire(self, say: Callable[[str], None]) -> None:
        found: Found = None
        for _ in range(ATTEMPTS):
            found = self._read()
            if isinstance(found, Holder):
                why = gone(found)
                if not why:
                    raise self._busy(found)
                say(f"{self.folder.url}: the lock of {found} is taken over: {why}")
            elif found is not None:
                say(f"{self.folder.url}: {NAME} says nothing: it is taken over")
            if self._take(found):
                return
        raise self._busy(found)

    def _busy(self, found: Found) -> StoreError:
        if not isinstance(found, Holder):
            return StoreError(f"{self.folder.url}: another run is just starting; try again")
        stop = f"stop it (kill {found.pid})" if found.machine == _machine() else "stop it there"
        return StoreError(
            f"{self.folder.url}: in use by {found}: wait until it ends, or {stop}; if there is no such run any more, "
            f"remove {self.folder.full(NAME)}"
        )

    def _take(self, found: Found) -> bool:
        """Put our lock in the place of what was found there; whether that came out well."""
        data = msgspec.json.encode(self.holder)
        if self.folder.is_local:
            return _created(self.folder, data) if found is None else _replaced(self.folder, found, data)
        if found is not None:
            self.folder.write(NAME, data)
        elif not _created_remotely(self.folder, data):
            return False
        time.sleep(SETTLE_S)
        return _is(self._read(), self.holder)

    def _read(self) -> Found:
        try:
            return _read(self.folder)
        except OSError as error:
            raise StoreError(
                f"{self.folder.full(NAME)}: cannot be read: {reason(error)}; get rights there, then run again"
            ) from None

    def _keep(self) -> None:
        """The thread: renew the lock until it is released or lost."""
        while not self._done.wait(RENEW_S) and self._taken_by is None:
            with contextlib.suppress(Exception):  # a place that does not answer now may do next time
                self._renew()

    def _renew(self, write: bool = True) -> None:
        found = _read(self.folder)
        if isinstance(found, Holder) and found.token != self.holder.token:
            self._taken_by = found
        elif (write or not isinstance(found, Holder)) and not self._done.is_set():
            self.folder.write(NAME, msgspec.json.encode(msgspec.structs.replace(self.holder, beat=time.time())))

    def _release(self) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(timeout=SETTLE_S)
        with contextlib.suppress(OSError, StoreError):
            if _is(_read(self.folder), self.holder):
                self.folder.remove(NAME)
                self.folder.remove_empty_folders(os.path.dirname(NAME))


@contextlib.contextmanager
def held(folder: Folder, command: str, say: Callable[[str], None]) -> Iterator[Lock]:
    """The store is this process's alone for as long as the block lasts.

    command: what the holder of the lock is doing, for others to see. say: told in a line when a stale lock is taken
    over. Raises `StoreError` naming the holder where there is one, and where the store cannot be written.
    """
    lock = Lock(folder, myself(command))
    try:
        lock._acquire(say)
        lock._thread = threading.Thread(target=lock._keep, name="recsys_dask-lock", daemon=True)
        lock._thread.start()
        _held.append(lock)
        yield lock
    finally:
        with contextlib.suppress(ValueError):
            _held.remove(lock)
        lock._release()


_held: list[Lock] = []


def abandon() -> None:
    """Remove this process's local locks at once, for one that is about to end without any cleaning up."""
    for lock in _held:
        if lock.folder.is_local:
            with contextlib.suppress(OSError):
                os.unlink(lock.folder.path(NAME))


# ----------------------------------------------------------------------------------------------------------- files


def _is(found: Found, holder: Holder) -> bool:
    return isinstance(found, Holder) and found.token == holder.token


def _read(folder: Folder) -> Found:
    """What the lock file says. Locally it may be read in the instant in which it is written."""
    for wait in LOOK_AGAIN_S if folder.is_local else (0.0,):
        try:
            found = _said(folder.read(NAME))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if isinstance(found, Holder):
            break
        time.sleep(wait)
    return found


def _said(data: bytes) -> Holder | Garbage:
    try:
        return msgspec.json.decode(data, type=Holder)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Garbage()


def _created(folder: Folder, data: bytes) -> bool:
    """Create a local lock file; False where there is one."""
    path = folder.path(NAME)
    try:
        for _ in range(ATTEMPTS):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another run that ended took the folder with it
                with open(path, "xb") as file:
                    file.write(data)
                return True
    except FileExistsError:
        return False
    except OSError as error:
        raise _not_writable(folder, error) from None
    return False


def _replaced(folder: Folder, stale: Found, data: bytes) -> bool:
    """Put `data` in the place of a stale local lock; only one of several runs succeeds.

    They take turns by a file lock of the operating system, which goes with its process. The lock file itself is there
    all the time, so that nobody finds the place free.
    """
    with _turn(folder):
        found = _read(folder)
        if found is None or (isinstance(found, Holder) and found != stale):
            return False  # another run was faster, or this one was heard of again
        folder.write(NAME, data)
        return True


@contextlib.contextmanager
def _turn(folder: Folder) -> Iterator[None]:
    """One process at a time, of those that take a lock over."""
    import fcntl

    path = folder.path(f"{NAME}.turn")
    while True:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                try:
                    mine = os.fstat(file.fileno()).st_ino == os.stat(path).st_ino
                except FileNotFoundError:
                    mine = False
                if not mine:
                    continue  # the file that it waited for was removed by the one before
                try:
                    yield
                finally:
                    os.unlink(path)
                return
        except OSError as error:
            raise _not_writable(folder, error) from None


def _created_remotely(folder: Folder, data: bytes) -> bool:
    """Create a lock object, exclusively where the store can do that; False where there is one."""
    try:
        with os_errors():
            folder.fs.pipe_file(folder.path(NAME), data, mode="create")
        return True
    except FileExistsError:
        return False
    except Exception:  # not every kind of store knows how; those that ignore it are caught by reading it again
        folder.write(NAME, data)
        return True


def _not_writable(folder: Folder, error: OSError) -> StoreError:
    return StoreError(f"{folder.url}: cannot be written ({reason(error)}); name a folder that you may write to")
