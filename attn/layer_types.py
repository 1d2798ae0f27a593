"""The layer types that self-attention is compared with (arXiv:1706.03762, Sec. 4, table 1), for counting and timing.

Self-attention is `attn.attention.MultiHeadAttention`, a recurrent layer `torch.nn.RNN`. Here are the other two:
self-attention restricted to a neighbourhood, and convolutions.

Shapes: B batch, n sequence length, D width, H heads, E width of a query or key of one head, V of a value;
r neighbourhood, k kernel size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import (
    MultiHeadAttention,
    _check_attention,
    check_positive,
    check_sequence,
    scaled_dot_product_attention,
)

# Queries of a block at least: blocks of one or two queries would be all overhead.
MIN_BLOCK = 16


def neighbourhood_mask(seq_len: int, neighbourhood: int, *, device: torch.device | None = None) -> Tensor:
    """Mask of restricted self-attention: the r keys centred on the query (Sec. 4).

    Args:
        seq_len: n.
        neighbourhood: r in all, so (r - 1) / 2 on each side; odd.
        device: where to make it.

    Returns:
        Boolean, True may attend [n, n].

    Raises:
        ValueError: if r is not an odd whole number of at least 1.
    """
    reach = _reach("neighbourhood", neighbourhood)
    position = torch.arange(seq_len, device=device)
    return (position[:, None] - position).abs() <= reach


def restricted_attention(
    query: Tensor, key: Tensor, value: Tensor, neighbourhood: int, *, scale: float | None = None
) -> Tensor:
    """Attention of every position to the r positions centred on it, in time and memory O(r n d) (Sec. 4).

    Blocks of queries attend to the keys that any of them may see: a query meets about 1.5 r keys, of which r count
    (r + MIN_BLOCK - 1 where r is below 2 * MIN_BLOCK).

    Args:
        query: [B, H, n, E].
        key: [B, H, n, E].
        value: [B, H, n, V].
        neighbourhood: r in all, so (r - 1) / 2 on each side; odd.
        scale: factor on the dot products; None for E ** -0.5.

    Returns:
        [B, H, n, V].

    Raises:
        ValueError: if r is not an odd whole number of at least 1, shapes or dtypes do not fit, or there are not as many
            keys as queries.
    """
    reach = _reach("neighbourhood", neighbourhood)
    _check_attention(query, key, value, None)
    if key.shape[2] != query.shape[2]:
        raise ValueError(
            f"key and value must be as many as the queries, {query.shape[2]}; got {key.shape[2]} of each"
        )
    n_heads, seq_len = query.shape[1:3]
    block = max(reach, MIN_BLOCK)
    n_blocks = -(-seq_len // block)
    width = block + 2 * reach  # keys that the queries of a block may see
    rest = n_blocks * block - seq_len
    query = F.pad(query, (0, 0, 0, rest)).unflatten(2, (n_blocks, block)).flatten(1, 2)
    key, value = (
        F.pad(side, (0, 0, reach, reach + rest))  # [B, H, n + rest + 2 reach, E]
        .unfold(2, width, block)  # [B, H, blocks, E, width]
        .transpose(-2, -1)
        .flatten(1, 2)  # [B, H * blocks, width, E]
        for side in (key, value)
    )
    at_query = torch.arange(block, device=query.device)[:, None]
    at_key = torch.arange(width, device=query.device) - reach
    start = block * torch.arange(n_blocks, device=query.device)[:, None, None]
    mask = (at_query - at_key).abs() <= reach  # [block, width]
    mask = mask & (start + at_key >= 0) & (start + at_key < seq_len)  # [blocks, block, width]
    output, _ = scaled_dot_product_attention(query, key, value, mask.repeat(n_heads, 1, 1), scale=scale)
    return output.unflatten(1, (n_heads, n_blocks)).flatten(2, 3)[:, :, :seq_len]


class RestrictedSelfAttention(MultiHeadAttention):
    """Multi-head self-attention in a neighbourhood of r positions (Sec. 4).

    Args:
        d_model: D.
        n_heads: H.
        neighbourhood: r in all, so (r - 1) / 2 on each side; odd.
    """

    def __init__(self, *, d_model: int, n_heads: int, neighbourhood: int) -> None:
        super().__init__(d_model=d_model, n_heads=n_heads)
        _reach("neighbourhood", neighbourhood)
        self.neighbourhood = neighbourhood

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, n, D] to [B, n, D]; ValueError for another shape."""
        check_sequence("inputs", inputs, self.d_model)
        sides = map(self._heads, self.projection(inputs).split(self._rows, dim=-1))
        output = restricted_attention(*sides, self.neighbourhood)
        return self.output(output.transpose(1, 2).flatten(2))


class DilatedConvolutions(nn.Module):
    """Convolutions of growing dilation, with ReLU between them, that let any two positions meet (Sec. 4).

    The dilation grows (k + 1) / 2-fold from layer to layer, so that any two of n positions are joined by a path of
    ceil(log n) layers, to base (k + 1) / 2, that moves in one direction. This is the paper's order, O(log_k n): the two
    logarithms differ by the factor ln k / ln((k + 1) / 2), which is largest at k = 3. A kernel that looks one way only,
    dilated k-fold, joins every position to all before it in ceil(log_k n) layers. Centred kernels with that dilation
    would overshoot and come back, and near the ends leave the sequence. Nothing is masked: positions see both sides.

    Args:
        d_model: D.
        kernel_size: k, odd, at least 3.
        n_layers: layers, such as `layers_to_connect` gives.

    Raises:
        ValueError: for a size below 1, or a kernel that is even or 1.
    """

    def __init__(self, *, d_model: int, kernel_size: int, n_layers: int = 1) -> None:
        super().__init__()
        check_positive(d_model=d_model, n_layers=n_layers)
        _check_kernel(kernel_size)
        self.d_model = d_model
        dilations = [((kernel_size + 1) // 2) ** layer for layer in range(n_layers)]
        self.layers = nn.ModuleList(
            nn.Conv1d(d_model, d_model, kernel_size, dilation=dilation, padding="same")
            for dilation in dilations
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, n, D] to [B, n, D]; ValueError for another shape."""
        check_sequence("inputs", inputs, self.d_model)
        hidden = inputs.transpose(1, 2)
        for index, layer in enumerate(self.layers):
            hidden = layer(F.relu(hidden) if index else hidden)
        return hidden.transpose(1, 2)


def layers_to_connect(seq_len: int, kernel_size: int) -> int:
    """Fewest layers of `DilatedConvolutions` in which each of n positions depends on every other.

    Layers reach ((k + 1) / 2) ** layers - 1 positions to each side, and n - 1 are needed.
    """
    check_positive(seq_len=seq_len)
    _check_kernel(kernel_size)
    n_layers = 0
    while ((kernel_size + 1) // 2) ** n_layers < seq_len:
        n_layers += 1
    return n_layers


def _check_kernel(kernel_size: int) -> None:
    if _reach("kernel_size", kernel_size) < 1:
        raise ValueError(f"kernel_size must be at least 3; got {kernel_size}")


def _reach(name: str, width: int) -> int:
    """Positions on each side of the centre."""
    check_positive(**{name: width})
    if width % 2 == 0:
        raise ValueError(f"{name} must be odd, to be centred on a position; got {width}")
    return width // 2
