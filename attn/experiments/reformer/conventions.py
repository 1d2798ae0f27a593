"""What reformer-pytorch's conventions change: what a token knows of the future, and how near to full attention it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from attn.lsh import default_buckets, hash_vectors, lsh_attention, random_rotations
from attn.lsh_convention import PAPER, PUBLIC, Convention
from attn.shared_qk import shared_qk_attention, unit

CONVENTIONS: Mapping[str, Convention] = {
    "the paper's definition": PAPER,
    "all buckets of the window": PAPER._replace(same_bucket=False),
    "reformer-pytorch": PUBLIC,
}


class Leak(NamedTuple):
    """How much of the past a change of the last token moves, over draws."""

    convention: str
    least: float  # share of earlier tokens whose output changes
    most: float


def leaks(
    *,
    length: int = 256,
    chunk_len: int = 16,
    n_rounds: int = 4,
    buckets_per_chunk: float = 2.0,
    draws: int = 5,
) -> list[Leak]:
    """Share of earlier outputs that change with the last token, though attention is causal, by convention.

    The last query is drawn anew, and with it its bucket: the tokens sorted behind it move by a place. Where a token may
    look at all of its window, what it sees then changes too.

    Args:
        length: T.
        chunk_len: m.
        n_rounds: R.
        buckets_per_chunk: 2 in the paper; 1 in reformer-pytorch.
        draws: of queries, values and rotations.
    """
    found = []
    for name, convention in CONVENTIONS.items():
        shares = [
            _leak(convention, length, chunk_len, n_rounds, buckets_per_chunk, draw) for draw in range(draws)
        ]
        found.append(Leak(name, min(shares), max(shares)))
    return found


def _leak(
    convention: Convention, length: int, chunk_len: int, n_rounds: int, buckets_per_chunk: float, seed: int
) -> float:
    generator = torch.Generator().manual_seed(seed)
    query, value = torch.randn(2, 1, 1, length, 16, generator=generator, dtype=torch.float64)
    n_buckets = default_buckets(length, round(2 * chunk_len / buckets_per_chunk))
    rotations = random_rotations(n_buckets, n_rounds=n_rounds, n_heads=1, head_dim=16, generator=generator)
    outputs = []
    for last in (query[:, :, -1], torch.randn(1, 1, 16, generator=generator, dtype=torch.float64)):
        changed = torch.cat([query[:, :, :-1], last.unsqueeze(2)], dim=2)
        buckets = hash_vectors(changed, rotations)
        outputs.append(
            lsh_attention(
                changed, value, buckets, chunk_len=chunk_len, is_causal=True, convention=convention
            )[0, 0, :-1]
        )
    moved = (outputs[0] - outputs[1]).abs().amax(-1) > 1e-9
    return float(moved.double().mean())


# --- beside full attention ---------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """How near one convention comes to full attention, mean over draws."""

    n_rounds: int
    convention: str
    seen: float  # share of full attention's weight on pairs that are seen
    error: float  # length of the output's difference from full attention's, over the length of the values


def differences(
    rounds: Sequence[int] = (1, 2, 4, 8),
    *,
    length: int = 256,
    chunk_len: int = 16,
    scale: float = 8.0,
    draws: int = 5,
) -> list[Difference]:
    """The paper's definition and reformer-pytorch's on the same queries, values and buckets, causal.

    Args:
        rounds: numbers of hash rounds.
        length: T.
        chunk_len: m; buckets are twice as many as chunks.
        scale: length of the queries.
        draws: of queries, values and rotations.
    """
    found = []
    for n_rounds in rounds:
        for name in ("the paper's definition", "reformer-pytorch"):
            pairs = [
                _nearness(CONVENTIONS[name], n_rounds, length, chunk_len, scale, draw)
                for draw in range(draws)
            ]
            seen, error = (sum(values) / draws for values in zip(*pairs, strict=True))
            found.append(Difference(n_rounds, name, seen, error))
    return found


def _nearness(
    convention: Convention, n_rounds: int, length: int, chunk_len: int, scale: float, seed: int
) -> tuple[float, float]:
    """Weight seen and error of the output, for one draw."""
    generator = torch.Generator().manual_seed(seed)
    query, value = torch.randn(2, 1, 1, length, 16, generator=generator, dtype=torch.float64)
    query, identity = scale * unit(query), torch.eye(length, dtype=torch.float64)[None, None]
    n_buckets = default_buckets(length, chunk_len)
    rotations = random_rotations(n_buckets, n_rounds=n_rounds, n_heads=1, head_dim=16, generator=generator)
    settings = {"chunk_len": chunk_len, "is_causal": True, "convention": convention}
    hashed = lsh_attention(query, identity, hash_vectors(query, rotations), **settings)
    full = shared_qk_attention(query, identity, is_causal=True)
    error = (hashed @ value - full @ value).norm() / value.norm()
    return float((full * (hashed > 0)).sum() / length), float(error)
