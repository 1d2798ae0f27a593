"""LSH attention one pair of tokens at a time: the sets of arXiv:2001.04451, Sec. 2, as plain loops.

Vectors are lists of floats; nothing is batched and nothing comes from `attn.lsh`. Where that computes a softmax
a round and joins the rounds by their normalisers, here all rounds' pairs are collected first: one softmax over them.
"""

from collections import Counter
from itertools import product
from math import exp, sqrt


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def unit(vector):
    return [x / sqrt(dot(vector, vector)) for x in vector]


def hash_vector(vector, rotations):
    """argmax [x R; -x R], several rotations being digits of a number; a rotation is a list of E rows."""
    bucket, place = 0, 1
    for rotation in rotations:
        rotated = [dot(vector, column) for column in zip(*rotation, strict=True)]
        both = rotated + [-x for x in rotated]
        bucket += place * both.index(max(both))
        place *= len(both)
    return bucket


def sorted_chunks(buckets, is_token, chunk_len):
    """Positions of the tokens by bucket and position, in chunks; None in the places of padding."""
    tokens = [i for i in range(len(buckets)) if is_token[i]]
    places = sorted(tokens, key=lambda i: (buckets[i], i))
    places += [None] * (len(buckets) - len(places))
    places += [None] * (-len(places) % chunk_len)
    return [places[start : start + chunk_len] for start in range(0, len(places), chunk_len)]


def pairs_met(rounds, is_token, chunk_len, is_causal, same_bucket, count_once, wrap):
    """How often each query i meets each key j, itself left out: {i: Counter of j}; `rounds` holds lists of buckets."""
    met = {i: Counter() for i, there in enumerate(is_token) if there}
    chunks = [sorted_chunks(buckets, is_token, chunk_len) for buckets in rounds]
    for r, buckets in enumerate(rounds):
        for c, chunk in enumerate(chunks[r]):
            seen = list(chunk)
            if c:
                seen += chunks[r][c - 1]
            elif wrap and not same_bucket:  # no bucket of one round is a bucket of another
                seen += chunks[r - 1][-1]
            for i, j in product(chunk, seen):
                if i is None or j is None or i == j or (is_causal and j > i):
                    continue
                if same_bucket and buckets[i] != buckets[j]:
                    continue
                met[i][j] += 1
    return {i: Counter(dict.fromkeys(js, 1)) if count_once else js for i, js in met.items()}


def attention(queries, values, met, scale=1.0):
    """Outputs of one head: softmax over what each query has met, or its own value where that is nothing."""
    outputs = [[0.0] * len(values[0]) for _ in queries]
    for i, counts in met.items():
        powers = {j: n * exp(scale * dot(queries[i], unit(queries[j]))) for j, n in counts.items()} or {
            i: 1.0
        }
        for j, power in powers.items():
            weight = power / sum(powers.values())
            outputs[i] = [o + weight * v for o, v in zip(outputs[i], values[j], strict=True)]
    return outputs
