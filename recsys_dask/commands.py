"""What commands are made of: the register that the command line reads, and advancing a store under its lock."""

from __future__ import annotations

import dataclasses
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recsys_dask import params

if TYPE_CHECKING:
    from distributed import Client

    from recsys_dask.pipeline import Outcome, Step
    from recsys_dask.runtime.clusters import Cluster
    from recsys_dask.runtime.progress import Progress
    from recsys_dask.store.tables import Store

Place = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Command:
    """A public function and the dataclasses that its parameters come from, for the command line to be made of."""

    function: Callable[..., Any]
    options: tuple[type, ...]


COMMANDS: dict[str, Command] = {}


def command(*options: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a command: its `**parameters` are checked against `options`, and shown in its signature."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = {field.name: field for cls in options for field in dataclasses.fields(cls)}
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        shown = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for name, field in fields.items()
        ]
        function.__signature__ = inspect.Signature([*own, *shown])  # type: ignore[attr-defined]
        lines = [f"    {name}: {field.metadata['help']}" for name, field in fields.items()]
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nParameters:\n" + "\n".join(lines)
        COMMANDS[function.__name__] = Command(function, options)
        return function

    return enter


def open_store(store: Place) -> Store:
    """An existing store. Raises `StoreError`."""
    from recsys_dask.store.tables import Store

    return Store.open(os.fspath(store))


def advance(
    store: Place,
    wanted: Callable[[Store], Sequence[Step]],
    redo: params.Redo,
    cluster: params.Cluster,
    client: Client | None,
    progress: Progress | None,
    new: bool = False,
    inputs: Sequence[Any] = (),
) -> list[Outcome]:
    """Do what is not finished of some steps, as the only one who writes to the store."""
    from recsys_dask import pipeline, steps
    from recsys_dask.runtime.connecting import connect
    from recsys_dask.runtime.preflight import Reach
    from recsys_dask.runtime.progress import Progress
    from recsys_dask.store import lock
    from recsys_dask.store.tables import Store

    seen = progress or Progress()
    open_ = Store.open_or_new if new else Store.open
    folder = open_(os.fspath(store)).folder
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    with lock.held(folder, command, seen.say) as mine:
        opened = open_(os.fspath(store))  # another run may have committed something until just now
        if inputs and (news := pipeline.input_news(opened, inputs)):
            seen.say(news)
        reach = Reach(reads={"input": inputs[0].path} if inputs else {}, writes={"store": opened.folder})

        @contextmanager
        def connected() -> Iterator[Cluster]:
            with connect(cluster, client, progress, reach, steps.is_small(opened, inputs, redo.rebuild)) as made:
                yield made

        return pipeline.advance(opened, wanted(opened), connected, seen, redo.rebuild, mine.check)
