"""The way to a Dask scheduler that runs already: its address, certificates, and what is wrong when there is no way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import ssl
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from recsys_dask import params
from recsys_dask.errors import ClusterError, UsageError
from recsys_dask.runtime.clusters import workers_of
from recsys_dask.runtime.progress import Progress

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

CONNECT_S = 10.0
SILENT_S = 3.0
"""A Dask scheduler speaks first, at once; one that is silent for so long waits for TLS, or is none."""


def address_of(options: params.Cluster) -> str | None:
    """The scheduler to connect to, if any: the option's, else Dask's configuration (DASK_SCHEDULER_ADDRESS).

    Options of a local cluster ask for a local one, whatever the configuration says.
    """
    import dask

    if options.scheduler or options.given(*options.LOCAL):
        return options.scheduler
    found = dask.config.get("scheduler-address", None)
    if not found and options.given(*options.REMOTE):
        raise UsageError("--tls-ca-file, --tls-cert and --tls-key name no cluster: give --scheduler tls://host:port")
    if not found:
        return None
    return str(found) if "://" in str(found) else f"tcp://{found}"


@contextlib.contextmanager
def connected(address: str, options: params.Cluster) -> Iterator[Client]:
    """A client of the scheduler at `address`, closed at the end. Raises `ClusterError` within some 15 s."""
    from distributed import Client

    address = address.rstrip("/")
    security = _security(address, options)
    protocol, _, place = address.partition("://")
    if protocol in ("tcp", "tls"):
        _greet(address, place, security)
    try:
        kind = _identity(address, security).get("type")
    except Exception as error:
        text = " ".join(str(error).split()) if isinstance(error, OSError) else "it speaks something else"
        raise ClusterError(f"{address}: no Dask scheduler answers there ({text}); check the address") from error
    if kind != "Scheduler":
        raise ClusterError(f"{address}: is a Dask {kind}, no scheduler; give the scheduler's address")
    with _quiet(), contextlib.ExitStack() as opened:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mismatched versions")  # the preflight says it in one line
            client = opened.enter_context(Client(address, security=security, timeout=CONNECT_S))
        yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks that a client of ours logs when its scheduler goes: `unbroken` says it in one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def unbroken(client: Client) -> Iterator[None]:
    """Errors of a lost connection become `ClusterError`."""
    from distributed.comm import CommClosedError

    try:
        yield
    except OSError as error:
        if isinstance(error, CommClosedError) or client.status != "running":
            raise ClusterError(
                f"the connection to the Dask scheduler broke off ({error}); run again to go on from here"
            ) from error
        raise


def _identity(address: str, security: Security | None) -> dict[str, Any]:
    """What a Dask program says that it is. A `Client` whose start fails would stay behind half made."""
    from distributed.core import rpc

    async def ask() -> dict[str, Any]:
        arguments = security.get_connection_args("client") if security else {}
        async with rpc(address, timeout=CONNECT_S, connection_args=arguments) as program:
            return dict(await asyncio.wait_for(program.identity(), CONNECT_S))

    with ThreadPoolExecutor(1) as apart:  # the caller's thread may run a loop of its own
        return apart.submit(asyncio.run, ask()).result()


def some_worker(client: Client, wait_s: float, progress: Progress) -> None:
    """Wait for the first worker. Raises `ClusterError` when none has come after `wait_s` seconds."""
    if any(worker["status"] == "running" for worker in workers_of(client).values()):
        return
    address = client.scheduler.address  # type: ignore[union-attr]
    progress.say(f"{address}: waiting up to {wait_s:g} s for a worker")
    # An adaptive cluster starts workers when there is something to do.
    wake = client.submit(int, key=f"recsys_dask-wake-{secrets.token_hex(8)}")
    try:
        client.wait_for_workers(1, timeout=max(wait_s, 0.01))
    except TimeoutError:
        raise ClusterError(
            f"{address}: has no worker after {wait_s:g} s: start some with: dask worker {address}"
        ) from None
    finally:
        wake.cancel()


# ----------------------------------------------------------------------------------------------------- certificates


def _security(address: str, options: params.Cluster) -> Security | None:
    """The client's certificates, from options or Dask's configuration, looked at before they are used."""
    from distributed.security import Security

    if not address.startswith("tls://"):
        if options.given(*options.REMOTE[1:]):
            raise UsageError(f"--tls-ca-file, --tls-cert and --tls-key go with tls://, and the scheduler is {address}")
        return None
    security: Any
    if options.tls_ca_file:
        security = Security(
            tls_ca_file=options.tls_ca_file,
            tls_client_cert=options.tls_cert,
            tls_client_key=options.tls_key,
            require_encryption=True,
        )
    else:
        security = Security()
    files = {
        "--tls-ca-file": security.tls_ca_file,
        "--tls-cert": security.tls_client_cert,
        "--tls-key": security.tls_client_key,
    }
    for name, file in files.items():
        if not file:
            raise ClusterError(f"{address}: needs certificates: give --tls-ca-file, --tls-cert and --tls-key")
        if "\n" not in file and not os.access(file, os.R_OK):
            there = "cannot be read" if os.path.exists(file) else "is not there"
            raise ClusterError(f"{name} {file}: {there}; give the path of a PEM file")
    try:
        _context(security)
    except (ssl.SSLError, OSError, ValueError) as error:
        text = getattr(error, "reason", None) or error
        names = ", ".join(f"{name} {file}" for name, file in files.items())
        raise ClusterError(f"{names}: no certificates and key that go together ({text}); give PEM files") from None
    return security


def _context(security: Security) -> ssl.SSLContext:
    context: ssl.SSLContext = security.get_connection_args("client")["ssl_context"]
    return context


# --------------------------------------------------------------------------------------------------------- greeting


def _greet(address: str, place: str, security: Security | None) -> None:
    """Say what is wrong with an address at once: Dask's own client tries on for its whole timeout, and then does not.

    Raises `ClusterError`, one line, unless somebody answers there who may be a Dask scheduler.
    """
    start = "start one with: dask scheduler, or check the address"
    try:
        host, port = _host_port(place)
        if security is None:
            heard = _heard(host, port)
        else:
            with _socket(host, port) as plain, _context(security).wrap_socket(plain) as secure:
                heard = bool(secure.recv(1))
    except socket.gaierror:
        raise ClusterError(f"{address}: unknown host; check the address") from None
    except ConnectionRefusedError:
        raise ClusterError(f"{address}: nothing listens there (connection refused); {start}") from None
    except ssl.SSLCertVerificationError as error:
        raise ClusterError(
            f"{address}: its certificate is foreign ({error.verify_message}): it is not signed by the one in "
            "--tls-ca-file; give that of this cluster"
        ) from None
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            raise ClusterError(f"{address}: does not speak TLS ({error.reason}); try tcp://{place}") from None
        raise ClusterError(
            f"{address}: the scheduler refuses the certificate of --tls-cert ({_plain(error)}); give one that is "
            "signed by the cluster's own"
        ) from None
    except TimeoutError:
        raise ClusterError(f"{address}: no Dask scheduler answers there within {CONNECT_S:g} s; {start}") from None
    except OSError as error:
        raise ClusterError(f"{address}: cannot be reached: {error.strerror or error}; {start}") from None
    if heard is None:
        raise ClusterError(f"{address}: speaks TLS; give tls://{place}, --tls-ca-file, --tls-cert and --tls-key")
    if not heard:
        raise ClusterError(f"{address}: no Dask scheduler (it hangs up); {start}")


def _plain(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).rpartition("ALERT_")[2].replace("_", " ").lower()


def _host_port(place: str) -> tuple[str, int]:
    from distributed.comm.addressing import parse_host_port

    try:
        host, port = parse_host_port(place)
    except ValueError:
        raise UsageError(f"{place}: no address of a Dask scheduler: give tcp://host:port or tls://host:port") from None
    return host, port


def _socket(host: str, port: int, timeout: float = CONNECT_S) -> socket.socket:
    return socket.create_connection((host, port), timeout=timeout)


def _heard(host: str, port: int) -> bool | None:
    """Whether somebody speaks there; None if it is in TLS. Raises `TimeoutError` for silence."""
    with _socket(host, port) as plain:
        plain.settimeout(SILENT_S)
        with contextlib.suppress(TimeoutError):
            return bool(plain.recv(1))
        if _speaks_tls(host, port):
            return None
        plain.settimeout(CONNECT_S - SILENT_S)
        return bool(plain.recv(1))


def _speaks_tls(host: str, port: int) -> bool:
    context: Any = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _socket(host, port, SILENT_S) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
