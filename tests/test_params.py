"""Defaults, and what is said of a parameter that cannot be."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_dask import params
from recsys_dask.errors import UsageError

CLASSES = [one for one in vars(params).values() if dataclasses.is_dataclass(one) and isinstance(one, type)]
FIELDS = [(cls, field) for cls in CLASSES for field in dataclasses.fields(cls)]
BOUNDED = [(cls, field) for cls, field in FIELDS if field.metadata["low"] is not None]
CHOSEN = [(cls, field) for cls, field in FIELDS if field.metadata["choices"]]


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else getattr(value, "name", str(value))


def made(cls: type, name: str, value: Any) -> Any:
    (one,) = params.make(cls, values={name: value})
    return one


# ------------------------------------------------------------------------------------------------------------ defaults

SPECIFIED = [
    (params.Counts, "top", 10_000),
    (params.Pairs, "min_tracks", 5),
    (params.Pairs, "mentions_per_million", 10_000),
    (params.Pairs, "mentions_over", None),
    (params.Pairs, "rows_low", 5),
    (params.Pairs, "rows_high", 30),
    (params.Pairs, "min_playlists", 5),
    (params.Pairs, "view", None),
    (params.Pairs, "item", "artist"),
    (params.Similar, "best", 20),
    (params.Similar, "score", "normalised"),
    (params.Similar, "score_over", 0.004),
    (params.Similar, "count_over", None),
    (params.Lookup, "k", 20),
    (params.Export, "rows", False),
    (params.Ingest, "on_bad_file", "stop"),
    (params.Ingest, "files", None),
    (params.Cluster, "workers", None),
]


@pytest.mark.parametrize("cls, name, default", SPECIFIED)
def test_defaults_of_the_specification(cls: type, name: str, default: Any) -> None:
    (one,) = params.make(cls, values={})
    assert getattr(one, name) == default
    assert type(getattr(one, name)) is type(default)


@pytest.mark.parametrize("cls", CLASSES, ids=name_of)
def test_defaults_pass_their_own_checks(cls: type) -> None:
    one = cls()
    assert params.check(one) is one
    assert params.make(cls, values={}) == [one]


def test_measures_are_those_of_the_specification() -> None:
    names = "coco count cosine jaccard lift pmi conditional bm25 tfidf".split()
    assert [name for name in params.measures() if name in names] == names


def test_a_registered_measure_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys_dask.cooccurrence import measures

    monkeypatch.setitem(measures.MEASURES, "mine", measures.MEASURES["cosine"])
    assert made(params.Lookup, "method", "mine").method == "mine"
    assert made(params.Similar, "measure", "mine").measure == "mine"
    with pytest.raises(UsageError, match="mine"):
        made(params.Lookup, "method", "yours")


# ---------------------------------------------------------------------------------------------------------------- make


def test_values_are_dealt_out() -> None:
    counts, pairs, cluster = params.make(
        params.Counts, params.Pairs, params.Cluster, values={"workers": 3, "top": 7, "rows_high": 9}
    )
    assert counts == params.Counts(top=7)
    assert pairs == params.Pairs(rows_high=9)
    assert cluster == params.Cluster(workers=3)


def test_a_name_that_several_have_goes_to_each() -> None:
    pairs, similar, export = params.make(params.Pairs, params.Similar, params.Export, values={"item": "track"})
    assert (pairs.item, similar.item, export.item) == ("track", "track", "track")


def test_no_class_takes_no_value() -> None:
    assert params.make(values={}) == []
    with pytest.raises(UsageError, match="unknown parameter k"):
        params.make(values={"k": 1})


@pytest.mark.parametrize(
    "name, near",
    [
        ("row_high", ["rows_high"]),
        ("rows_hihg", ["rows_high"]),
        ("mention_over", ["mentions_over"]),
        ("bests", ["best"]),
        ("scoreover", ["score_over"]),
        ("Workers", ["workers"]),
        ("memorylimit", ["memory_limit"]),
        ("min_playlist", ["min_playlists"]),
        ("rows-high", ["rows_high"]),
        ("rows", ["rows_low", "rows_high"]),
    ],
)
def test_an_unknown_name_is_told_with_its_near_matches(name: str, near: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        params.make(params.Pairs, params.Similar, params.Cluster, values={name: 1})
    said = str(caught.value)
    assert said.startswith(f"unknown parameter {name}: did you mean ")
    assert all(one in said for one in near)
    assert caught.value.exit_code == 2


def test_an_unknown_name_like_none_is_told_with_all() -> None:
    with pytest.raises(UsageError) as caught:
        params.make(params.Ingest, params.Counts, values={"zzz": 1})
    names = sorted(field.name for cls in (params.Ingest, params.Counts) for field in dataclasses.fields(cls))
    assert str(caught.value) == f"unknown parameter zzz: known are {', '.join(names)}"


def test_a_name_of_another_command_is_unknown() -> None:
    for cls, field in FIELDS:
        others = {one.name for one in dataclasses.fields(params.Counts)}
        if field.name not in others:
            with pytest.raises(UsageError, match=f"unknown parameter {field.name}"):
                params.make(params.Counts, values={field.name: field.default})
        assert made(cls, field.name, field.default) == cls()


def test_an_unknown_name_comes_before_a_wrong_value() -> None:
    with pytest.raises(UsageError, match="unknown parameter tpo"):
        params.make(params.Counts, values={"top": -1, "tpo": 5})


def test_where_nothing_is_known_nothing_is_listed() -> None:
    """`info` has no parameter at all."""
    with pytest.raises(UsageError) as caught:
        params.make(values={"zzz": 1})
    assert not str(caught.value).rstrip().endswith("are")


# --------------------------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize("cls, field", BOUNDED, ids=name_of)
def test_bounds_are_inclusive(cls: type, field: dataclasses.Field[Any]) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    assert getattr(made(cls, field.name, low), field.name) == low
    below = math.nextafter(low, -math.inf) if isinstance(low, float) else low - 1
    with pytest.raises(UsageError, match=rf"^{params.spelled(field.name)} is {below}: give at least {low:,}"):
        made(cls, field.name, below)
    if high is None:
        assert made(cls, field.name, 10**12)
        return
    assert getattr(made(cls, field.name, high), field.name) == high
    above = math.nextafter(high, math.inf) if isinstance(high, float) else high + 1
    with pytest.raises(UsageError, match=rf"^{params.spelled(field.name)} is {above}: give at most {high:,}"):
        made(cls, field.name, above)


@pytest.mark.parametrize("cls, field", CHOSEN, ids=name_of)
def test_every_choice_is_taken_and_no_other(cls: type, field: dataclasses.Field[Any]) -> None:
    allowed = params.choices(field.metadata["choices"])
    for choice in allowed:
        assert getattr(made(cls, field.name, choice), field.name) == choice
    for other in ("", "nothing of the kind", allowed[0].upper(), f" {allowed[0]}"):
        with pytest.raises(UsageError) as caught:
            made(cls, field.name, other)
        said = str(caught.value)
        assert said.startswith(f"{params.spelled(field.name)} is {other!r}: ")
        assert said.endswith(f" is one of {', '.join(allowed)}")


def test_a_near_choice_is_offered() -> None:
    with pytest.raises(UsageError, match=r"'cosin': did you mean cosine\? It is one of coco, "):
        made(params.Lookup, "method", "cosin")
    with pytest.raises(UsageError, match=r"'xyz': it is one of coco, "):
        made(params.Lookup, "method", "xyz")


WRONG = [
    (params.Counts, "top", "10", "int"),
    (params.Counts, "top", 10.0, "int"),
    (params.Counts, "top", True, "int"),
    (params.Counts, "top", None, "int"),
    (params.Counts, "top", [10], "int"),
    (params.Ingest, "files", 1.5, "int or none"),
    (params.Ingest, "files", False, "int or none"),
    (params.Ingest, "on_bad_file", None, "str"),
    (params.Ingest, "on_bad_file", ["stop"], "str"),
    (params.Pairs, "view", 1, "str or none"),
    (params.Similar, "score_over", "0.004", "float"),
    (params.Similar, "score_over", True, "float"),
    (params.Similar, "score_over", None, "float"),
    (params.Similar, "score_over", 1j, "float"),
    (params.Export, "rows", 1, "bool"),
    (params.Export, "rows", "yes", "bool"),
    (params.Export, "rows", None, "bool"),
    (params.Cluster, "memory_limit", 2_000_000_000, "str or none"),
    (params.Cluster, "memory_limit", b"2GB", "str or none"),
    (params.Sample, "seed", 0.0, "int"),
]


@pytest.mark.parametrize("cls, name, value, wanted", WRONG)
def test_a_wrong_type(cls: type, name: str, value: Any, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(cls, name, value)
    assert str(caught.value) == f"{params.spelled(name)} is {value!r}: give {wanted}"


def test_a_whole_number_is_a_number() -> None:
    assert made(params.Similar, "score_over", 1).score_over == 1
    assert made(params.Sample, "copies", 0).copies == 0


@pytest.mark.parametrize("value", [math.nan, -math.inf, -1e-9])
def test_no_number_is_out_of_range(value: float) -> None:
    with pytest.raises(UsageError, match="--score-over"):
        made(params.Similar, "score_over", value)


def test_none_is_taken_where_it_means_something() -> None:
    for cls, field in FIELDS:
        if field.default is None:
            assert getattr(made(cls, field.name, None), field.name) is None
        else:
            with pytest.raises(UsageError, match=f"^{params.spelled(field.name)} is None: give "):
                made(cls, field.name, None)


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.none(), max_size=1)
    | st.sampled_from([*params.measures(), *params.ITEMS, *params.VIEWS, "stop", "skip", "count", "2GB"])
)


@given(st.sampled_from(FIELDS), ANYTHING)
def test_any_value_is_kept_as_it_is_or_refused(where: tuple[type, dataclasses.Field[Any]], value: Any) -> None:
    """Nothing else is raised, and a refusal names parameter and value in one line."""
    cls, field = where
    try:
        kept = getattr(made(cls, field.name, value), field.name)
    except UsageError as error:
        said = str(error)
        assert said.startswith(f"{params.spelled(field.name)} ")
        assert "\n" not in said
        if field.name not in params.Cluster.REMOTE:  # an address may hold a secret
            assert repr(value) in said or str(value) in said
    else:
        assert kept is value


def test_spelled_as_on_the_command_line() -> None:
    assert params.spelled("rows_high") == "--rows-high"
    assert params.spelled("top") == "--top"
    assert params.spelled("k") == "-k"


# ------------------------------------------------------------------------------------------------------------- cluster

TLS = {"tls_ca_file": "ca.pem", "tls_cert": "cert.pem", "tls_key": "key.pem"}


@pytest.mark.parametrize(
    "values, words",
    [
        ({"scheduler": "10.0.0.1:8786"}, "tcp://host:port"),
        ({"scheduler": "http://10.0.0.1:8786"}, "tcp://host:port"),
        ({"scheduler": "tcp://10.0.0.1"}, "tcp://host:port"),
        ({"scheduler": ""}, "tcp://host:port"),
        ({"scheduler": "tcp://10.0.0.1:8786", "workers": 2}, "--workers"),
        ({"scheduler": "tcp://10.0.0.1:8786", "memory_limit": "2GB"}, "--memory-limit"),
        ({"scheduler": "tls://10.0.0.1:8786", "tls_cert": "cert.pem"}, "--tls-ca-file, --tls-cert and --tls-key"),
        ({"scheduler": "tcp://10.0.0.1:8786", **TLS}, "tls://"),
        ({"workers": 2, **TLS}, "--workers"),
    ],
)
def test_options_of_a_cluster_that_contradict_each_other(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        params.make(params.Cluster, values=values)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"scheduler": "tcp://10.0.0.1:8786"},
        {"scheduler": "tls://scheduler.example:8786", **TLS},
        {"scheduler": "tls://scheduler.example:8786"},
        {"workers": 1, "threads": 4, "memory_limit": "2GB"},
    ],
)
def test_options_of_a_cluster_that_go_together(values: dict[str, Any]) -> None:
    (one,) = params.make(params.Cluster, values=values)
    assert {name: getattr(one, name) for name in values} == values
