"""Item-based neighbours of a store, and what they recommend, against the `implicit` library on the same matrix."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import oracles
import pytest
import strategies
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from scipy.sparse import csr_matrix
from small_playlists import packed
from test_places import playlists

import recsys_dask as rd
from recsys_dask.cooccurrence.matrix import triples
from recsys_dask.models.itemknn import item_knn
from recsys_dask.recommending.opening import scorer
from recsys_dask.store.tables import Store

PEERS = {"cosine": CosineRecommender, "bm25": BM25Recommender, "tfidf": TFIDFRecommender}


class Known(NamedTuple):
    """A store, and the playlists of its view as sets of places and as implicit takes them."""

    store: Store
    sets: list[set[int]]
    matrix: csr_matrix


@pytest.fixture(scope="module", params=["artist", "track"])
def known(request, tmp_path_factory) -> tuple[str, Known]:
    item = request.param
    folder = tmp_path_factory.mktemp("implicit")
    return item, made(folder, item)


def made(folder: Path, item: str) -> Known:
    paths = strategies.write_slices(folder / "slices", playlists(120), 2)
    rd.ingest(folder / "slices", folder / "store")
    rd.counts(folder / "store")
    rd.pairs(folder / "store", item=item, view="full")
    store, data = Store.open(str(folder / "store")), oracles.read(paths)
    place = {code: at for at, code in enumerate(oracles.view_items(data, item, "full"))}
    sets = [{place[code] for code in codes} for _, codes in oracles.view_playlists(data, item, "full")]
    lists = packed([(one, set()) for one in sets])
    matrix = csr_matrix((np.ones(len(lists.items)), lists.items, lists.starts), (len(sets), len(place)))
    assert matrix.shape[1] > 40 and matrix.shape[0] > 100
    return Known(store, sets, matrix)


@pytest.mark.filterwarnings("ignore:Method expects CSR")  # said of its own weighting
@pytest.mark.parametrize("measure", PEERS)
def test_similarities_and_recommendations_are_those_of_implicit(known, measure: str) -> None:
    item, (store, sets, matrix) = known
    n_items = matrix.shape[1]
    peer = PEERS[measure](K=n_items, num_threads=1)
    peer.fit(matrix, show_progress=False)
    wanted = peer.similarity.toarray()
    np.fill_diagonal(wanted, 0)
    assert (wanted > 0).sum() > 500

    first, second, value = triples(store, item, measure)
    found = np.zeros((n_items, n_items))
    found[first, second] = value
    assert len(np.unique(first.astype(np.int64) * n_items + second)) == len(first)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)

    ours = scorer(store, item, measure)
    assert np.array_equal(ours.similarity, item_knn(first, second, value, n_items).similarity)
    scores = ours.scores(packed([(one, set()) for one in sets]))
    places, theirs = peer.recommend(np.arange(len(sets)), matrix, N=n_items, filter_already_liked_items=True)
    for u, one in enumerate(sets):
        real = (places[u] >= 0) & (theirs[u] > 0) & ~np.isin(places[u], list(one))
        assert real.sum() == (np.delete(scores[u], list(one)) > 0).sum()
        np.testing.assert_allclose(scores[u, places[u][real]], theirs[u][real], rtol=1e-5)
