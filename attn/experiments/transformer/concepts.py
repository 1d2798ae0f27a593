"""The ideas of the paper as small computations: what chapter 1's pictures and checks are made of.

Everything runs on the book's own modules, is seeded, leaves torch's global random state as it was, and takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import (
    POSITION_BASE,
    LearnedPositions,
    MultiHeadAttention,
    scaled_dot_product_attention,
    sinusoidal_positions,
)
from attn.training.schedules import inverse_sqrt

DOUBLE = torch.float64
RECURRENT = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
KINDS = (*RECURRENT, "attention")
EXPLODING_SCALE = 4.0  # on recurrent weights, large enough that gradients grow


# --- Sec. 3.2.1: why divide by sqrt(d_k) --------------------------------------------------------------------


@dataclass(frozen=True)
class ScaleEffect:
    """Dot products of random queries and keys, and the softmax over them, at several d_k.

    Attributes:
        widths: d_k [W].
        n_keys: keys of a query.
        variance: of the dot products [draws, W].
        entropy: of the attention weights in bits, mean over queries, "scaled" and "plain" [draws, W].
        gradient: size of the softmax's derivative, mean over queries, "scaled" and "plain" [draws, W].
    """

    widths: np.ndarray
    n_keys: int
    variance: np.ndarray
    entropy: Mapping[str, np.ndarray]
    gradient: Mapping[str, np.ndarray]


def scale_effect(
    widths: Sequence[int] = (1, 4, 16, 64, 256, 1024),
    *,
    n_keys: int = 32,
    n_queries: int = 128,
    n_draws: int = 10,
) -> ScaleEffect:
    """Attention with the factor 1 / sqrt(d_k) and without, for queries and keys of independent standard normals.

    Args:
        widths: d_k.
        n_keys: keys of a query.
        n_queries: queries, to average over.
        n_draws: how often everything is drawn anew.
    """
    rows = [[_one_draw(width, n_keys, n_queries, seed) for width in widths] for seed in range(n_draws)]
    variance, entropies, gradients = (np.array([[cell[i] for cell in row] for row in rows]) for i in range(3))
    names = ("scaled", "plain")
    return ScaleEffect(
        np.array(widths), n_keys, variance,
        {name: entropies[..., i] for i, name in enumerate(names)},
        {name: gradients[..., i] for i, name in enumerate(names)},
    )  # fmt: skip


def _one_draw(width: int, n_keys: int, n_queries: int, seed: int) -> tuple[float, list[float], list[float]]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 1, n_queries, width, dtype=DOUBLE, generator=generator)
    key = torch.randn(1, 1, n_keys, width, dtype=DOUBLE, generator=generator)
    weights = [
        scaled_dot_product_attention(query, key, key, scale=scale, need_weights=True)[1]
        for scale in (None, 1.0)
    ]
    return (
        float((query @ key.mT).var()),
        [float(entropy(w).mean()) for w in weights],
        [float(softmax_gradient(w).mean()) for w in weights],
    )


def entropy(weights: Tensor) -> Tensor:
    """Entropy in bits of weightings [..., S]: log2 S where all are equal, 0 where one has everything."""
    return torch.special.entr(weights).sum(-1) / np.log(2)


def softmax_gradient(weights: Tensor) -> Tensor:
    """Frobenius norm of the softmax's derivative diag(w) - w w^T at weightings [..., S]; 0 where one has everything."""
    squares = weights.square().sum(-1)
    return (squares - 2 * weights.pow(3).sum(-1) + squares.square()).clamp_min(0).sqrt()


# --- Sec. 3.5: positions ------------------------------------------------------------------------------------


def rotations(offset: int, d_model: int) -> Tensor:
    """The 2 x 2 matrices that take each pair (sin, cos) of PE(pos) to that of PE(pos + offset) [D / 2, 2, 2]."""
    angle = offset * POSITION_BASE ** (-torch.arange(0, d_model, 2, dtype=DOUBLE) / d_model)
    rows = torch.stack([angle.cos(), angle.sin()], -1), torch.stack([-angle.sin(), angle.cos()], -1)
    return torch.stack(rows, dim=-2)


def rotation_error(
    offset: int, *, seq_len: int = 100, d_model: int = 512, dtype: torch.dtype = DOUBLE
) -> float:
    """Largest difference between PE(pos + offset) and the rotated PE(pos), over positions and dimensions.

    Args:
        offset: positions to go on by.
        seq_len: positions to start from.
        d_model: D, even.
        dtype: of the table and the product.
    """
    table = sinusoidal_positions(seq_len + offset, d_model, dtype=dtype)
    pairs = table[:seq_len].unflatten(-1, (-1, 2))  # [T, D / 2, 2]
    turned = torch.einsum("fij,tfj->tfi", rotations(offset, d_model).to(dtype), pairs).flatten(1)
    return float((turned - table[offset:]).abs().max())


@dataclass(frozen=True)
class BeyondTraining:
    """Sinusoids and a learned table (not trained here) for positions on both sides of the longest of training.

    Attributes:
        max_len: positions that training had.
        sinusoids: [T, D] for T positions, more than `max_len`.
        learned: [max_len, D], all there is.
        message: what the learned table answers when asked for one position more.
    """

    max_len: int
    sinusoids: np.ndarray
    learned: np.ndarray
    message: str


def beyond_training(*, d_model: int = 512, max_len: int = 50, seq_len: int = 100) -> BeyondTraining:
    """Both kinds of positions for `seq_len` positions where training had `max_len`, fewer."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        learned = LearnedPositions(d_model=d_model, max_len=max_len)
        message = ""
        try:
            learned(max_len + 1)
        except ValueError as error:
            message = str(error)
        return BeyondTraining(
            max_len, sinusoidal_positions(seq_len, d_model).numpy(), learned(max_len).numpy(), message
        )


# --- distance: gradients and recall -------------------------------------------------------------------------


class Reader(nn.Module):
    """Reads a sequence of vectors with one layer and gives what the last position has [B, n, D] to [B, D].

    Args:
        kind: one of `KINDS`; attention adds sinusoidal positions to its inputs, and only the last position asks.
        d_model: D.
        recurrent_scale: factor on the recurrent weights at the start.
    """

    def __init__(self, kind: str, *, d_model: int, recurrent_scale: float = 1.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        self.is_attention = kind == "attention"
        if self.is_attention:
            self.layer = MultiHeadAttention(d_model=d_model, n_heads=1)
            return
        self.layer = RECURRENT[kind](d_model, d_model, batch_first=True)
        with torch.no_grad():
            self.layer.weight_hh_l0 *= recurrent_scale

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, n, D] to [B, D]."""
        if not self.is_attention:
            return self.layer(inputs)[0][:, -1]
        placed = inputs + sinusoidal_positions(*inputs.shape[1:], dtype=inputs.dtype)
        return self.layer(placed[:, -1:], placed).output[:, 0]


def gradient_by_distance(
    kind: str,
    *,
    seq_len: int = 101,
    d_model: int = 64,
    seeds: int = 5,
    batch_size: int = 8,
    recurrent_scale: float = 1.0,
) -> np.ndarray:
    """How much the last output of an untrained layer depends on the input t positions before it.

    The gradient of the output's component in a random direction, with respect to the input: its norm, root mean square
    over a batch of standard normal inputs.

    Args:
        kind: one of `KINDS`, at torch's or the book's initialisation.
        seq_len: n; distances go from 0 to n - 1.
        d_model: D.
        seeds: initialisations.
        batch_size: sequences for each.
        recurrent_scale: factor on the recurrent weights.

    Returns:
        [seeds, n], by distance.
    """
    found = []
    for seed in range(seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            reader = Reader(kind, d_model=d_model, recurrent_scale=recurrent_scale).double()
            inputs = torch.randn(batch_size, seq_len, d_model, dtype=DOUBLE, requires_grad=True)
            direction = F.normalize(torch.randn(batch_size, d_model, dtype=DOUBLE), dim=-1)
        (gradient,) = torch.autograd.grad((reader(inputs) * direction).sum(), inputs)
        found.append(gradient.square().sum(-1).mean(0).sqrt().flip(0))
    return torch.stack(found).numpy()


@dataclass(frozen=True, kw_only=True)
class RecallBudget:
    """How a recall model is trained: the same for every kind and gap."""

    n_symbols: int = 8
    d_model: int = 32
    batch_size: int = 32
    max_updates: int = 150
    lr: float = 1e-2  # of Adam
    clip: float = 1.0  # largest norm of the gradient
    solved: float = 0.02  # stop early at this loss, in nats
    n_test: int = 512


def recall(kind: str, gap: int, *, seed: int = 0, budget: RecallBudget | None = None) -> float:
    """Train a model to name the first symbol of a sequence after `gap` random others; share of right answers.

    A symbol, `gap` symbols drawn from the same alphabet, a sign that asks. Chance is 1 / n_symbols.

    Args:
        kind: one of `KINDS`.
        gap: symbols in between, 0 or more.
        seed: of model and data.
        budget: None for the defaults.
    """
    budget = budget or RecallBudget()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Embedding(budget.n_symbols + 1, budget.d_model),
            Reader(kind, d_model=budget.d_model),
            nn.Linear(budget.d_model, budget.n_symbols),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=budget.lr, fused=True)
        for _ in range(budget.max_updates):
            tokens = recall_batch(gap, budget.batch_size, budget.n_symbols)
            loss = F.cross_entropy(model(tokens), tokens[:, 0])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), budget.clip)
            optimizer.step()
            if float(loss.detach()) < budget.solved:
                break
        tokens = recall_batch(gap, budget.n_test, budget.n_symbols)
        with torch.no_grad():
            return float((model(tokens).argmax(-1) == tokens[:, 0]).double().mean())


def recall_batch(gap: int, batch_size: int, n_symbols: int) -> Tensor:
    """Symbol ids [B, gap + 2] that end in the sign that asks, `n_symbols`; the answer is the first of each row."""
    tokens = torch.randint(n_symbols, (batch_size, gap + 2))
    tokens[:, -1] = n_symbols
    return tokens


def recall_by_gap(
    gaps: Sequence[int] = (2, 4, 8, 16, 24), *, seeds: int = 2, budget: RecallBudget | None = None
) -> dict[str, np.ndarray]:
    """`recall` of every kind [seeds, gaps]: one model trained for each gap and seed, some ten seconds in all."""
    return {
        kind: np.array(
            [[recall(kind, gap, seed=seed, budget=budget) for gap in gaps] for seed in range(seeds)]
        )
        for kind in KINDS
    }


# --- Sec. 5.3: learning rate --------------------------------------------------------------------------------


def schedules(recipe: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(d_model, warmup_steps) of the paper's two models, and of the base model with four times the warm-up.

    Args:
        recipe: of the paper's facts.
    """
    warmup = recipe["schedule"]["warmup_steps"]
    widths = {name: recipe["model"][name]["d_model"] for name in ("base", "big")}
    settings = {name: (width, warmup) for name, width in widths.items()}
    return settings | {f"base, warm-up {4 * warmup}": (widths["base"], 4 * warmup)}


def schedule_curves(
    settings: Mapping[str, tuple[int, int]], *, max_steps: int, every: int = 100
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Updates, `every` apart, and the learning rate at each (eq. 3), by the names of (d_model, warmup_steps)."""
    steps = np.arange(every, max_steps + 1, every)
    return steps, {
        name: d_model**-0.5 * np.array([inverse_sqrt(int(step), warmup_steps=warmup) for step in steps])
        for name, (d_model, warmup) in settings.items()
    }


# --- Sec. 3.2.2: heads --------------------------------------------------------------------------------------


def heads_alone(layer: MultiHeadAttention, inputs: Tensor) -> Tensor:
    """Self-attention head by head: each with its own rows of the projections, its own columns of the output map.

    Args:
        layer: without biases.
        inputs: [B, T, D].

    Returns:
        [B, T, D]: the sum over heads, which is the concatenation times the whole output map.
    """
    widths = (layer.head_dim, layer.head_dim, layer.value_dim)
    parts = layer.projection.weight.split([layer.n_heads * width for width in widths])
    by_head = [part.chunk(layer.n_heads) for part in parts]  # 3 lists of H matrices [width, D]
    columns = layer.output.weight.chunk(layer.n_heads, dim=1)
    total = torch.zeros_like(inputs)
    for *maps, column in zip(*by_head, columns, strict=True):
        query, key, value = (inputs @ matrix.T for matrix in maps)
        total += torch.softmax(query @ key.mT * layer.head_dim**-0.5, dim=-1) @ value @ column.T
    return total


def grouped_projection(layer: MultiHeadAttention, inputs: Tensor) -> Tensor:
    """All heads' queries as one grouped convolution of kernel 1 over H copies of the inputs [B, T, D] to [B, T, H E]."""
    rows = layer.n_heads * layer.head_dim
    kernel = layer.projection.weight[:rows, :, None]  # [H E, D, 1]: each group sees its own copy
    copies = inputs.mT.repeat(1, layer.n_heads, 1)
    return F.conv1d(copies, kernel, groups=layer.n_heads).mT
