"""Credentials in URLs: taken out of them at once, so that they are never shown, logged, stored or part of a task.

They wait in the environment, where those of S3 are too, and from where worker processes inherit them.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import Any
from urllib.parse import unquote

CREDENTIALS = "RECSYS_DASK_CREDENTIALS"
"""The environment variable that takes credentials of URLs to worker processes: JSON, protocol://host to both words."""

_URL = re.compile(r"(\b[a-zA-Z][\w+.-]*)://([^\s'\"]+)")


def _user_info(protocol: str, behind: str) -> tuple[str, str]:
    """What is behind `protocol://`, cut into user:secret (or nothing) and the rest.

    A name alone is no secret (sftp://me@host) and may be part of the place (abfs://container@account), save over
    HTTP, where it may be a token. A secret may hold a raw slash, as those of S3 do.
    """
    host = behind.partition("/")[0]
    info, at, _ = host.rpartition("@")
    if at and (":" in info or protocol in ("http", "https")):
        return info, behind[len(info) + 1 :]
    if ":" in host and not re.fullmatch(r"[^:]*:\d*|.*\]|.*\]:\d*", host):
        info, at, rest = behind.partition("@")
        if at:
            return info, rest
    return "", behind


def masked(text: str) -> str:
    """A text without the credentials that URLs in it may hold: what is shown, logged and stored."""
    return _URL.sub(lambda found: f"{found[1]}://{_user_info(found[1], found[2])[1]}", text)


def _kept() -> dict[str, list[str]]:
    return dict(json.loads(os.environ.get(CREDENTIALS) or "{}"))


def keep_credentials(url: str) -> str:
    """The URL without its credentials, which this process, and workers that it starts later, know from now on."""

    def keep(found: re.Match[str]) -> str:
        info, rest = _user_info(found[1], found[2])
        if info:
            user, _, secret = info.partition(":")
            known = _kept() | {f"{found[1]}://{rest.partition('/')[0]}": [unquote(user), unquote(secret)]}
            os.environ[CREDENTIALS] = json.dumps(known)
        return f"{found[1]}://{rest}"

    return _URL.sub(keep, url) if "@" in url else url


def options_for(url: str) -> dict[str, dict[str, Any]]:
    """What fsspec is told of each protocol in a URL: credentials that came with a URL of the same host."""
    options: dict[str, dict[str, Any]] = {}
    if known := _kept():
        for protocol, behind in _URL.findall(url):
            user, secret = known.get(f"{protocol}://{behind.partition('/')[0]}", ("", ""))
            if not user:
                continue
            if protocol in ("s3", "s3a"):
                options[protocol] = {"key": user, "secret": secret}
            elif protocol in ("http", "https"):
                basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
                options[protocol] = {"client_kwargs": {"headers": {"Authorization": f"Basic {basic}"}}}
            else:
                options[protocol] = {"username": user, "password": secret}
    return options
