"""Speed of multi-head attention and of the Transformer's layers, against torch's own modules with the same weights.

One call is a forward and a backward pass at the base model's sizes (width 512, 8 heads, feed-forward width 2048),
without dropout, on as many sequences as make TOKENS tokens. The plain version is ours with the attention weights
asked for, which then follows the paper's equation step by step.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from attn.attention import MultiHeadAttention, causal_mask
from attn.training import set_seed
from attn.transformer import DecoderLayer, EncoderLayer
from benchmarks.timing import Goal, Row, main
from tests.transformer.torch_copy import torch_attention, torch_layer

D_MODEL, N_HEADS, D_FF = 512, 8, 2048
TOKENS = 2048
LENGTHS = (64, 256, 1024)
OF_TORCH = 0.95  # the share of the speed of torch's own module that ours is to reach
TORCHS_ATTENTION = "torch.nn.MultiheadAttention"
TORCHS_ENCODER = "torch.nn.TransformerEncoderLayer"
TORCHS_DECODER = "torch.nn.TransformerDecoderLayer"

Build = Callable[..., Mapping[str, Callable[[], None]]]


def forward_and_backward(module: nn.Module, inputs: Tensor, call: Callable[[], Tensor]) -> Callable[[], None]:
    """`call` and its backward pass, for a gradient of the outputs drawn once."""
    gradient = torch.randn_like(inputs)

    def step() -> None:
        call().backward(gradient)
        inputs.grad = None
        module.zero_grad()

    return step


def sequences(device: torch.device, length: int) -> Tensor:
    """Inputs [B, length, D] that ask for a gradient."""
    return torch.randn(TOKENS // length, length, D_MODEL, device=device, requires_grad=True)


def build_attention(device: torch.device, length: int, kind: str) -> Mapping[str, Callable[[], None]]:
    """Variants of multi-head attention of a kind: "self", "causal" or "cross"."""
    set_seed(0)
    ours = MultiHeadAttention(d_model=D_MODEL, n_heads=N_HEADS).to(device)
    theirs = torch_attention(ours)
    query = sequences(device, length)
    memory = sequences(device, length) if kind == "cross" else None
    theirs_memory = query if memory is None else memory
    is_causal = kind == "causal"
    theirs_mask = ~causal_mask(length, device=device) if is_causal else None

    def torchs() -> Tensor:
        return theirs(
            query,
            theirs_memory,
            theirs_memory,
            need_weights=False,
            attn_mask=theirs_mask,
            is_causal=is_causal,
        )[0]

    variants = {
        "attn.attention": (ours, lambda: ours(query, memory, is_causal=is_causal).output),
        TORCHS_ATTENTION: (theirs, torchs),
        "plain version": (
            ours,
            lambda: ours(query, memory, is_causal=is_causal, need_weights=True).output,
        ),
    }
    return {name: forward_and_backward(module, query, call) for name, (module, call) in variants.items()}


def build_encoder(device: torch.device, length: int) -> Mapping[str, Callable[[], None]]:
    """Variants of an encoder layer."""
    set_seed(0)
    ours = EncoderLayer(d_model=D_MODEL, n_heads=N_HEADS, d_ff=D_FF, dropout=0.0).to(device)
    theirs = torch_layer(ours)
    inputs = sequences(device, length)
    variants = {
        "attn.transformer": (ours, lambda: ours(inputs)[0]),
        TORCHS_ENCODER: (theirs, lambda: theirs(inputs)),
        "plain version": (ours, lambda: ours(inputs, need_weights=True)[0]),
    }
    return {name: forward_and_backward(module, inputs, call) for name, (module, call) in variants.items()}


def build_decoder(device: torch.device, length: int) -> Mapping[str, Callable[[], None]]:
    """Variants of a decoder layer, with as many source tokens as target tokens."""
    set_seed(0)
    ours = DecoderLayer(d_model=D_MODEL, n_heads=N_HEADS, d_ff=D_FF, dropout=0.0).to(device)
    theirs = torch_layer(ours)
    inputs, memory = sequences(device, length), sequences(device, length)
    mask = ~causal_mask(length, device=device)
    variants = {
        "attn.transformer": (ours, lambda: ours(inputs, memory)[0]),
        TORCHS_DECODER: (
            theirs,
            lambda: theirs(inputs, memory, tgt_mask=mask, tgt_is_causal=True),
        ),
        "plain version": (ours, lambda: ours(inputs, memory, need_weights=True)[0]),
    }
    return {name: forward_and_backward(module, inputs, call) for name, (module, call) in variants.items()}


def rows() -> list[Row]:
    """Every layer at every length."""
    builds: dict[str, tuple[Build, str]] = {
        f"{kind}-attention": (partial(build_attention, kind=kind), TORCHS_ATTENTION)
        for kind in ("self", "causal", "cross")
    }
    builds["encoder layer"] = build_encoder, TORCHS_ENCODER
    builds["decoder layer"] = build_decoder, TORCHS_DECODER
    return [
        Row(
            name=f"{name}, {length}",
            units=TOKENS,
            build=partial(build, length=length),
            goal=Goal(torchs, OF_TORCH),
        )
        for name, (build, torchs) in builds.items()
        for length in LENGTHS
    ]


if __name__ == "__main__":
    main(rows(), module="benchmarks.attention", unit="tokens")
