"""Adaptive-span and all-attention one number at a time: arXiv:1905.07799, Sec. 2, and arXiv:1907.01470 as plain loops.

Vectors are lists of floats, matrices lists of rows; nothing is batched and nothing comes from `attn`.
"""

from math import exp, sqrt


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def project(weight, rows):
    return [[dot(w, row) for w in weight] for row in rows]


def soft_mask(distance, span, ramp):
    return min(max((ramp + span - distance) / ramp, 0.0), 1.0)


def attention(queries, keys, values, positions, span, ramp, fixed_keys=(), fixed_values=()):
    """One head: outputs, weights on the keys and weights on the persistent keys, a row for every query.

    The last query stands at the last key. `positions[x - 1]` belongs to distance x; `span(t)` is z of query t.
    """
    before = len(keys) - len(queries)
    outputs, weights, fixed_weights = [], [], []
    for t, query in enumerate(queries):
        scale = 1 / sqrt(len(query))
        powers = []
        for r, key in enumerate(keys):
            distance = before + t - r
            power = 0.0
            if 1 <= distance <= len(positions):
                moved = [a + b for a, b in zip(key, positions[distance - 1], strict=True)]
                power = soft_mask(distance, span(t), ramp) * exp(scale * dot(query, moved))
            powers.append(power)
        fixed = [exp(scale * dot(query, key)) for key in fixed_keys]
        total = sum(powers) + sum(fixed)
        weights.append([power / total if total else 0.0 for power in powers])
        fixed_weights.append([power / total for power in fixed])
        pairs = [*zip(weights[-1], values, strict=True), *zip(fixed_weights[-1], fixed_values, strict=True)]
        outputs.append([sum(weight * value[j] for weight, value in pairs) for j in range(len(query))])
    return outputs, weights, fixed_weights


def sub_layer(memory, length, query, key, value, output, n_heads, positions, spans, ramp, fixed=None):
    """The sub-layer for the last `length` rows of `memory`.

    Weights are matrices with a row for each output; `spans[h](t)` is z, `fixed[h]` a pair of keys and values.
    """
    queries, keys, values = project(query, memory[-length:]), project(key, memory), project(value, memory)
    width = len(query) // n_heads
    joined = [[] for _ in range(length)]
    for h in range(n_heads):
        part = slice(h * width, (h + 1) * width)
        own = ([row[part] for row in side] for side in (queries, keys, values))
        outputs, *_ = attention(*own, positions, spans[h], ramp, *(fixed[h] if fixed else ()))
        joined = [row + more for row, more in zip(joined, outputs, strict=True)]
    return project(output, joined)
