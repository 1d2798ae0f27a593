"""Attention one number at a time: the sums of arXiv:1706.03762, Sec. 3.2, as plain loops.

Vectors are lists of floats, matrices lists of rows; nothing is batched and nothing comes from `attn.attention`.
"""

from math import exp, sqrt


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def attention(queries, keys, values, allowed, scale=None):
    """Eq. 1 for one head: outputs and weights; `allowed(t, s)` says whether query t may attend to key s."""
    outputs, all_weights = [], []
    for t, query in enumerate(queries):
        scale_ = 1 / sqrt(len(query)) if scale is None else scale
        powers = [exp(dot(query, key) * scale_) if allowed(t, s) else 0.0 for s, key in enumerate(keys)]
        weights = [power / sum(powers) if sum(powers) else 0.0 for power in powers]
        width = len(values[0])
        outputs.append([sum(w * v[j] for w, v in zip(weights, values, strict=True)) for j in range(width)])
        all_weights.append(weights)
    return outputs, all_weights


def affine(weight, bias, rows):
    return [[dot(w, row) + b for w, b in zip(weight, bias, strict=True)] for row in rows]


def multi_head(queries, memory, heads, output_weight, output_bias, allowed):
    """Sec. 3.2.2: `heads` holds a (query, key, value) triple of (weight, bias) for every head."""
    joined = [[] for _ in queries]
    for query, key, value in heads:
        outputs, _ = attention(affine(*query, queries), affine(*key, memory), affine(*value, memory), allowed)
        joined = [row + more for row, more in zip(joined, outputs, strict=True)]
    return affine(output_weight, output_bias, joined)
