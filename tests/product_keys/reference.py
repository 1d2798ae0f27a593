"""A product-key memory one number at a time: no search by halves, nothing batched, nothing from `attn`."""

from math import exp, sqrt


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def slot_scores(query, sub_keys):
    """Score of every slot for one query [E] and two codebooks [2, n, E / 2]."""
    half = len(query) // 2
    left, right = sub_keys
    return [dot(query[:half], a) + dot(query[half:], b) for a in left for b in right]


def best(scores, topk):
    """The k highest scores and their places, highest first."""
    places = sorted(range(len(scores)), key=lambda i: -scores[i])[:topk]
    return [scores[i] for i in places], places


def softmax(scores):
    powers = [exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def normalise(rows, mean, variance, scale, shift, eps=1e-5):
    """Batch norm of rows, with given statistics or, where they are None, those of the rows."""
    columns = list(zip(*rows, strict=True))
    mean = [sum(c) / len(c) for c in columns] if mean is None else mean
    if variance is None:
        variance = [sum((x - m) ** 2 for x in c) / len(c) for c, m in zip(columns, mean, strict=True)]
    return [
        [
            (x - m) / sqrt(v + eps) * s + b
            for x, m, v, s, b in zip(row, mean, variance, scale, shift, strict=True)
        ]
        for row in rows
    ]


def read(queries, sub_keys, values, topk):
    """Output for one position: queries [H, E], sub-keys [H, 2, n, E / 2], values [K, V]."""
    output = [0.0] * len(values[0])
    for query, codebooks in zip(queries, sub_keys, strict=True):
        scores, slots = best(slot_scores(query, codebooks), topk)
        for weight, slot in zip(softmax(scores), slots, strict=True):
            output = [o + weight * v for o, v in zip(output, values[slot], strict=True)]
    return output
