"""Which playlists are for testing and what of them is hidden: by their definitions, and the same in any order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_dask.errors import UsageError
from recsys_dask.holdout.split import check_rule, hide, known_items, mixed, test_playlists
from recsys_dask.holdout.tally import combine, count, split, together

pids = st.lists(st.integers(0, 40) | st.integers(0, 2**63 - 1), unique=True, max_size=40)
entries = st.lists(st.lists(st.integers(-1, 14) | st.just(2**31 - 1), max_size=25), max_size=8)
RULES = ("fifth", "first:0", "first:1", "first:5", "first:10", "random:0", "random:1", "random:5", "random:10")


@settings(max_examples=100, deadline=None)
@given(pids, st.sampled_from((0.0, 0.1, 0.2, 0.5, 0.99)), st.integers(1, 12), st.integers(0, 2**40), st.randoms())
def test_the_choice_depends_on_the_set_alone(pid: list[int], share: float, most: int, seed: int, random) -> None:
    def chosen(pid: list[int], share: float = share) -> set[int]:
        mask = test_playlists(np.array(pid, np.int64), share, most, seed)
        assert mask.dtype == np.bool_ and mask.shape == (len(pid),)
        return set(np.array(pid, np.int64)[mask].tolist())

    found = chosen(pid)
    assert len(found) == min(round(share * len(pid)), most)
    assert chosen(random.sample(pid, len(pid))) == found
    assert found <= chosen(pid, 0.999)


def test_the_seed_matters_and_the_choice_is_even() -> None:
    pid = np.arange(10_000)
    one, same, other = (test_playlists(pid, 0.2, 10_000, seed) for seed in (1, 1, 2))
    assert (one == same).all() and 1_200 < (one != other).sum() < 4_000
    assert np.abs(one.reshape(10, 1_000).sum(1) - 200).max() < 60
    assert len(np.unique(mixed(pid, 3))) == 10_000


def packed(lists: list[list[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    flat = [item for one in lists for item in one]
    return np.array(flat, np.int32), np.array([len(one) for one in lists], np.int64)


def hidden_of(lists: list[list[int]], rule: str, seed: int, pid: list[int]) -> list[set[int] | None]:
    """The hidden items of each playlist; None where it is left out."""
    known = known_items(*packed(lists))
    taken, hidden = hide(known, rule, seed, np.array(pid, np.int64))
    assert taken.dtype == hidden.dtype == np.bool_ and len(hidden) == len(known.lists.items)
    sets = [
        set(known.lists.items[a:b][hidden[a:b]].tolist())
        for a, b in zip(known.lists.starts, known.lists.starts[1:], strict=False)
    ]
    assert all(use or not one for use, one in zip(taken, sets, strict=True))
    return [one if use else None for use, one in zip(taken, sets, strict=True)]


@settings(max_examples=200, deadline=None)
@given(entries, st.sampled_from(RULES), st.integers(0, 3), st.data())
def test_what_is_hidden(lists: list[list[int]], rule: str, seed: int, data: st.DataObject) -> None:
    pid = data.draw(st.permutations(range(len(lists))))
    found = hidden_of(lists, rule, seed, pid)
    for one, hidden in zip(lists, found, strict=True):
        distinct = list(dict.fromkeys(item for item in one if item >= 0))
        if rule == "fifth":
            assert (hidden is None) == (len(distinct) < 10)
            assert hidden is None or (hidden <= set(distinct) and len(hidden) == max(1, len(distinct) // 5))
            continue
        manner, k = check_rule(rule)
        assert (hidden is None) == (len(distinct) <= k)
        if hidden is not None and manner == "first":
            assert hidden == set(distinct[k:])
        elif hidden is not None:
            assert hidden <= set(distinct) and len(hidden) == len(distinct) - k
    # No batch and no order matters.
    order = data.draw(st.permutations(range(len(lists))))
    again = hidden_of([lists[place] for place in order], rule, seed, [pid[place] for place in order])
    assert again == [found[place] for place in order]
    assert [hidden_of([one], rule, seed, [number])[0] for one, number in zip(lists, pid, strict=True)] == found


@settings(max_examples=100, deadline=None)
@given(entries)
def test_known_items(lists: list[list[int]]) -> None:
    known = known_items(*packed(lists))
    for one, a, b in zip(lists, known.lists.starts, known.lists.starts[1:], strict=False):
        distinct = sorted({item for item in one if item >= 0})
        assert known.lists.items[a:b].tolist() == distinct
        assert known.first[a:b].tolist() == [one.index(item) for item in distinct]


def test_every_item_is_as_likely() -> None:
    """Of 2,000 playlists of the same 20 items each item is hidden in a fifth, and few playlists hide the same ones."""
    lists = [list(range(20))] * 2_000
    found = hidden_of(lists, "fifth", 0, list(range(2_000)))
    times = Counter(item for one in found for item in one or ())
    assert all(abs(times[item] - 400) < 90 for item in range(20))
    pairs = Counter(frozenset(one or ()) for one in found)
    assert max(pairs.values()) < 10
    assert found != hidden_of(lists, "fifth", 1, list(range(2_000)))


@pytest.mark.parametrize("rule", ["", "fifths", "first", "first:", "random:-1", "last:5", "first:1.5"])
def test_no_rule(rule: str) -> None:
    with pytest.raises(UsageError, match="first:K or random:K"):
        check_rule(rule)


# --------------------------------------------------------------------------------------------------------------- tally


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 5) | st.just(2**63 - 1), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=12)
    ),
    st.integers(1, 12),
    st.data(),
)
def test_tally(playlists: dict[int, list[tuple[int, int]]], size: int, data: st.DataObject) -> None:
    n_parts = data.draw(st.integers(1, 4))
    parts: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(n_parts)]
    for pid, one in playlists.items():
        parts[data.draw(st.integers(0, n_parts - 1))][pid] = one
    counted = []
    for part in parts:
        rows = [(pid, *entry) for pid in sorted(part) for entry in part[pid]]
        pid, code, artist = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
        counted.append(split(count(code.astype(np.int32), pid.astype(np.int64), artist.astype(np.int32)), size, 10))
    assert {len(one) for one in counted} == {-(-10 // size)}
    whole = together([combine(of_range) for of_range in zip(*counted, strict=True)])
    found = list(zip(*(column.tolist() for column in whole), strict=True))
    assert found == oracles.tally(playlists)
