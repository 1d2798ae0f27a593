"""The Reformer's sub-layers: full, local and LSH attention with shared queries and keys (Kitaev et al. 2020,
arXiv:2001.04451), and its axial positions.

The mathematics is in pure functions beside: `attn.shared_qk` (full and local attention), `attn.lsh` (hashing, sorting,
attention in chunks), `attn.chunks` (feed-forward and loss in chunks, Sec. 3) and `attn.reversible`. Here are the modules
that own parameters.

Shapes: B batch, T length, D `d_model`, H heads, E `head_dim`, V `value_dim`, R `n_rounds` of hashing, m `chunk_len`.
In every mask [B, T] True means "a token that may attend and be attended to"; the others, padding, get zeros as their
output and are nobody's key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attn.attention import check_positive, check_sequence
from attn.kernels import lsh as fast_lsh
from attn.lsh import (
    check_buckets,
    check_convention,
    default_buckets,
    hash_vectors,
    lsh_attention,
    random_rotations,
)
from attn.lsh_convention import PAPER, Convention
from attn.shared_qk import default_scale, full_attention, local_attention


class ReformerAttention(nn.Module):
    """Projections and heads of the attentions below, which differ in `attend` only.

    With the same sizes and `shared_qk` all have the same parameters under the same names: what was trained with one
    can be evaluated with another. The projections are one matrix, with rows for queries, keys (unless shared) and
    values in this order; it starts Xavier uniform, its fan-out being the rows of the whole matrix.

    Args:
        d_model: D, width of inputs and outputs.
        n_heads: H.
        head_dim: E, width of a query of one head; None for D / H.
        value_dim: V, width of a value of one head; None for D / H.
        shared_qk: one projection for queries and keys.
        is_causal: allow no key later than its query.
        scale: factor on the products; None for 1 with keys of unit length and E ** -0.5 with others.
        use_bias: biases on the projections.

    Raises:
        ValueError: for a size below 1, or a D that H does not divide where D / H is needed.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        head_dim: int | None = None,
        value_dim: int | None = None,
        shared_qk: bool = True,
        is_causal: bool = True,
        scale: float | None = None,
        use_bias: bool = False,
    ) -> None:
        super().__init__()
        check_positive(d_model=d_model, n_heads=n_heads)
        if (head_dim is None or value_dim is None) and d_model % n_heads:
            raise ValueError(
                f"d_model must be divisible by n_heads unless head_dim and value_dim are given; got d_model={d_model} "
                f"and n_heads={n_heads}"
            )
        head_dim = d_model // n_heads if head_dim is None else head_dim
        value_dim = d_model // n_heads if value_dim is None else value_dim
        check_positive(head_dim=head_dim, value_dim=value_dim)
        self.d_model, self.n_heads, self.head_dim, self.value_dim = d_model, n_heads, head_dim, value_dim
        self.shared_qk, self.is_causal, self.scale = shared_qk, is_causal, scale
        self._rows = [n_heads * head_dim] * (1 if shared_qk else 2) + [n_heads * value_dim]
        self.projection = nn.Linear(d_model, sum(self._rows), bias=use_bias)
        self.output = nn.Linear(n_heads * value_dim, d_model, bias=use_bias)
        for linear in (self.projection, self.output):
            nn.init.xavier_uniform_(linear.weight)
            if use_bias:
                nn.init.zeros_(linear.bias)

    def project(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, E or V] of `inputs` [B, T, D]; shared keys are the queries themselves."""
        check_sequence("inputs", inputs, self.d_model)
        parts = self.projection(inputs).split(self._rows, dim=-1)
        query, *key, value = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        return query, *(key or [query]), value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given) -> Tensor:
        """[B, H, T, V] from what `project` returned."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, mask: Tensor | None = None, **given) -> Tensor:
        """The sub-layer.

        Args:
            inputs: [B, T, D].
            mask: [B, T], True for tokens; None for all.
            given: what the module's `attend` takes besides.

        Returns:
            [B, T, D].

        Raises:
            ValueError: if a shape does not fit, or the mask is not boolean.
        """
        output = self.attend(*self.project(inputs), mask, **given)
        return self.output(output.transpose(1, 2).flatten(2))

    def attention_weights(self, inputs: Tensor, mask: Tensor | None = None, **given) -> Tensor:
        """The weights [B, H, T, T] with which `forward` takes its sums, 0 for pairs that do not meet.

        They are the output for values of the identity matrix: memory for R of these matrices, for figures and tests.
        """
        query, key, _ = self.project(inputs)
        identity = torch.eye(inputs.shape[1], dtype=query.dtype, device=query.device)
        return self.attend(query, key, identity.expand(*query.shape[:2], -1, -1), mask, **given)


class FullAttention(ReformerAttention):
    """`full_attention` as a sub-layer: a shared projection, unit keys and self as last resort are a switch each.

    Args:
        unit_keys: divide every key by its length; None for the value of `shared_qk`.
        self_last: a token attends to itself only where nothing else is allowed; None for the value of `shared_qk`.
        others: as `ReformerAttention`.
    """

    def __init__(self, *, unit_keys: bool | None = None, self_last: bool | None = None, **sizes) -> None:
        super().__init__(**sizes)
        self.unit_keys = self.shared_qk if unit_keys is None else unit_keys
        self.self_last = self.shared_qk if self_last is None else self_last

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, H, T, V] from what `project` returned."""
        return full_attention(
            query, key, value, mask,
            is_causal=self.is_causal, unit_keys=self.unit_keys, self_last=self.self_last, scale=self.scale,
        )  # fmt: skip


class LocalAttention(FullAttention):
    """`local_attention` as a sub-layer.

    Args:
        chunk_len: m.
        others: as `FullAttention`.
    """

    def __init__(self, *, chunk_len: int, **options) -> None:
        super().__init__(**options)
        check_positive(chunk_len=chunk_len)
        self.chunk_len = chunk_len

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, H, T, V] from what `project` returned; ValueError for a sequence without tokens."""
        if not query.shape[2]:
            raise ValueError("inputs must have at least one token; got length 0")
        return local_attention(
            query, key, value, mask, chunk_len=self.chunk_len,
            is_causal=self.is_causal, unit_keys=self.unit_keys, self_last=self.self_last, scale=self.scale,
        )  # fmt: skip


class LSHAttention(ReformerAttention):
    """`lsh_attention` as a sub-layer, with shared queries and keys.

    Every call hashes with new rotations. They come from torch's default generator unless given, as dropout's masks do:
    whatever replays or restores that generator repeats them.

    Args:
        chunk_len: m.
        n_rounds: R; `module.n_rounds` may be changed between calls.
        n_buckets: an even number, or several whose product is the number of buckets (see `random_rotations`); None for
            `default_buckets` of the inputs' length.
        convention: `PAPER`, `PUBLIC`, or single departures.
        fused: compute with `attn.kernels.lsh`; False for the functions of `attn.lsh`, the definition.
        sizes: as `ReformerAttention`, but `shared_qk`.

    Attributes:
        choices: what reversible layers keep of it from the forward pass (`attn.reversible.ResidualBranch`, which reads
            it when it is made). Set it to ("buckets",) to hash once; as it is, nothing, every layer hashes again in the
            backward pass, where a token whose inputs are equal only up to rounding may fall into another bucket.

    Raises:
        ValueError: for sizes below 1, an odd number of buckets, or a convention that is none or that the fused version
            lacks.
    """

    choices: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        chunk_len: int,
        n_rounds: int,
        n_buckets: int | Sequence[int] | None = None,
        convention: Convention = PAPER,
        fused: bool = True,
        **sizes,
    ) -> None:
        super().__init__(**sizes, shared_qk=True)
        check_positive(chunk_len=chunk_len, n_rounds=n_rounds)
        if n_buckets is not None:
            check_buckets(n_buckets)
        check_convention(convention)
        if fused:
            fast_lsh.check_convention(convention)
        self.chunk_len, self.n_rounds, self.n_buckets = chunk_len, n_rounds, n_buckets
        self.convention, self.fused = convention, fused

    def rotations(self, query: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """New rotations for queries [B, H, T, E]."""
        n_buckets = self.n_buckets
        if n_buckets is None:
            n_buckets = default_buckets(query.shape[2], self.chunk_len)
        return random_rotations(
            n_buckets, n_rounds=self.n_rounds, n_heads=self.n_heads, head_dim=self.head_dim,
            generator=generator, device=query.device,
        )  # fmt: skip

    def buckets(
        self,
        inputs: Tensor,
        *,
        rotations: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Bucket numbers [B, H, R, T] of `inputs` [B, T, D], to look at or to give to `forward`."""
        return self._hash(self.project(inputs)[0], rotations, generator)

    def _hash(
        self, query: Tensor, rotations: Sequence[Tensor] | None, generator: torch.Generator | None
    ) -> Tensor:
        rotations = self.rotations(query, generator) if rotations is None else rotations
        return hash_vectors(query, rotations, fused=self.fused)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        buckets: Tensor | None = None,
        rotations: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """[B, H, T, V] from what `project` returned.

        Args:
            buckets: [B, H, R, T], to hash with nothing.
            rotations: to hash with, as from `random_rotations`.
            generator: to draw rotations from; None for torch's default generator.
        """
        buckets = self._hash(query, rotations, generator) if buckets is None else buckets
        return lsh_attention(
            query, value, buckets, mask, chunk_len=self.chunk_len, is_causal=self.is_causal,
            scale=default_scale(self.scale, True, self.head_dim), convention=self.convention, fused=self.fused,
        )  # fmt: skip


class AxialPositions(nn.Module):
    """Positions as the rows, columns, ... of a grid: one small table an axis, its vectors side by side.

    The authors' code has them for long sequences. Position t = (t_1 ... t_n), the last axis running fastest, has the
    vector [table_1[t_1]; ...; table_n[t_n]]: sum of N_a d_a parameters where a plain table has T D.

    Args:
        shape: N_1 ... N_n; their product is the longest length.
        widths: d_1 ... d_n; their sum is D.

    Raises:
        ValueError: for a size below 1, what is no sequence of sizes, or not as many widths as axes.
    """

    def __init__(self, *, shape: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        for name, sizes in (("shape", shape), ("widths", widths)):
            if not isinstance(sizes, Sequence) or isinstance(sizes, str):
                raise ValueError(f"{name} must be one whole number for each axis, as (4, 4); got {sizes!r}")
        if not shape or len(shape) != len(widths):
            raise ValueError(f"shape and widths must have one number for each axis; got {shape} and {widths}")
        for name, sizes in (("shape", shape), ("widths", widths)):
            check_positive(**{f"{name}[{axis}]": size for axis, size in enumerate(sizes)})
        self.shape, self.max_len = tuple(shape), math.prod(shape)
        self.tables = nn.ParameterList(torch.empty(*sizes) for sizes in zip(shape, widths, strict=True))
        for table in self.tables:
            nn.init.normal_(table, std=2**-0.5)  # as `LearnedPositions`

    def forward(self, seq_len: int, start: int = 0) -> Tensor:
        """Positions `start` to `start + seq_len - 1` [T, D]; ValueError for any that are not in the grid."""
        if seq_len < 0 or start < 0:
            raise ValueError(f"seq_len and start must not be negative; got {seq_len} and {start}")
        if start + seq_len > self.max_len:
            raise ValueError(
                f"a sequence must not be longer than the {self.max_len} positions of a grid of {self.shape}; got "
                f"{start + seq_len}"
            )
        position = torch.arange(start, start + seq_len, device=self.tables[0].device)
        places = torch.unravel_index(position, self.shape)
        return torch.cat([table[place] for table, place in zip(self.tables, places, strict=True)], dim=-1)
