"""Duplication where every call and head hashes with the same rotations, as a seed in the replication's code has it.

Shapes: B batch, H heads, T length, E width of a query, R rounds of hashing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attn.experiments.reformer.workloads import _AT_ONCE, CONVENTIONS, AttentionConfig, CodeWorkload
from attn.lsh import check_buckets, default_buckets
from attn.reformer import LSHAttention
from attn.reproduction.experiment import Metric


class FixedLSHAttention(LSHAttention):
    """`LSHAttention` whose heads and calls hash with the same rotations.

    They are the numbers of a seed in the order of the replication's code, width before rounds. So the rotations of one
    round are not among those of several.

    Args:
        rotation_seed: of these numbers.
        others: as `LSHAttention`.
    """

    def __init__(self, *, rotation_seed: int, **others) -> None:
        super().__init__(**others)
        self.rotation_seed = rotation_seed

    def rotations(self, query: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """For every factor of the number of buckets [H, R, E, factor / 2], whatever the generator."""
        n_buckets = (
            default_buckets(query.shape[2], self.chunk_len) if self.n_buckets is None else self.n_buckets
        )
        numbers = torch.Generator().manual_seed(self.rotation_seed)
        drawn = [
            torch.randn(self.head_dim, self.n_rounds, factor // 2, generator=numbers, dtype=torch.float32)
            for factor in check_buckets(n_buckets)
        ]
        return tuple(one.transpose(0, 1).expand(self.n_heads, -1, -1, -1).to(query.device) for one in drawn)


@dataclass(frozen=True, kw_only=True)
class FixedAttentionConfig(AttentionConfig):
    """LSH attention whose heads and calls hash with the same rotations."""

    rotation_seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "lsh":
            raise ValueError(f"kind must be 'lsh' where rotations are fixed; got {self.kind!r}")

    def build(self, *, d_model: int, n_heads: int, chunk_len: int) -> FixedLSHAttention:
        """The sub-layer; its weights are those of `AttentionConfig.build` from the same seed."""
        return FixedLSHAttention(
            d_model=d_model, n_heads=n_heads, chunk_len=chunk_len, n_rounds=self.n_rounds, n_buckets=self.n_buckets,
            scale=(d_model // n_heads) ** -0.5 if self.is_scaled else None, convention=CONVENTIONS[self.convention],
            rotation_seed=self.rotation_seed,
        )  # fmt: skip


class FixedWorkload(CodeWorkload):
    """As its parent; definitions say that rotations are the same in every call and head, in evaluation too."""

    def _accuracy(self, model: nn.Module, name: str) -> Metric:
        metric = super()._accuracy(model, name)
        anew = f"new rotations for every {_AT_ONCE} sequences"
        fixed = f"the same rotations in every call and head, from seed {self.config.hashed.rotation_seed}"
        return replace(metric, definition=metric.definition.replace(anew, fixed))
