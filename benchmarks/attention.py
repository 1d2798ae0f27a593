"""Speed of multi-head attention and of the Transformer's layers, against torch's own modules with the same weights.

One call is a forward and a backward pass at the base model's sizes (width 512, 8 heads, feed-forward width 2048),
without dropout, on as many sequences as make TOKENS tokens. Torch is there twice: as its own module, and as bare calls,
linear maps around the fused kernel (scaled_dot_product_attention, SDPA). Around the same kernel these have less to do
than the module, so the figure to reach is against them. The plain version is ours with the attention weights
asked for, which then follows the paper's equation step by step. The last row is a whole update of the translation model
that chapter 1 trains at `cpu`, embeddings, loss and Adam included, against `torch.nn.Transformer` between the same ones.
Each row also says what a call holds at its peak.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.attention import MultiHeadAttention, causal_mask
from attn.data.tokenisation import PAD, UNK
from attn.evaluation.translation import token_nats
from attn.training import set_seed
from attn.transformer import DecoderLayer, EncoderLayer, Transformer
from benchmarks.reversible import held_bytes
from benchmarks.timing import Goal, Row, main
from tests.transformer.torch_copy import TorchTransformer, torch_attention, torch_layer

D_MODEL, N_HEADS, D_FF = 512, 8, 2048
TOKENS = 2048
LENGTHS = (64, 256, 1024)
OF_TORCH = 0.95  # the share of the speed of the faster of torch's two that ours is to reach
MEMORY_OF_TORCH = 1 / 1.1  # ours may hold a tenth more than that
SDPA = "linear maps and SDPA"
TORCHS_ATTENTION = "torch.nn.MultiheadAttention"
TORCHS_ENCODER = "torch.nn.TransformerEncoderLayer"
TORCHS_DECODER = "torch.nn.TransformerDecoderLayer"
TORCHS_MODEL = "torch.nn.Transformer"
MODEL = {"vocab_size": 5000, "d_model": 128, "n_heads": 4, "d_ff": 256, "n_layers": 4, "dropout": 0.0}
SENTENCE = 16  # tokens of a source and of a target, as in captions

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


def sdpa_attention(
    layer: MultiHeadAttention, query: Tensor, memory: Tensor | None = None, *, is_causal: bool = False
) -> Tensor:
    """`layer` as bare calls of torch, without checks, weights or a cache [B, T, D], memory [B, S, D]."""
    weight = layer.projection.weight
    if memory is None:
        parts = F.linear(query, weight).chunk(3, dim=-1)
    else:
        of_query, of_memory = weight.split([layer.d_model, 2 * layer.d_model])
        parts = F.linear(query, of_query), *F.linear(memory, of_memory).chunk(2, dim=-1)
    heads = (part.unflatten(-1, (layer.n_heads, -1)).transpose(1, 2) for part in parts)
    joined = F.scaled_dot_product_attention(*heads, is_causal=is_causal).transpose(1, 2).flatten(2)
    return F.linear(joined, layer.output.weight)


def sdpa_encoder(layer: EncoderLayer, inputs: Tensor) -> Tensor:
    """An encoder layer around `sdpa_attention` [B, S, D]."""
    hidden = layer.attention_residual.norm(inputs + sdpa_attention(layer.attention, inputs))
    return layer.feed_forward_residual.norm(hidden + layer.feed_forward(hidden))


def sdpa_decoder(layer: DecoderLayer, inputs: Tensor, memory: Tensor) -> Tensor:
    """A decoder layer around `sdpa_attention` [B, T, D], memory [B, S, D]."""
    own = sdpa_attention(layer.self_attention, inputs, is_causal=True)
    hidden = layer.self_residual.norm(inputs + own)
    hidden = layer.cross_residual.norm(hidden + sdpa_attention(layer.cross_attention, hidden, memory))
    return layer.feed_forward_residual.norm(hidden + layer.feed_forward(hidden))


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
        SDPA: (ours, lambda: sdpa_attention(ours, query, memory, is_causal=is_causal)),
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
        SDPA: (ours, lambda: sdpa_encoder(ours, inputs)),
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
        SDPA: (ours, lambda: sdpa_decoder(ours, inputs, memory)),
        "plain version": (ours, lambda: ours(inputs, memory, need_weights=True)[0]),
    }
    return {name: forward_and_backward(module, inputs, call) for name, (module, call) in variants.items()}


def build_training(device: torch.device) -> Mapping[str, Callable[[], None]]:
    """Variants of an update on pairs of sentences, a quarter of whose sources are padded."""
    set_seed(0)
    ours = Transformer(**MODEL, padding_index=PAD).to(device)
    theirs = TorchTransformer(ours)
    embedding = nn.Parameter(ours.embedding.detach().clone())
    source, target = torch.randint(
        UNK + 1, MODEL["vocab_size"], (2, TOKENS // SENTENCE, SENTENCE), device=device
    )
    source[::4, SENTENCE // 2 :] = PAD

    def embedded(tokens: Tensor) -> Tensor:
        positions = ours.source_positions(tokens.shape[1])
        return torch.add(positions, F.embedding(tokens, embedding), alpha=ours.embedding_scale)

    def torchs() -> Tensor:
        return F.linear(theirs(embedded(source), embedded(target), source == PAD), embedding)

    return {
        "attn.transformer": update(list(ours.parameters()), lambda: ours(source, target), target),
        TORCHS_MODEL: update([*theirs.layers.parameters(), embedding], torchs, target),
    }


def update(
    parameters: list[nn.Parameter], logits: Callable[[], Tensor], target: Tensor
) -> Callable[[], None]:
    """Forward and backward pass of the smoothed loss, and Adam."""
    optimizer = torch.optim.Adam(parameters, lr=1e-4, betas=(0.9, 0.98), fused=True)

    def step() -> None:
        (token_nats(logits(), target, 0.1) / target.numel()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def rows() -> list[Row]:
    """Every layer at every length, and the update."""
    builds: dict[str, Build] = {
        f"{kind}-attention": partial(build_attention, kind=kind) for kind in ("self", "causal", "cross")
    }
    builds |= {"encoder layer": build_encoder, "decoder layer": build_decoder}
    layers = [
        _row(f"{name}, {length}", partial(build, length=length), SDPA)
        for name, build in builds.items()
        for length in LENGTHS
    ]
    return [*layers, _row("training step", build_training, TORCHS_MODEL)]


def _row(name: str, build: Callable[[torch.device], Mapping[str, Callable[[], None]]], against: str) -> Row:
    return Row(
        name=name, units=TOKENS, build=build, goal=Goal(against, OF_TORCH), peak=held_bytes,
        memory_goal=Goal(against, MEMORY_OF_TORCH),
    )  # fmt: skip


if __name__ == "__main__":
    main(rows(), module="benchmarks.attention", unit="tokens")
