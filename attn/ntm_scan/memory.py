"""Writing and reading, forwards and backwards (eqs. 2 to 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attn.ntm_scan.heads import HeadValues


class Erasing:
    """Room for what each write head erases."""

    def __init__(self, memory: Tensor, n_write_heads: int) -> None:
        batch, *slots = memory.shape
        self.products = memory.new_empty(batch, n_write_heads, *slots)  # weighting times erase vector
        self.each_product = self.products.unbind(1)

    def run(self, memory: Tensor, weights: Tensor, vectors: Tensor, left: Sequence[Tensor]) -> None:
        """Fill `left` with the memory that each head leaves, one head after the other.

        Args:
            memory: [B, D, N].
            weights: weightings of the write heads [B, W, 1, N].
            vectors: their erase vectors [B, W, D, 1].
            left: room for memories, the first head's and so on.
        """
        torch.mul(vectors, weights, out=self.products)
        for place, product in zip(left, self.each_product, strict=False):
            memory = torch.addcmul(memory, memory, product, value=-1, out=place)


def write_forward(
    memory: Tensor, new: Tensor, weights: Tensor, vectors: Tensor, add: Tensor, erasing: Erasing
) -> None:
    """Fill the new memory [B, D, N].

    Args:
        memory: before the write.
        weights: weightings of the write heads [B, W, N].
        vectors: their erase vectors [B, W, D, 1].
        add: their add vectors, transposed [B, D, W].
        erasing: scratch.
    """
    erasing.run(memory, weights.unsqueeze(2), vectors, [new] * weights.shape[1])
    new.baddbmm_(add, weights)


class WriteRoom:
    """Scratch of `write_backward`."""

    def __init__(self, memory: Tensor, n_write_heads: int) -> None:
        batch, dim, n_slots = memory.shape
        self.erasing = Erasing(memory, n_write_heads)
        self.left = memory.new_empty(n_write_heads - 1, *memory.shape).unbind(0)
        shares = memory.new_empty(batch, n_write_heads, dim, n_slots)  # gradient times what a head found
        self.each_share, self.shares = shares.unbind(1), shares.flatten(0, 1)


def write_backward(
    grad: HeadValues,
    heads: HeadValues,
    memory: Tensor,
    weights: Tensor,
    grad_memory: Tensor,
    scratch: WriteRoom,
) -> Tensor:
    """Fill the gradients of erase and add.

    Args:
        memory: before the write.
        weights: weightings of the write heads [B, W, N].
        grad_memory: turns from the gradient of the memory after the write into that of the memory before it.

    Returns:
        The gradient of the write heads' weightings [B, W, N].
    """
    grad.add.copy_(torch.bmm(weights, grad_memory.transpose(1, 2)))
    grad_weights = torch.bmm(heads.add, grad_memory)
    scratch.erasing.run(memory, weights.unsqueeze(2), heads.erase.unsqueeze(-1), scratch.left)
    found = (memory, *scratch.left)
    for head in reversed(range(len(found))):
        torch.mul(grad_memory, found[head], out=scratch.each_share[head])
        grad_memory.addcmul_(grad_memory, scratch.erasing.each_product[head], value=-1)
    flat_weights, flat_erase = (
        x.reshape(-1, 1, x.shape[-1]) for x in (weights, heads.erase)
    )  # [B * W, 1, .]
    torch.neg(torch.bmm(flat_weights, scratch.shares.transpose(1, 2)).view_as(grad.erase), out=grad.erase)
    grad_weights.view_as(flat_weights).baddbmm_(flat_erase, scratch.shares, alpha=-1)
    return grad_weights


def read_forward(memory: Tensor, weights: Tensor, places: Sequence[Tensor]) -> None:
    """Fill every place [B, R, D] with what the read heads' weightings [B, R, N] read."""
    # a product is fast only into a tensor of its own, so it is copied once more
    reads = torch.bmm(weights, memory.transpose(1, 2))
    for place in places:
        place.copy_(reads)


def read_backward(grad: Tensor, memory: Tensor, weights: Tensor, grad_memory: Tensor) -> Tensor:
    """Add to the gradient of the memory; returns that of the read heads' weightings; `grad` is that of the reads."""
    grad_memory.baddbmm_(grad.transpose(1, 2), weights)
    return torch.bmm(grad, memory)
