"""Advancing a store: what is finished, what is to be redone and why, and the commit of each step."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import recsys_dask
from recsys_dask import params
from recsys_dask.errors import StoreError
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.runtime.progress import Progress
from recsys_dask.store import lock
from recsys_dask.store import manifest as manifests
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import InputFile, StageEntry, StageReport, TableEntry, fingerprint
from recsys_dask.store.tables import Store

Made = tuple[dict[str, TableEntry], StageReport]
EXPORT_FOLDER = "export"


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage with its parameters. `key` names it in the manifest, `needs` the stages that it reads.

    `run` takes the tokens of the steps to do, by key: steps of one `group` that stand together are done in one go.
    scratch: a folder that is the step's alone, emptied when it is committed; resumable: the files in it which an
    interrupted run left and from which the step goes on.

    standing: the fingerprint of a result that is as good as this step's; onto: that of the result which it adds to.
    """

    key: str
    params: dict[str, Any]
    needs: tuple[str, ...]
    run: Callable[[Cluster, Store, dict[str, str]], dict[str, Made]]
    group: str = ""
    scratch: str = ""
    resumable: Callable[[Folder], set[str]] = lambda folder: set()
    standing: str = ""
    onto: str = ""


@dataclasses.dataclass
class Outcome:
    """What became of a step: its report, and whether it was done now."""

    key: str
    report: StageReport
    fresh: bool


Connect = Callable[[], AbstractContextManager[Cluster]]


def advance(
    store: Store,
    steps: Sequence[Step],
    connect: Connect,
    progress: Progress,
    rebuild: bool = False,
    check: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Do what is not finished, in order, each step committed by itself; connect to a cluster only if need be.

    rebuild: do all steps, finished or not. check: raises where this run must not commit any more. Raises `StoreError`
    where a step needs a stage that the store lacks and that is not among the steps.
    """
    tokens: dict[str, str] = {key: entry.fingerprint for key, entry in store.manifest.stages.items()}
    plan: list[tuple[Step, str, str | None]] = []
    lost = store.lost()
    again = {step.key: "--rebuild asks for it" if rebuild else _lost_of(store, step, lost) for step in steps}
    for step in steps:
        if again[step.key] and step.onto:
            raise StoreError(
                f"{store.folder.url}: nothing can be appended, since {again[step.key]}; run with --rebuild"
            )
        for need in step.needs:
            outdated = need not in again and need in tokens and store.manifest.is_outdated(need)
            if need not in tokens or outdated:
                what = need.replace(":", " ")
                why = f"{what} of an earlier input or other parameters" if outdated else f"no {what} yet"
                command = manifests.command_for(need, store.folder.url)
                raise StoreError(f"{store.folder.url}: has {why}; first run: {command}")
        token = fingerprint(step.key, step.params, [tokens[need] for need in step.needs], step.onto)
        if step.standing and not again[step.key]:
            token = step.standing
        plan.append((step, token, _reason(store, step, token, again[step.key])))
        tokens[step.key] = token
    _sweep(store, [(step, reason is not None) for step, _, reason in plan], progress)
    if not any(reason is not None for _, _, reason in plan):
        return [Outcome(step.key, store.manifest.stages[step.key].report, False) for step, _, _ in plan]
    # Names of this run's own: a table that is made again never touches the files of the one in use, and a task that a
    # killed run left behind on a cluster never those of this run.
    attempt = secrets.token_hex(2)
    with connect() as cluster:
        for _, alike in itertools.groupby(plan, key=lambda one: one[0].group or one[0].key):
            due = {step.key: (step, token, reason) for step, token, reason in alike if reason is not None}
            for step, _, reason in due.values():
                if reason:
                    progress.say(f"{step.key.replace(':', ' ')}: again, since {reason}")
            if due:
                check()
                for key in due:
                    if again[key] and key in store.manifest.stages:
                        store.manifest.stages[key].made_from = {}  # nothing to be brought up to date
                first, _, _ = next(iter(due.values()))
                made = first.run(cluster, store, {key: token + attempt for key, (_, token, _) in due.items()})
                check()
                _commit(store, [(step, token, *made[key]) for key, (step, token, _) in due.items()])
    _sweep(store, [(step, False) for step, _, _ in plan], progress)  # of workers that died in this run
    return [Outcome(step.key, store.manifest.stages[step.key].report, reason is not None) for step, _, reason in plan]


def _lost_of(store: Store, step: Step, lost: set[str]) -> str:
    """The files of a finished step that are gone, in words, or nothing."""
    entry = store.manifest.stages.get(step.key)
    tables = [store.manifest.tables[name] for name in entry.tables] if entry else []
    gone = [file.path for table in tables for file in table.files if file.path in lost]
    more = f" (and {len(gone) - 1} more)" if gone[1:] else ""
    return f"{gone[0]} is missing or not as long as it was written{more}" if gone else ""


def _reason(store: Store, step: Step, token: str, again: str) -> str | None:
    """Why a step is to be done: None if it is not, "" if it never was. again: why it is even if it is finished."""
    entry = store.manifest.stages.get(step.key)
    if entry is None:
        return ""
    if again:
        return again
    if entry.fingerprint == token:
        return None
    changed = [
        f"{params.spelled(name)} was {entry.params.get(name)}, is {value}"
        for name, value in step.params.items()
        if entry.params.get(name) != value and name != "input"
    ]
    if entry.params.get("input") != step.params.get("input"):
        changed.append("the input changed")
    return ", ".join(changed) or "what it is made from changed"


_OURS = re.compile(
    r"tables/\w+/[0-9a-f]{12,}-\d{5}\.parquet|models/\w+-[0-9a-f]{12,}/[^/]+|scratch/(ingest|train_\w+)/[^/]+"
    r"|scratch/lock\..*|(scratch/)?\.probe[-0-9a-f]*"
)
_SCRATCH = re.compile(r"scratch/(ingest|train_\w+)/")

_TEMPORARY = re.compile(r"(tables/|models/|scratch/|export/|manifest\.json\.).*\b[0-9a-f]{12}\.tmp")


def _sweep(store: Store, plan: Sequence[tuple[Step, bool]], progress: Progress) -> None:
    """Remove what killed runs left behind: temporary files, tables that nothing lists, what no step goes on from.

    Only under the lock, and only files that are named as ours are: others may be kept in a store's folder too.
    """
    folder, keep = store.folder, {lock.NAME} | store.manifest.files()
    there = folder.names("", 1)
    there += [name for one in ("tables", "models", "scratch", EXPORT_FOLDER) for name in folder.names(one)]
    ours = tuple(f"{step.scratch}/" for step, _ in plan if step.scratch)
    keep |= {name for name in there if _SCRATCH.match(name) and not name.startswith(ours)}
    for step, due in plan:
        if due and step.scratch:
            keep |= step.resumable(folder)
    left = [name for name in there if _TEMPORARY.fullmatch(name) or (_OURS.fullmatch(name) and name not in keep)]
    folder.remove(*left)
    if left:
        progress.say(f"removed what an interrupted run left behind: {len(left)} files")


def _commit(store: Store, made: Sequence[tuple[Step, str, dict[str, TableEntry], StageReport]]) -> None:
    """The steps' tables take the place of earlier ones; files that nothing lists any more go."""
    manifest = store.manifest
    before = manifest.files()
    for step, token, entries, report in made:
        earlier = manifest.stages.get(step.key)
        for name in earlier.tables if earlier else []:
            manifest.tables.pop(name, None)
        manifest.tables.update(entries)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        needs = {*step.needs, "ingest"} if step.key != "ingest" else ()
        made_from = {need: manifest.stages[need].fingerprint for need in needs}
        lineage = {token: len(entries["rows"].files)} if "rows" in entries else {}
        if earlier and step.onto:
            lineage = earlier.lineage | lineage
        manifest.stages[step.key] = StageEntry(token, step.params, list(entries), report, now, made_from, lineage)
    manifest.package = recsys_dask.__version__
    manifests.save(store.folder, manifest)
    scratch = [name for step, *_ in made if step.scratch for name in store.folder.names(step.scratch)]
    store.folder.remove(*(before - manifest.files()), *scratch)
    if scratch:
        store.folder.remove_empty_folders("scratch")
    store.folder.remove_empty_folders("models")


def input_news(store: Store, inputs: Sequence[InputFile]) -> str:
    """How an input differs from what the store was made from, or nothing."""
    if not store.manifest.inputs:
        return ""
    before = {file.path: file for file in store.manifest.inputs}
    now = {file.path: file for file in inputs}
    news = [
        f"{len(files)} {word}"
        for word, files in (
            ("new", now.keys() - before.keys()),
            ("gone", before.keys() - now.keys()),
            ("changed", {path for path in now.keys() & before.keys() if now[path] != before[path]}),
        )
        if files
    ]
    return f"the input changed: {', '.join(news)} (of {len(now)} files)" if news else ""
