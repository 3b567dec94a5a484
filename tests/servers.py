"""Servers for tests, each a process of its own on a free port of the loopback: an S3 (moto), a proxy in front of it
that answers as a bad day would, and files behind a password.

`python tests/servers.py KIND JSON` prints its port and serves until its standard input is closed, which it is when the
process that started it ends, in whatever way.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

HOST = "127.0.0.1"


@contextlib.contextmanager
def served(kind: str, **settings) -> Iterator[str]:
    """The URL of a server that runs meanwhile."""
    process = subprocess.Popen(
        [sys.executable, __file__, kind, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield f"http://{HOST}:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def counted(url: str) -> Counter[str]:
    """What a proxy did so far, by kind."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("GET", "/-/counts")
    return Counter(json.loads(connection.getresponse().read()))


def moto() -> ThreadingHTTPServer:
    """An S3 that keeps everything in memory."""
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)
    return make_server(HOST, 0, application, threaded=True, request_handler=MotoRequestHandler)


ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message><RequestId>1</RequestId></Error>"


class Proxy(BaseHTTPRequestHandler):
    """Settings, each a share of the requests unless said otherwise:

    errors: answered 500 or 503, half of them after the request was carried out; cut: bodies that break off;
    slow: answers after one or two seconds; key: the access key without which it is 403; deny: methods that are 403
    """

    protocol_version = "HTTP/1.1"
    target = ""
    settings: ClassVar[dict] = {}
    random = random.Random(0)
    lock = threading.Lock()
    counts: ClassVar[Counter[str]] = Counter()

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(self.target)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def log_message(self, *_) -> None:
        pass

    def handle_one(self) -> None:
        if self.path == "/-/counts":
            return self.answer(200, json.dumps(self.counts).encode())
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key, settings = self.settings.get("key"), self.settings
        if key and f"Credential={key}/" not in self.headers.get("Authorization", ""):
            return self.refuse(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist")
        if self.command in settings.get("deny", ()):
            return self.refuse(403, "AccessDenied", "Access Denied")
        with self.lock:
            luck, late, half, which = (self.random.random() for _ in range(4))
        error = luck < settings.get("errors", 0)
        if late < settings.get("slow", 0):
            self.count("slow")
            time.sleep(1 + late / settings["slow"])
        if error and half < 0.5:
            return self.fail(which)
        self.upstream.request(self.command, self.path, body, dict(self.headers))
        response = self.upstream.getresponse()
        data = response.read()
        if error:
            return self.fail(which)
        headers = [one for one in response.getheaders() if one[0].lower() not in HOP_BY_HOP]
        if self.command == "GET" and len(data) > 1 and 1 - luck < settings.get("cut", 0):
            self.count("cut")
            self.answer(response.status, data, headers, cut=True)
            return None
        self.count(self.command)
        return self.answer(response.status, data, headers, length=response.getheader("Content-Length"))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def fail(self, which: float) -> None:
        status, code = (500, "InternalError") if which < 0.5 else (503, "SlowDown")
        self.refuse(status, code, "Please try again")

    def refuse(self, status: int, code: str, message: str) -> None:
        self.count(str(status))
        self.answer(status, ERROR.format(code, message).encode())

    def answer(self, status, data, headers=(), length=None, cut=False) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        if cut:
            self.send_header("Connection", "close")
            data, self.close_connection = data[: len(data) // 2], True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "date", "server", "keep-alive"}


class Guarded(SimpleHTTPRequestHandler):
    """A folder for those who know user and password."""

    wanted = ""

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        if self.allowed():
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.allowed():
            super().do_HEAD()

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == self.wanted:
            return True
        self.send_error(401)
        return False


def main(kind: str, settings: dict) -> None:
    if kind == "moto":
        server = moto()
    elif kind == "proxy":
        Proxy.target = settings["target"].removeprefix("http://")
        Proxy.settings, Proxy.random = settings, random.Random(settings.get("seed", 0))
        server = ThreadingHTTPServer((HOST, 0), Proxy)
    else:
        Guarded.wanted = "Basic " + base64.b64encode(settings["login"].encode()).decode()
        server = ThreadingHTTPServer((HOST, 0), partial(Guarded, directory=settings["folder"]))
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
