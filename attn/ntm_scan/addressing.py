"""Addressing by content and by location, forwards and backwards (Sec. 3.3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from attn.ntm_scan.heads import HeadValues, softmax_backward
from attn.ntm_scan.sequence import Sizes

# --- Content (eqs. 5 and 6) ------------------------------------------------------------------------------


class Content(NamedTuple):
    """The tape of addressing by content."""

    key_norm: Tensor  # [T, B, H, 1], root of the squared norm plus NORM_EPS
    query: Tensor  # [T, B, H, D], strength * key / key_norm
    slot_scale: Tensor  # [T, B, 1, N], inverse norms of the slots
    similarity: Tensor  # [T, B, H, N], strength * cosine
    content: Tensor  # [T, B, H, N], the weighting


class ContentSlopes(NamedTuple):
    """Derivatives at every step; those of the similarity include the gate (eq. 7), which the softmax passes on."""

    unit_key: Tensor  # [T, B, H, D], of the key's norm with respect to the key
    key: Tensor  # [T, B, H, 1], of the query with respect to the key at a fixed norm
    dot: Tensor  # [T, B, H, N], of the similarity with respect to the product of query and slot
    slot: Tensor  # [T, B, H, N], of the similarity with respect to the slot through its norm, less the factor slot


class Constants(NamedTuple):
    """Tensors that every step needs."""

    root_eps: Tensor  # root of NORM_EPS, no dimension
    eps: Tensor  # NORM_EPS [1, 1, 1]
    ones: Tensor  # [B, 1, D]
    scratch: Tensor  # [B, D, N]

    @classmethod
    def of(cls, memory: Tensor, sizes: Sizes) -> Constants:
        _, batch, dim, n_slots = memory.shape
        return cls(
            root_eps=memory.new_full((), sizes.norm_eps**0.5),
            eps=memory.new_full((1, 1, 1), sizes.norm_eps),
            ones=memory.new_ones(batch, 1, dim),
            scratch=memory.new_empty(batch, dim, n_slots),
        )


def content_forward(
    step: Content, key: Tensor, strength: Tensor, memory: Tensor, constants: Constants
) -> None:
    """Fill `step` for keys [B, H, D], strengths [B, H, 1] and the memory [B, D, N]."""
    torch.linalg.vector_norm(key, dim=-1, keepdim=True, out=step.key_norm)
    torch.hypot(step.key_norm, constants.root_eps, out=step.key_norm)
    torch.mul(key, strength / step.key_norm, out=step.query)
    squares = torch.mul(memory, memory, out=constants.scratch)
    torch.baddbmm(constants.eps, constants.ones, squares, out=step.slot_scale).rsqrt_()
    torch.bmm(step.query, memory, out=step.similarity).mul_(step.slot_scale)
    torch.softmax(step.similarity, dim=-1, out=step.content)


def content_slopes(content: Content, heads: HeadValues) -> ContentSlopes:
    dot = heads.gate * content.slot_scale
    return ContentSlopes(
        unit_key=heads.key / content.key_norm,
        key=heads.strength / content.key_norm,
        dot=dot,
        slot=-dot * content.slot_scale * content.similarity,
    )


def content_backward(
    grad: HeadValues,
    step: Content,
    slopes: ContentSlopes,
    grad_gated: Tensor,
    memory: Tensor,
    grad_memory: Tensor,
) -> None:
    """Fill the gradients of key and strength, and add to that of the memory [B, D, N].

    Args:
        grad_gated: gradient of the interpolated weighting [B, H, N]; the gate is part of `slopes`.
    """
    before_softmax = softmax_backward(grad_gated, step.content)
    by_norm = torch.mul(before_softmax, slopes.slot).sum(1, keepdim=True)  # through the slots' norms
    dot = before_softmax.mul_(slopes.dot)
    grad_memory.baddbmm_(step.query.transpose(1, 2), dot)
    grad_memory.addcmul_(memory, by_norm)
    query = torch.bmm(dot, memory.transpose(1, 2))
    torch.sum(query * slopes.unit_key, dim=-1, keepdim=True, out=grad.strength)
    torch.addcmul(query, slopes.unit_key, grad.strength, value=-1, out=grad.key).mul_(slopes.key)


# --- Location (eqs. 7 to 9) ------------------------------------------------------------------------------


class Location(NamedTuple):
    """The tape of addressing by location."""

    shifted: Tensor  # [T, B, H, N]
    log: Tensor  # [T, B, H, N], logarithm of the weighting, floored


class LocationSlopes(NamedTuple):
    gated: Tensor  # [T, B, H, 1, N], the interpolated weighting
    gate: Tensor  # [T, B, H, N]
    previous: Tensor  # [T, B, H, 1]
    shifted: Tensor  # [T, B, H, N]


class Ring:
    """Room for weightings [B, H, N] on a circle: padded at both ends with what comes from the other end."""

    def __init__(self, like: Tensor, n_shifts: int) -> None:
        batch, n_heads, n_slots = like.shape
        reach = n_shifts // 2
        padded = like.new_empty(batch, n_heads, n_slots + 2 * reach)
        self.centre = padded[..., reach : reach + n_slots]
        self.ends = [] if not reach else [
            (padded[..., :reach], padded[..., n_slots : n_slots + reach]),
            (padded[..., n_slots + reach :], padded[..., reach : 2 * reach]),
        ]  # fmt: skip
        # [B, H, S, N]; window s holds the slots moved by r - s, so that slot i of it is slot i + s - r
        self.windows = padded.unfold(-1, n_slots, 1)
        self.each_window = self.windows.unbind(2)
        self.products = torch.empty_like(self.windows, memory_format=torch.contiguous_format)

    def close(self) -> None:
        """Fill the ends; to be called after `centre` was written."""
        for end, source in self.ends:
            end.copy_(source)

    def sum(self, factors: Sequence[Tensor], out: Tensor) -> Tensor:
        """Sum over the windows, each times its factor [B, H, 1]."""
        first, *others = self.each_window
        torch.mul(first, factors[0], out=out)
        for window, factor in zip(others, factors[1:], strict=True):
            out.addcmul_(window, factor)
        return out

    def dots(self, other: Tensor) -> Tensor:
        """Dot products [B, H, S] of every window with `other` [B, H, 1, N]."""
        return torch.mul(self.windows, other, out=self.products).sum(-1)


def location_forward(
    step: Location,
    heads: HeadValues,
    shifts: Sequence[Tensor],
    content: Tensor,
    previous: Tensor,
    new: Tensor,
    ring: Ring,
    floor: float,
) -> None:
    """Fill `step` and the new weightings [B, H, N] from those by content and the previous ones."""
    torch.lerp(previous, content, heads.gate, out=ring.centre)
    ring.close()
    ring.sum(shifts[::-1], out=step.shifted)
    torch.clamp_min(step.shifted, floor, out=step.log).log_()
    power = torch.addcmul(step.log, step.log, heads.excess)
    torch.softmax(power, dim=-1, out=new)


def location_slopes(
    location: Location, heads: HeadValues, content: Tensor, previous: Tensor, floor: float
) -> LocationSlopes:
    inverse = location.shifted.clamp_min(floor).reciprocal_().mul_(location.shifted >= floor)
    return LocationSlopes(
        gated=torch.lerp(previous, content, heads.gate).unsqueeze(3),
        gate=content - previous,
        previous=1 - heads.gate,
        shifted=inverse.mul_(1 + heads.excess),
    )


def location_backward(
    grad: HeadValues,
    step: Location,
    slopes: LocationSlopes,
    shift: Tensor,
    shifts: Sequence[Tensor],
    new: Tensor,
    grad_weights: Tensor,
    ring: Ring,
) -> Tensor:
    """Fill the gradients of gate, shift and exponent; `grad_weights` [B, H, N] turns from that of the new weightings
    into that of the previous ones.

    Returns:
        The gradient of the interpolated weightings [B, H, N].
    """
    power = softmax_backward(grad_weights, new)
    torch.sum(power * step.log, dim=-1, keepdim=True, out=grad.excess)
    torch.mul(power, slopes.shifted, out=ring.centre)
    ring.close()
    grad.shift.copy_(softmax_backward(ring.dots(slopes.gated), shift))
    gated = ring.sum(shifts, out=power)
    torch.sum(gated * slopes.gate, dim=-1, keepdim=True, out=grad.gate)
    torch.mul(gated, slopes.previous, out=grad_weights)
    return gated
