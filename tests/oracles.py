"""The slow, obvious version of every result: json.load, loops, counters, and for recommenders numpy.linalg. Imports
nothing from the package.

Tables are lists of dicts, columns in the order of the specification; pairs are dicts of tuples. `data` is
always what `read` gives: playlists as JSON has them. An item is its code, its place in `artists` or `tracks`.
"""

import gzip
import json
import math
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import combinations, groupby

import numpy as np

UNIT = 2**30
"""Weights are whole numbers of 2⁻³⁰."""


def read(paths):
    """The playlists of some slices, .json or .json.gz, in the order of the files."""
    data = []
    for path in paths:
        opened = gzip.open if str(path).endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8") as file:
            data.extend(json.load(file)["playlists"])
    return data


def bare(uri):
    """spotify:artist:XYZ -> XYZ; None stays None."""
    return None if uri is None else uri.split(":")[2]


# --- the tables of an ingest


def playlists(data):
    truth = {"true": True, "false": False, None: None}
    return [
        {
            "pid": playlist["pid"],
            "name": playlist.get("name"),
            "num_tracks": playlist["num_tracks"],
            "n_entries": len(playlist["tracks"]),
            "n_followers": playlist.get("num_followers"),
            "modified_at": playlist.get("modified_at"),
            "collaborative": truth[playlist.get("collaborative")],
        }
        for playlist in sorted(data, key=lambda playlist: playlist["pid"])
    ]


def entries(data):
    """(playlist, entry) by pid, then pos, then place in the list."""
    for playlist in sorted(data, key=lambda playlist: playlist["pid"]):
        for entry in sorted(playlist["tracks"], key=lambda entry: entry["pos"]):
            yield playlist, entry


def _tallied(data, field):
    """(id, first entry, mentions, distinct playlists) of each id in `field`: by falling mentions, then id."""
    first, mentions, holders = {}, Counter(), defaultdict(set)
    for playlist, entry in entries(data):
        id = bare(entry[field])
        first.setdefault(id, entry)
        mentions[id] += 1
        holders[id].add(playlist["pid"])
    order = sorted(mentions, key=lambda id: (-mentions[id], id.encode()))
    return [(id, first[id], mentions[id], len(holders[id])) for id in order]


def artists(data):
    return [
        {
            "artist": code,
            "artist_id": id,
            "artist_name": entry["artist_name"],
            "n_mentions": n_mentions,
            "n_playlists": n_playlists,
        }
        for code, (id, entry, n_mentions, n_playlists) in enumerate(_tallied(data, "artist_uri"))
    ]


def tracks(data):
    artist_codes = codes(data, "artist")
    return [
        {
            "track": code,
            "track_id": id,
            "track_name": entry["track_name"],
            "artist": artist_codes[bare(entry["artist_uri"])],
            "album_id": bare(entry.get("album_uri")),
            "duration_ms": entry.get("duration_ms"),
            "n_mentions": n_mentions,
            "n_playlists": n_playlists,
        }
        for code, (id, entry, n_mentions, n_playlists) in enumerate(_tallied(data, "track_uri"))
    ]


def table(data, item):
    """`artists` or `tracks`."""
    return {"artist": artists, "track": tracks}[item](data)


def ids(data, item):
    """The id of every code."""
    return [row[f"{item}_id"] for row in table(data, item)]


def codes(data, item):
    """The code of every id."""
    return {id: code for code, id in enumerate(ids(data, item))}


def rows(data):
    artist_codes, track_codes = codes(data, "artist"), codes(data, "track")
    return [
        {
            "pid": playlist["pid"],
            "pos": entry["pos"],
            "artist": artist_codes[bare(entry["artist_uri"])],
            "track": track_codes[bare(entry["track_uri"])],
        }
        for playlist, entry in entries(data)
    ]


def popular(data, item, top=10_000):
    return table(data, item)[:top]


# --- the two views


def view_items(
    data,
    item,
    view,
    top=10_000,
    mentions_over=None,
    mentions_per_million=10_000,
    min_playlists=5,
):
    """The codes of a view's items, sorted."""

    def often_enough(n_mentions):
        if mentions_over is not None:
            return n_mentions > mentions_over
        return n_mentions * 1_000_000 > mentions_per_million * len(data)

    if view == "article":
        return [row[item] for row in popular(data, item, top) if often_enough(row["n_mentions"])]
    if item == "artist":
        return [row[item] for row in popular(data, item, top)]
    return [row[item] for row in tracks(data) if row["n_playlists"] >= min_playlists]


def view_playlists(data, item, view, min_tracks=5, rows_low=5, rows_high=30, **which_items):
    """(pid, sorted distinct items) of every playlist that a view keeps, by pid.

    One without any item is never kept. `which_items` goes to `view_items`.
    """
    wanted, code = set(view_items(data, item, view, **which_items)), codes(data, item)
    kept = []
    for playlist in sorted(data, key=lambda playlist: playlist["pid"]):
        found = [code[bare(entry[f"{item}_uri"])] for entry in playlist["tracks"]]
        found = [one for one in found if one in wanted]
        if view == "article":
            if not playlist["num_tracks"] > min_tracks:
                continue
            if not rows_low <= len(found) <= rows_high:
                continue
        if found:
            kept.append((playlist["pid"], sorted(set(found))))
    return kept


# --- pairs


def _shares(n_u, n_items):
    """What one playlist of `n_u` distinct items adds: 1 and, where `n_items` is known, both weights."""
    if n_items is None:
        return (1,)
    idf = math.log(n_items) - math.log1p(n_u)
    return (1, round(UNIT / math.sqrt(n_u)), round(UNIT * idf**2))


def _summed(shares):
    """(key, tuple) pairs -> the tuples' sum by key, sorted by key."""
    sums = {}
    for key, share in shares:
        sums[key] = tuple(a + b for a, b in zip(sums.get(key, (0,) * len(share)), share, strict=True))
    return dict(sorted(sums.items()))


def pairs(view_playlists, weighted=False, n_items=None):
    """(item1, item2) -> (n_playlists,) or, weighted, (n_playlists, weight, idf_weight); item1 < item2.

    `n_items`: how many items the view has, `len(view_items(…))`; needed for the weights only.
    """
    assert not weighted or n_items is not None
    return _summed(
        (pair, _shares(len(items), n_items if weighted else None))
        for _, items in view_playlists
        for pair in combinations(items, 2)
    )


def pair_items(view_playlists, weighted=False, n_items=None):
    """item -> (n_playlists, pair_total) or, weighted, (n_playlists, pair_total, weight, idf_weight).

    The items that occur in some playlist of the view, also those that share none.
    """
    assert not weighted or n_items is not None
    diagonal = _summed(
        (item, _shares(len(items), n_items if weighted else None)) for _, items in view_playlists for item in items
    )
    pair_total = Counter()
    for (item1, item2), (count, *_) in pairs(view_playlists).items():
        pair_total[item1] += count
        pair_total[item2] += count
    return {item: (n, pair_total[item], *weights) for item, (n, *weights) in diagonal.items()}


# --- similar items


def score(method, pair, a, b, n_playlists=None, mean_n=None):
    """How similar `b` is to the seed `a`: a row of `pairs` and two of `pair_items`.

    n_playlists: of the view (lift, pmi); mean_n: mean n_playlists of the view's items (bm25).
    """
    count, n_a, n_b = pair[0], a[0], b[0]
    if method == "coco":
        return count / (a[1] + b[1])
    if method == "count":
        return float(count)
    if method == "cosine":
        return count / math.sqrt(n_a * n_b)
    if method == "jaccard":
        return count / (n_a + n_b - count)
    if method == "lift":
        return count * n_playlists / (n_a * n_b)
    if method == "pmi":
        return math.log(count * n_playlists / (n_a * n_b))
    if method == "conditional":
        return count / n_a
    if method == "bm25":  # the BM25Recommender of implicit with its K1=1.2, B=0.75, on a matrix of ones
        f_a, f_b = (2.2 / (1.2 * (0.25 + 0.75 * n / mean_n) + 1) for n in (n_a, n_b))
        return f_a * f_b * (pair[2] / UNIT)
    if method == "tfidf":  # implicit's normalize(tfidf_weight(…)): a cosine of vectors of idf
        both = math.sqrt(a[3] * b[3])
        return pair[2] / both if both else 0.0
    raise ValueError(method)


def similar(pairs, pair_items, ids, method, best=20, threshold=None, n_playlists=None, n_items=None):
    """item, rank, neighbour, score: the `best` of each item, best first, ties by the neighbour's id.

    pairs, pair_items: of one view; ids: of every code; threshold: keep scores above it; n_playlists: of the
    view (lift and pmi); n_items: of the view, unless every one of them occurs in it (bm25).
    """
    mean_n = sum(n for n, *_ in pair_items.values()) / (n_items or len(pair_items) or 1)
    neighbours = defaultdict(list)
    for (item1, item2), pair in pairs.items():
        for seed, other in ((item1, item2), (item2, item1)):
            value = score(method, pair, pair_items[seed], pair_items[other], n_playlists, mean_n)
            if threshold is None or value > threshold:
                neighbours[seed].append((-value, ids[other].encode(), other))
    return [
        {"item": item, "rank": rank, "neighbour": other, "score": -negative}
        for item in sorted(neighbours)
        for rank, (negative, _, other) in enumerate(sorted(neighbours[item])[:best], start=1)
    ]


# --- exports


def similarity_file(similar_rows, ids):
    """The lines `seed similar1 similar2 …`, without line ends, in the order of the items."""
    return [
        " ".join([ids[item], *(ids[row["neighbour"]] for row in group)])
        for item, group in groupby(similar_rows, key=lambda row: row["item"])
    ]


def pairs_csv(pairs, pair_items, ids):
    both_ways = [
        {
            "item1": ids[one],
            "item2": ids[other],
            "count": pair[0],
            "normalised_count": score("coco", pair, pair_items[one], pair_items[other]),
        }
        for (item1, item2), pair in pairs.items()
        for one, other in ((item1, item2), (item2, item1))
    ]
    return sorted(both_ways, key=lambda row: (row["item1"].encode(), row["item2"].encode()))


def artist_counts_csv(artists):
    return [
        {
            "artist_uri": row["artist_id"],
            "count": row["n_mentions"],
            "n_playlists": row["n_playlists"],
            "artist_name": row["artist_name"],
        }
        for row in artists
    ]


def row_table(data, top=10_000, min_tracks=5):
    """The article's rows: playlists with num_tracks above `min_tracks`, `top` artists only; by pid, pos."""
    artist_names = {row["artist_id"]: row["artist_name"] for row in popular(data, "artist", top)}
    track_names = {row["track_id"]: row["track_name"] for row in tracks(data)}
    return [
        {
            "pid": playlist["pid"],
            "artist_name": artist_names[bare(entry["artist_uri"])],
            "artist_uri": bare(entry["artist_uri"]),
            "track_name": track_names[bare(entry["track_uri"])],
            "track_uri": bare(entry["track_uri"]),
        }
        for playlist, entry in entries(data)
        if playlist["num_tracks"] > min_tracks and bare(entry["artist_uri"]) in artist_names
    ]


# --- neighbours


def similarity(a, b, metric):
    """Of two vectors, as lists of numbers; a zero vector's cosine is 0."""
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    if metric == "dot":
        return dot
    if metric == "euclidean":
        return -math.dist(a, b)
    both = math.hypot(*a) * math.hypot(*b)
    return dot / both if both else 0.0


def nearest(vectors, queries, k, metric, rank):
    """[(place, score)] for each query, (own place or None, vector): best first, equal scores by `rank`."""
    lists = []
    for own, query in queries:
        scored = [(i, similarity(query, vector, metric)) for i, vector in enumerate(vectors) if i != own]
        lists.append(sorted(scored, key=lambda pair: (-pair[1], rank[pair[0]]))[:k])
    return lists


# --- metrics: of one playlist, a list of items, best first, and the set of those that it hides


def top_k(scores, seen, k, allowed=None):
    """The k best places of a list of scores, without those in the set `seen`; equal scores by place."""
    ranked = [
        (-score, place)
        for place, score in enumerate(scores)
        if place not in seen and (allowed is None or allowed[place]) and score == score and score != -math.inf
    ]
    return [place for _, place in sorted(ranked)[:k]]


def r_precision(ranked, hidden, artist_of=None):
    """NaN without hidden ones; a quarter for an artist that is right where none of its tracks is."""
    if not hidden:
        return math.nan
    read = set(ranked[: len(hidden)])
    found = read & hidden
    if artist_of is None:
        return len(found) / len(hidden)
    nearly = {artist_of[one] for one in read - found} & {artist_of[one] for one in hidden}
    nearly -= {artist_of[one] for one in found}
    return (len(found) + len(nearly) / 4) / len(hidden)


def ndcg(ranked, hidden, k):
    if not hidden:
        return math.nan
    gain = sum(1 / math.log2(rank + 1) for rank, one in enumerate(ranked[:k], start=1) if one in hidden)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(hidden)) + 1))


def recall(ranked, hidden, k):
    return len(hidden.intersection(ranked[:k])) / len(hidden) if hidden else math.nan


def precision(ranked, hidden, k):
    return len(hidden.intersection(ranked[:k])) / k if hidden else math.nan


def average_precision(ranked, hidden, k):
    if not hidden:
        return math.nan
    ranks_of_hits = [rank for rank, one in enumerate(ranked[:k], start=1) if one in hidden]
    return sum(precision(ranked, hidden, rank) for rank in ranks_of_hits) / min(k, len(hidden))


def reciprocal_rank(ranked, hidden, k):
    if not hidden:
        return math.nan
    return next((1 / rank for rank, one in enumerate(ranked[:k], start=1) if one in hidden), 0.0)


def clicks(ranked, hidden, k=500):
    """How often ten more are asked for."""
    if not hidden:
        return math.nan
    pages = [ranked[:k][start : start + 10] for start in range(0, k, 10)]
    return next((n for n, page in enumerate(pages) if hidden.intersection(page)), len(pages) + 1)


def popularity(ranked, n_playlists, total, k):
    shares = [n_playlists[one] / total for one in ranked[:k]]
    return sum(shares) / len(shares) if shares else math.nan


def novelty(ranked, n_playlists, total, k):
    bits = [math.log2(total / n_playlists[one]) if n_playlists[one] else math.log2(total + 1) for one in ranked[:k]]
    return sum(bits) / len(bits) if bits else math.nan


def diversity(ranked, vectors, k):
    """1 - the mean cosine of the pairs."""
    cosines = [similarity(vectors[one], vectors[other], "cosine") for one, other in combinations(ranked[:k], 2)]
    return 1 - sum(cosines) / len(cosines) if cosines else math.nan


def coverage(lists, n_items, k):
    return len({one for ranked in lists for one in ranked[:k]}) / n_items


def bootstrap_means(values, samples, rng):
    """Means of as many values, drawn with replacement; `rng` is a random.Random."""
    return [math.fsum(rng.choices(values, k=len(values))) / len(values) for _ in range(samples)]


# --- hold-out


def near_duplicates(sets, limit):
    """[(place of the first earlier kept set with Jaccard above `limit`, Jaccard)], (-1, 0.0) for a kept one.

    limit: to nine decimals, as it is written
    """
    limit = Fraction(str(round(limit, 9)))
    kept, found = [], []
    for place, one in enumerate(sets):
        for other in kept:
            jaccard = Fraction(len(one & sets[other]), len(one | sets[other]) or 1)
            if jaccard > limit:
                found.append((other, float(jaccard)))
                break
        else:
            kept.append(place)
            found.append((-1, 0.0))
    return found


def tally(playlists):
    """[(code, mentions, playlists, lowest pid, artist of the first entry there)] of {pid: [(code, artist)]}."""
    mentions, holders, first = Counter(), defaultdict(set), {}
    for pid in sorted(playlists):
        for code, artist in playlists[pid]:
            mentions[code] += 1
            holders[code].add(pid)
            first.setdefault(code, (pid, artist))
    return [(code, mentions[code], len(holders[code]), *first[code]) for code in sorted(mentions)]


# --- recommenders: playlists are (set of items, set of further inputs); weights are dense, float64


def dense(playlists, n_items, extras=()):
    """0 and 1: a row a playlist, a column an item and then one of each further input in `extras`."""
    rows = np.zeros((len(playlists), n_items + len(extras)))
    for row, (items, further) in zip(rows, playlists, strict=True):
        for item in items:
            row[item] = 1
        for place, extra in enumerate(extras):
            row[n_items + place] = extra in further
    return rows


def ridge_regression(x, y, weight, ridge):
    """b that minimises Σ_u weight_u·(y_u − x_u·b)² + Σ_i ridge_i·b_i²."""
    return np.linalg.solve(x.T @ (weight[:, None] * x) + np.diag(ridge), x.T @ (weight * y))


def ease(playlists, n_items, ridge):
    """(n_items, n_items): column j regressed on all others."""
    x, weights = dense(playlists, n_items), np.zeros((n_items, n_items))
    for j in range(n_items):
        others = [i for i in range(n_items) if i != j]
        weights[others, j] = ridge_regression(x[:, others], x[:, j], np.ones(len(x)), np.full(len(others), ridge))
    return weights


def linear(playlists, n_items, owner, extras, ridge, kappa, delta, owned, other):
    """(inputs, n_items): item j regressed on all inputs, and on those that are neither j nor its own, mixed by kappa.

    extras: the further inputs that are used; the weights of j and of its own stay, a playlist without j ignores them
    """
    z = dense(playlists, n_items, extras)
    held = [sum(j in items for items, _ in playlists) for j in range(n_items)]
    popularity, mean = [max(n, 1) for n in held], max(sum(held), 1) / n_items
    ridges = [ridge * math.sqrt(popularity[j] / mean) for j in range(n_items)]
    ridges = np.array(ridges + [owned if owner[one] >= 0 else other for one in extras])
    roots = [math.sqrt(max(len(items), 1)) for items, _ in playlists]
    weight = np.array([sum(roots) / len(roots) / root for root in roots])
    weights = np.zeros((z.shape[1], n_items))
    for j in range(n_items):
        own = {j, *(n_items + place for place, one in enumerate(extras) if owner[one] == j)}
        others = [i for i in range(z.shape[1]) if i not in own]
        weights[:, j] = (1 - kappa) * ridge_regression(z, z[:, j], weight, ridges)
        weights[others, j] += kappa * ridge_regression(z[:, others], z[:, j], weight, ridges[others])
        weights[:, j] *= popularity[j] ** -delta
    return weights


def als_side(q, lists, unseen, ridge, n_others):
    """The minimiser p of each list J: Σ_J (1 − p·q_j)² + unseen·Σ_all (p·q_j)² + ridge·(|J| + unseen·n_others)·|p|²."""
    solved = []
    for one in lists:
        matrix = unseen * (q.T @ q) + ridge * (len(one) + unseen * n_others) * np.eye(q.shape[1])
        right = np.zeros(q.shape[1])
        for j in one:
            matrix += np.outer(q[j], q[j])
            right += q[j]
        solved.append(np.linalg.solve(matrix, right))
    return np.array(solved).reshape(-1, q.shape[1])


def als_sweep(q, playlists, n_items, extras, unseen, ridge):
    """The playlists' vectors by those of the inputs, and then those by them."""
    z = dense(playlists, n_items, extras)
    p = als_side(q, [np.flatnonzero(row) for row in z], unseen, ridge, n_items)
    return als_side(p, [np.flatnonzero(column) for column in z.T], unseen, ridge, len(playlists))


def standardised(scores, seen):
    """A playlist's scores over what it lacks: mean 0, deviation 1, all 0 where they are equal; None in `seen`."""
    unseen = [score for item, score in enumerate(scores) if item not in seen]
    if not unseen:
        return [None] * len(scores)
    mean = math.fsum(unseen) / len(unseen)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in unseen) / len(unseen))
    if max(unseen) == min(unseen):
        deviation = math.inf
    return [None if item in seen else (score - mean) / deviation for item, score in enumerate(scores)]


def item_knn(similar, items, n_items):
    """Each candidate's sum over a playlist's items; similar: {(item, neighbour): similarity}."""
    return [sum(max(similar.get((item, one), 0), 0) for item in items) for one in range(n_items)]
