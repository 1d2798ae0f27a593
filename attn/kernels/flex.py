"""What all uses of FlexAttention share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import flex_attention

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # of its kernels
TILE = 128  # queries and keys of a tile of a block mask


@cache
def compiled() -> Callable[..., Any]:
    """FlexAttention, compiled at its first use."""
    return torch.compile(flex_attention)
