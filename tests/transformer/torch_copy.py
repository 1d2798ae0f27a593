"""torch's own encoder and decoder stacks with the weights of ours, for tests and benchmarks."""

import torch
from torch import Tensor, nn

from attn.attention import MultiHeadAttention
from attn.transformer import DecoderLayer, EncoderLayer, Transformer


def _names(layer: EncoderLayer | DecoderLayer) -> dict[str, str]:
    """Our name of each parameter to torch's."""
    if isinstance(layer, EncoderLayer):
        attentions = {"attention": "self_attn"}
        norms = ["attention_residual", "feed_forward_residual"]
    else:
        attentions = {"self_attention": "self_attn", "cross_attention": "multihead_attn"}
        norms = ["self_residual", "cross_residual", "feed_forward_residual"]
    names = {}
    for ours, theirs in attentions.items():
        names[f"{ours}.projection.weight"] = f"{theirs}.in_proj_weight"
        names[f"{ours}.output.weight"] = f"{theirs}.out_proj.weight"
    for number, norm in enumerate(norms, start=1):
        for part in ("weight", "bias"):
            names[f"{norm}.norm.{part}"] = f"norm{number}.{part}"
    for ours, theirs in {"expand": "linear1", "contract": "linear2"}.items():
        for part in ("weight", "bias"):
            names[f"feed_forward.{ours}.{part}"] = f"{theirs}.{part}"
    return names


def pairs_of(ours: nn.Module, theirs: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Every parameter of our layer with torch's."""
    own, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    names = _names(ours)
    assert set(names) == set(own) and set(names.values()) == set(other)
    return [(own[ours_name], other[name]) for ours_name, name in names.items()]


def torch_attention(attention: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's attention with our weights; no biases, dropout 0."""
    weight = attention.projection.weight
    theirs = nn.MultiheadAttention(
        attention.d_model,
        attention.n_heads,
        bias=False,
        batch_first=True,
        dtype=weight.dtype,
        device=weight.device,
    )
    with torch.no_grad():
        theirs.in_proj_weight.copy_(weight)
        theirs.out_proj.weight.copy_(attention.output.weight)
    return theirs


def torch_layer(layer: EncoderLayer | DecoderLayer) -> nn.Module:
    """torch's layer with our weights; dropout 0."""
    kind = nn.TransformerEncoderLayer if isinstance(layer, EncoderLayer) else nn.TransformerDecoderLayer
    expand = layer.feed_forward.expand
    theirs = kind(
        expand.in_features,
        layer.get_submodule("attention" if isinstance(layer, EncoderLayer) else "self_attention").n_heads,
        dim_feedforward=expand.out_features,
        dropout=0.0,
        batch_first=True,
        norm_first=not layer.feed_forward_residual.is_post,
        dtype=expand.weight.dtype,
        device=expand.weight.device,
    )
    for attention in (module for module in theirs.modules() if isinstance(module, nn.MultiheadAttention)):
        # torch's layers have either all biases or none
        attention.in_proj_bias = attention.out_proj.bias = None
    with torch.no_grad():
        for own, other in pairs_of(layer, theirs):
            other.copy_(own)
    return theirs


class TorchTransformer(nn.Module):
    """The layers of `nn.Transformer` between our embeddings; dropout 0."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.layers = nn.Transformer(
            d_model=model.embedding.shape[1],
            custom_encoder=_stack(nn.TransformerEncoder, model.encoder, model.encoder_norm),
            custom_decoder=_stack(nn.TransformerDecoder, model.decoder, model.decoder_norm),
            batch_first=True,
        )
        self.pairs = [
            pair
            for own, other in ((model.encoder, self.layers.encoder), (model.decoder, self.layers.decoder))
            for layer, theirs in zip(own, other.layers, strict=True)
            for pair in pairs_of(layer, theirs)
        ]
        with torch.no_grad():
            for own, other in self.pairs:  # once more: `nn.Transformer` draws the weights of its stacks anew
                other.copy_(own)

    def forward(self, source: Tensor, target: Tensor, source_padding: Tensor) -> Tensor:
        """From embedded sequences [B, S, D] and [B, T, D] and what is padding [B, S] to outputs [B, T, D]."""
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=target.dtype)
        return self.layers(
            source, target, tgt_mask=causal, src_key_padding_mask=source_padding, memory_key_padding_mask=source_padding
        )  # fmt: skip


def _stack(kind: type[nn.Module], layers: nn.ModuleList, norm: nn.Module) -> nn.Module:
    copies = [torch_layer(layer) for layer in layers]
    options = {"enable_nested_tensor": False} if kind is nn.TransformerEncoder else {}
    stack = kind(copies[0], len(copies), norm=norm, **options)
    stack.layers = nn.ModuleList(copies)
    return stack
