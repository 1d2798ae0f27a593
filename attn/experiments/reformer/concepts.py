"""What the chapter computes to show: how many keys hold the weight, hashing on a circle, which pairs meet, weight kept
over rounds, memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attn.data.duplication import DuplicationTask
from attn.experiments.reformer.runs import PAPER
from attn.language_model import LanguageModel
from attn.lsh import default_buckets, hash_vectors, lsh_attention, random_rotations, sort_by_bucket
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record, load_records
from attn.shared_qk import full_attention, shared_qk_attention, unit

GIB = 2**30
FLOAT32 = 4  # bytes


def stated(quantity: str) -> float:
    """A number in the paper's text, by its name in the facts' table of them."""
    (value,) = (
        row["value"]
        for row in load_papers()[PAPER].table("numbers_in_text").rows
        if row["quantity"] == quantity
    )
    return value


def few_keys() -> tuple[int, int]:
    """How many of the closest keys could do for a query, as the paper reckons: at the least and at the most."""
    least, most = (
        stated(f"closest keys of 64K that could do for a query, at the {end}") for end in ("least", "most")
    )
    return least, most


# --- how many keys hold the weight ------------------------------------------------------------------------------

COUNTS = tuple(2**n for n in range(17))  # numbers of keys, up to the paper's 64 thousand


def largest(weights: Tensor, counts: Sequence[int] = COUNTS) -> Tensor:
    """Share of the weight that the largest terms of each row hold.

    Args:
        weights: rows of a softmax [..., S].
        counts: numbers of terms, each at most S.

    Returns:
        [..., counts].
    """
    held = weights.double().sort(-1, descending=True).values.cumsum(-1)
    return held[..., torch.tensor(counts) - 1]


class Random(NamedTuple):
    """Queries of one length among random keys of length 1."""

    length: float
    spread: float  # standard deviation of a query's scores
    shares: np.ndarray  # on the `COUNTS` largest keys [queries, counts]


def random_queries(
    lengths: Sequence[float] = (8, 16, 32, 48), *, n_keys: int = COUNTS[-1], head_dim: int = 64,
    n_queries: int = 16, seed: int = 0,
) -> list[Random]:  # fmt: skip
    """A toy: full attention of random queries to as many random keys as the paper speaks of, none of them near."""
    generator = torch.Generator().manual_seed(seed)
    key = unit(torch.randn(n_keys, head_dim, generator=generator))
    query = unit(torch.randn(n_queries, head_dim, generator=generator))
    scores = query @ key.T  # keys have length 1, so that nothing divides the products
    counts = [count for count in COUNTS if count <= n_keys]
    return [
        Random(length, length * float(scores.std(-1).mean()),
               largest(torch.softmax(length * scores, -1), counts).numpy())
        for length in lengths
    ]  # fmt: skip


class Heads(NamedTuple):
    """Heads of trained models with fixed spans, and the least that their largest weights can hold."""

    n_keys: int  # the span
    n_seeds: int
    shares: np.ndarray  # at least so much of the weight is on the `COUNTS` largest keys [heads, counts]


# Families of chapter 3's models by what they read; its records are the only ones with weights over hundreds of keys.
_TEXTS = {"copies": "a generated text of copies", "limit": "real text"}
_SPANS = "sukhbaatar2019span"
_MANY = 256  # keys, so that a few dozen are few


def trained_heads(results: Path) -> dict[str, Heads]:
    """Heads of chapter 3's models with the longest fixed span that is recorded, by text.

    Kept are means over queries, by distance. The k distances with the highest means hold on average no more than the k
    largest keys of each query, which may be others: what is returned is a lower bound.
    """
    families: dict[str, list[Record]] = {}
    for record in load_records(results)[0]:
        paper, experiment, profile, _ = record.key
        family, _, model = experiment.partition("/")
        is_fixed = (paper, profile) == (_SPANS, "cpu") and model.startswith("fixed_")
        if is_fixed and family in _TEXTS and _span(record) >= _MANY:
            families.setdefault(family, []).append(record)
    return {text: _heads(families[family]) for family, text in _TEXTS.items() if family in families}


def _heads(records: Sequence[Record]) -> Heads:
    n_keys = max(map(_span, records))
    longest = [record for record in records if _span(record) == n_keys]
    weights = torch.from_numpy(np.stack([record.artifact()["attention_by_distance"] for record in longest]))
    weights = weights.flatten(0, 2)  # [seeds * L * H, distances]
    counts = [count for count in COUNTS if count <= weights.shape[-1]]
    return Heads(n_keys, len(longest), largest(weights, counts).numpy())


def _span(record: Record) -> int:
    return record.data["config"]["model"]["max_span"]


@torch.no_grad()
def first_weights(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Weights [B, H, T, T] of the first attention layer of one of the chapter's models, on tokens [B, T]."""
    attention, inputs = model.stack.layers[0][0], []
    hook = attention.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    try:
        model(tokens)
    finally:
        hook.remove()
    return attention.attention_weights(inputs[0])


def copying_heads(model: LanguageModel, *, length: int, count: int = 32, seed: int = 0) -> np.ndarray:
    """Share of the weight on the largest keys, by a model of duplication, where it says w again.

    Args:
        model: with full attention.
        length: of the sequences.
        count: of the sequences.
        seed: of their words.

    Returns:
        Means over the tokens that are scored, for the `COUNTS` up to the length [H, counts].
    """
    batch = DuplicationTask(length=length).sample(count, torch.Generator().manual_seed(seed))
    weights = first_weights(model.eval(), batch.tokens).transpose(1, 2)[batch.scored]  # [scored, H, T]
    return largest(weights, [n for n in COUNTS if n <= length]).mean(0).numpy()


class OnItself(NamedTuple):
    """What a model does that was trained with tokens as their own last resort, and may now attend to themselves."""

    weights: np.ndarray  # on the token itself where w is said again, mean over tokens [H]
    right: float  # share of symbols
    repeats: float  # share of the wrong answers that are the symbol which is being read


@torch.no_grad()
def on_itself(model: LanguageModel, *, length: int, count: int = 32, seed: int = 0) -> OnItself:
    """A model of duplication, left as it is, once its tokens may attend to themselves.

    Args:
        model: with full attention.
        length: of the sequences.
        count: of the sequences.
        seed: of their words.
    """
    model = copy.deepcopy(model).eval()
    for attention, _ in model.stack.layers:
        attention.self_last = False
    batch = DuplicationTask(length=length).sample(count, torch.Generator().manual_seed(seed))
    weights = first_weights(model, batch.tokens).diagonal(dim1=-2, dim2=-1)  # [B, H, T]
    answers = model(batch.tokens)[0].argmax(-1)
    wrong = batch.scored & (answers != batch.targets)
    return OnItself(
        weights.transpose(1, 2)[batch.scored].mean(0).numpy(),
        1 - float(wrong.sum() / batch.scored.sum()),
        float((answers == batch.tokens)[wrong].double().mean()),
    )


# --- hashing --------------------------------------------------------------------------------------------------


class Circle(NamedTuple):
    """Points on the unit circle and their buckets."""

    points: np.ndarray  # [T, 2]
    buckets: np.ndarray  # [R, T]
    directions: np.ndarray  # [R, n_buckets, 2]: columns of R, their opposites; the largest product wins


def circle(n_points: int = 40, *, n_buckets: int = 4, n_rounds: int = 3, seed: int = 0) -> Circle:
    """Random rotations hash points of the plane (fig. 1 of the paper has the same picture for a sphere)."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * torch.pi * torch.rand(n_points, generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], dim=-1)  # [T, 2]
    (rotation,) = random_rotations(n_buckets, n_rounds=n_rounds, n_heads=1, head_dim=2, generator=generator)
    buckets = hash_vectors(points[None, None], [rotation])[0, 0]
    half = rotation[0].transpose(1, 2)  # [R, n_buckets / 2, 2]
    return Circle(points.numpy(), buckets.numpy(), torch.cat([half, -half], dim=1).numpy())


class Meetings(NamedTuple):
    """Who may attend to whom among a few clustered vectors, in the order of the sequence and sorted."""

    buckets: np.ndarray  # [T]
    order: np.ndarray  # [T], the position at each place
    weights: np.ndarray  # full attention [T, T]
    hashed: np.ndarray  # LSH attention [T, T]


def meetings(*, length: int = 24, chunk_len: int = 4, n_clusters: int = 6, seed: int = 1) -> Meetings:
    """One round on vectors that lie around a few directions: most weight is between vectors of one bucket."""
    generator = torch.Generator().manual_seed(seed)
    centres = 6 * torch.nn.functional.normalize(torch.randn(n_clusters, 8, generator=generator), dim=-1)
    cluster = torch.randint(n_clusters, (length,), generator=generator)
    query = (centres[cluster] + 0.8 * torch.randn(length, 8, generator=generator))[None, None]
    rotations = random_rotations(
        default_buckets(length, chunk_len), n_rounds=1, n_heads=1, head_dim=8, generator=generator
    )
    buckets = hash_vectors(query, rotations)
    identity = torch.eye(length)[None, None]
    hashed = lsh_attention(query, identity, buckets, chunk_len=chunk_len, is_causal=True)
    full = shared_qk_attention(query, identity, is_causal=True)
    return Meetings(
        buckets[0, 0, 0].numpy(), sort_by_bucket(buckets)[0, 0, 0].numpy(), full[0, 0].numpy(), hashed[0, 0].numpy()
    )  # fmt: skip


def weight_kept(
    rounds: Sequence[int] = (1, 2, 4, 8, 16), *, length: int = 256, chunk_len: int = 16, scale: float = 1.0,
    draws: int = 5,
) -> np.ndarray:  # fmt: skip
    """Share of full attention's weight that lies on pairs which LSH attention sees.

    Args:
        rounds: numbers of hash rounds.
        length: T.
        chunk_len: m.
        scale: length of the queries: the longer, the fewer keys hold most of the weight.
        draws: of random Gaussian queries.

    Returns:
        [draws, rounds].
    """
    found = np.zeros((draws, len(rounds)))
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        query = scale * unit(torch.randn(1, 1, length, 16, generator=generator))
        identity = torch.eye(length)[None, None]
        weights = shared_qk_attention(query, identity)
        for column, n_rounds in enumerate(rounds):
            rotations = random_rotations(
                default_buckets(length, chunk_len), n_rounds=n_rounds, n_heads=1, head_dim=16, generator=generator
            )  # fmt: skip
            seen = lsh_attention(query, identity, hash_vectors(query, rotations), chunk_len=chunk_len) > 0
            found[draw, column] = float((weights * seen).sum() / length)
    return found


def conventions_differ(length: int = 16, seed: int = 0) -> dict[str, float]:
    """How much weight a token gives itself in full attention with shared queries and keys, by convention (mean)."""
    generator = torch.Generator().manual_seed(seed)
    query = 4 * unit(torch.randn(1, 1, length, 16, generator=generator))
    identity = torch.eye(length)[None, None]

    def own(**switches: bool) -> float:
        weights: Tensor = full_attention(query, query, identity, is_causal=True, **switches)
        return float(weights[0, 0].diagonal()[1:].mean())

    return {
        "itself last": own(unit_keys=True, self_last=True),
        "itself allowed": own(unit_keys=True, self_last=False),
    }


# --- memory arithmetic ----------------------------------------------------------------------------------------


class Amount(NamedTuple):
    """A number of float32 values in memory."""

    what: str
    values: int
    stated: str | None = None  # the quantity's name among the numbers in the paper's text

    @property
    def gib(self) -> float:
        """In GiB (2^30 bytes)."""
        return self.values * FLOAT32 / GIB


# Sizes of the estimates: tokens of a text, width, width inside a feed-forward layer, texts of a batch, layers.
LENGTH, WIDTH, INNER, BATCH, LAYERS = 2**16, 1024, 4096, 8, 16
LARGEST_LAYER = "parameters of the largest layer reported"


def memory_amounts() -> list[Amount]:
    """The paper's and the lectures' estimates, in values of four bytes."""
    billions = stated(LARGEST_LAYER)
    return [
        Amount(
            f"parameters of a large layer, {billions:g} billion",
            round(billions * 1e9),
            "these parameters, fp32",
        ),
        Amount(
            "activations of one layer: 64K tokens, width 1K, batch 8",
            LENGTH * WIDTH * BATCH,
            "activations of a layer, 64K tokens, width 1024, batch 8, fp32",
        ),
        Amount(
            "one matrix of attention weights, 64K by 64K, batch 1",
            LENGTH**2,
            "one 64K x 64K attention matrix, fp32, batch 1",
        ),
        Amount(
            "feed-forward activations: 64K tokens, width 4K, 16 layers",
            LENGTH * INNER * LAYERS,
            "FFN activations, dff 4K, 16 layers, length 64K, fp32",
        ),
        Amount("the same, reversible: one layer at a time", LENGTH * INNER),
        Amount("the same, reversible and in 16 chunks", LENGTH * INNER // 16),
        Amount("weights of LSH attention: 64K tokens, 8 rounds, windows of 128", LENGTH * 8 * 128),
    ]
