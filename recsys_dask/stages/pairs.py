"""How often two items share a playlist: `pairs_<item>_<view>` and `pair_items_<item>_<view>`.

view:  each partition's rows -> playlists of distinct items of the view, kept on the workers (four bytes an entry)
chunk: some partitions, one range of items -> a counter
tree:  the counters of a range -> one; there are as many ranges as the memory asks for, and no task holds more
       than a range of the pairs
write: a range's counter -> one file of the table

An update counts only what was appended and what it changes, and adds that to the earlier pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import values
from recsys_dask.cooccurrence.combine import combine
from recsys_dask.cooccurrence.plan import Plan, make_plan, task_bytes, view_bytes
from recsys_dask.cooccurrence.tasks import (
    Items,
    Scope,
    add_to_earlier,
    changed_partition,
    count_group,
    diagonal_of,
    new_partition,
    pair_lengths,
    view_items,
    view_partition,
    write_items,
    write_range,
)
from recsys_dask.cooccurrence.update import negated_diagonal
from recsys_dask.cooccurrence.view import N_WEIGHTS, Diagonal, add_diagonals
from recsys_dask.runtime.clusters import Cluster, tree
from recsys_dask.store.manifest import StageReport, TableEntry
from recsys_dask.store.tables import Store


@dataclass(frozen=True)
class Earlier:
    """Pairs of the same view and parameters, made before slices were appended: the first `n_files` of `rows`."""

    n_files: int
    playlists: int


def pairs(
    cluster: Cluster,
    store: Store,
    options: params.Pairs,
    view: str,
    token: str,
    plan: Plan | None = None,
    earlier: Earlier | None = None,
) -> tuple[dict[str, TableEntry], StageReport]:
    """Both tables of one view. `plan` overrides the one that the memory asks for; `earlier` makes it an update."""
    from dask import delayed

    item, weighted = options.item, view == "full"
    items = Items(
        store.folder,
        tuple(_item_paths(store, item, view)),
        item,
        view,
        threshold(store, options),
        options.min_playlists,
    )
    with cluster.measured() as so_far:
        (codes,) = cluster.compute(f"{view} items", [delayed(view_items)(items, dask_key_name=f"view_items-{token}")])
        scope = _scope(store, item, view, codes) if earlier else None
        if earlier and scope:
            known, pair_total, files, projected = _update(cluster, store, options, items, scope, earlier, token)
        else:
            known, pair_total, files, projected = _count(cluster, store, options, items, len(codes), token, plan)
        entry = write_items(store.folder, f"pair_items_{item}_{view}", codes, known, pair_total, weighted, token)
        seconds, peak = so_far()
    report = StageReport(
        files.rows,
        files.bytes + entry.bytes,
        len(files.files),
        seconds,
        peak,
        projected,
        facts={"playlists": known.playlists, "items": len(codes)},
        notes=["updated from the appended slices"] if scope else [],
    )
    return {f"pairs_{item}_{view}": files, f"pair_items_{item}_{view}": TableEntry([entry])}, report


Counted = tuple[Diagonal, NDArray[np.int64], TableEntry, int]
"""The diagonal and the pair totals of the view's items, the table's files, and the projected memory."""


def _count(
    cluster: Cluster,
    store: Store,
    options: params.Pairs,
    items: Items,
    n_items: int,
    token: str,
    plan: Plan | None,
) -> Counted:
    """All pairs of the view, from all rows."""
    from dask import delayed

    weighted = items.view == "full"
    partitions = cluster.persist(pair_rows(store, options, items, token))
    (known,) = cluster.compute(f"{items.view} view", [_whole(partitions, n_items, n_items, f"view-{token}")])
    plan = plan or make_plan(cluster.budget, cluster.n_threads, known, len(partitions), weighted)
    work = [
        delayed(write_range)(counted, items, number, token, dask_key_name=f"write-{number}-{token}")
        for number, counted in enumerate(pair_counts(partitions, plan, n_items, n_items, weighted, token))
    ]
    written = cluster.compute(f"{items.view} pairs", work, lambda one: one[0].rows, "pairs")
    pair_total = np.sum([sums for _, sums in written], 0) if written else np.zeros(n_items, np.int64)
    projected = cluster.budget.projected(task_bytes(plan, known, weighted) + view_bytes(known, cluster.n_threads))
    return known, pair_total, TableEntry([file for file, _ in written]), projected


def threshold(store: Store, options: params.Pairs) -> int:
    """Mentions that an item of the `article` view must exceed."""
    if options.mentions_over is not None:
        return options.mentions_over
    return options.mentions_per_million * store.entry("playlists").rows // 1_000_000


def _item_paths(store: Store, item: str, view: str) -> list[str]:
    name = f"{item}s" if item == "track" and view == "full" else f"popular_{item}"
    return [file.path for file in store.entry(name).files]


def pair_rows(store: Store, options: params.Pairs, items: Items, token: str) -> list[Any]:
    """The lift: each partition's playlists of a view as delayed objects."""
    from dask import delayed

    return [
        delayed(view_partition)(playlists, rows, options, items, dask_key_name=f"view-{number}-{token}")
        for number, (playlists, rows) in enumerate(_partitions(store))
    ]


def _partitions(store: Store) -> list[tuple[str, str]]:
    """The files of `playlists` and of `rows` that hold the same playlists."""
    both = zip(store.entry("playlists").files, store.entry("rows").files, strict=True)
    return [(playlists.path, rows.path) for playlists, rows in both]


def _whole(partitions: Sequence[Any], n_items: int, n_view: int, name: str) -> Any:
    """The diagonal of all partitions, delayed."""
    from dask import delayed

    each = [
        delayed(diagonal_of)(one, n_items, n_view, dask_key_name=f"diagonal-{number}-{name}")
        for number, one in enumerate(partitions)
    ]
    return tree(each, add_diagonals, f"add_diagonals-{name}")


def pair_counts(
    partitions: Sequence[Any], plan: Plan, n_items: int, n_view: int, weighted: bool, token: str
) -> list[Any]:
    """The lift: the counters of a plan's ranges as delayed objects, each the root of a tree of its own."""
    from dask import delayed

    groups = np.array_split(np.arange(len(partitions)), plan.groups)
    roots = []
    for number, span in enumerate(plan.spans):
        chunks = [
            delayed(count_group)(
                [partitions[place] for place in group], n_items, n_view, span, weighted,
                dask_key_name=f"count-{number}-{at}-{token}",
            )
            for at, group in enumerate(groups)
        ]  # fmt: skip
        roots.append(tree(chunks, partial(combine, n_items=n_items), f"combine-{number}-{token}"))
    return roots


# ---------------------------------------------------------------------------------------------------------- update


def _scope(store: Store, item: str, view: str, codes: NDArray[np.int32]) -> Scope | None:
    """What an update counts over; None where a recount is due: N, and with it every idf, has changed."""
    before = values(store.table(f"pair_items_{item}_{view}", ["item"])["item"])
    if view == "full" and len(before) != len(codes):
        return None
    return Scope(before, codes, np.union1d(before, codes).astype(np.int32))


def _update(
    cluster: Cluster,
    store: Store,
    options: params.Pairs,
    items: Items,
    scope: Scope,
    earlier: Earlier,
    token: str,
) -> Counted:
    """The earlier pairs, and what the new rows and the items that moved change in them."""
    from dask import delayed

    item, view, folder = items.item, items.view, items.folder
    weighted, n_items, n_view = view == "full", len(scope.union), len(scope.now)
    shared = delayed(scope, name=f"scope-{token}", traverse=False)
    files = _partitions(store)
    old, new = files[: earlier.n_files] if len(scope.moved) else [], files[earlier.n_files :]
    changed = [
        delayed(changed_partition, nout=2)(*one, options, items, shared, dask_key_name=f"changed-{number}-{token}")
        for number, one in enumerate(old)
    ]
    added = cluster.persist(
        [
            delayed(new_partition)(*one, options, items, shared, dask_key_name=f"view-{number}-{token}")
            for number, one in enumerate(new)
        ]
        + [now for _, now in changed]
    )
    removed = cluster.persist([before for before, _ in changed])
    paths = [file.path for file in store.entry(f"pairs_{item}_{view}").files]
    lengths = delayed(pair_lengths)(folder, paths, shared, dask_key_name=f"pair_lengths-{token}")
    plus, minus, before = cluster.compute(
        f"{view} view",
        [
            _whole(added, n_items, n_view, f"added-{token}"),
            _whole(removed, n_items, n_view, f"removed-{token}") if removed else delayed(None),
            lengths,
        ],
    )
    both = plus._replace(
        n_playlists=plus.n_playlists + (minus.n_playlists if minus else 0),
        emissions=plus.emissions + before + (minus.emissions if minus else 0),
    )
    plan = make_plan(cluster.budget, cluster.n_threads, both, len(added), weighted)
    adds = pair_counts(added, plan, n_items, n_view, weighted, f"added-{token}")
    removes = pair_counts(removed, plan, n_items, n_view, weighted, f"removed-{token}") if removed else []
    work = []
    for number, one in enumerate(adds):
        taken = removes[number] if removes else None
        summed = delayed(add_to_earlier)(folder, paths, one, taken, shared, dask_key_name=f"sum-{number}-{token}")
        work.append(delayed(write_range)(summed, items, number, token, shared, dask_key_name=f"write-{number}-{token}"))
    written = cluster.compute(f"{view} pairs", work, lambda one: one[0].rows, "pairs")
    mine = np.searchsorted(scope.union, scope.now)
    known = add_diagonals([_earlier_diagonal(store, item, view, scope, earlier), plus])
    if minus:
        known = add_diagonals([known, negated_diagonal(minus)])
    known = Diagonal(known.n_playlists[mine], known.emissions[mine], known.weights[mine], known.playlists)
    projected = cluster.budget.projected(task_bytes(plan, both, weighted) + view_bytes(both, cluster.n_threads))
    pair_total = np.sum([sums for _, sums in written], 0)[mine]
    return known, pair_total, TableEntry([file for file, _ in written]), projected


def _earlier_diagonal(store: Store, item: str, view: str, scope: Scope, earlier: Earlier) -> Diagonal:
    """The earlier `pair_items` in places of the union."""
    table = store.table(f"pair_items_{item}_{view}")
    mine, n_items = np.searchsorted(scope.union, scope.before), len(scope.union)
    n_playlists, weights = np.zeros(n_items, np.int64), np.zeros((n_items, N_WEIGHTS), np.int64)
    n_playlists[mine] = values(table["n_playlists"])
    if view == "full":
        weights[mine] = np.stack([values(table["weight"]), values(table["idf_weight"])], 1)
    return Diagonal(n_playlists, np.zeros(n_items, np.int64), weights, earlier.playlists)
