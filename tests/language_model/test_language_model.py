"""The trunk: residuals and norms around injected sub-layers, carried state, vocabulary, costs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attn.adaptive_span import RelativePositions, SpanAttention
from attn.attention import LearnedPositions, MultiHeadAttention
from attn.language_model import LanguageModel, Stack, Vocabulary
from attn.transformer import FeedForward

D, V = 16, 11


class Causal(nn.Module):
    """Multi-head attention as a sub-layer."""

    def __init__(self):
        super().__init__()
        self.attention = MultiHeadAttention(d_model=D, n_heads=2)

    def forward(self, inputs):
        return self.attention(inputs, is_causal=True).output


class RunningSum(nn.Module):
    """Carries the sum of everything so far."""

    carries_state = True

    def forward(self, inputs, state):
        total = inputs.cumsum(1) if state is None else inputs.cumsum(1) + state
        return total, total[:, -1:]


def stack(norm_position="pre", **options):
    torch.manual_seed(0)
    layers = [[Causal(), FeedForward(d_model=D, d_ff=24)] for _ in range(2)]
    return Stack(layers, d_model=D, norm_position=norm_position, **options).double()


def model(**options):
    torch.manual_seed(1)
    vocabulary = Vocabulary(vocab_size=V, d_model=D, **options)
    positions = LearnedPositions(d_model=D, max_len=20)
    return LanguageModel(vocabulary=vocabulary, stack=stack(), positions=positions).double().eval()


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_the_stack_is_its_sublayers_with_residuals(norm_position):
    layers = stack(norm_position)
    inputs = torch.randn(2, 7, D, dtype=torch.float64)
    hidden = inputs
    for sublayer in [sublayer for layer in layers.layers for sublayer in layer]:
        if norm_position == "pre":
            hidden = hidden + sublayer(F.layer_norm(hidden, (D,)))
        else:
            hidden = F.layer_norm(hidden + sublayer(hidden), (D,))
    expected = F.layer_norm(hidden, (D,)) if norm_position == "pre" else hidden
    outputs, state = layers(inputs)
    torch.testing.assert_close(outputs, expected)
    assert state is None


def test_dropout_is_on_the_output_of_each_sublayer():
    layers = stack(dropout=0.999999)
    inputs = torch.randn(2, 7, D, dtype=torch.float64)
    torch.testing.assert_close(layers(inputs)[0], F.layer_norm(inputs, (D,)))
    assert not torch.allclose(layers.eval()(inputs)[0], F.layer_norm(inputs, (D,)))


def test_carried_state_makes_segments_one_text():
    torch.manual_seed(0)
    layers = Stack(
        [[RunningSum(), FeedForward(d_model=D, d_ff=8)], [RunningSum()]], d_model=D, norm_position="post"
    )
    inputs = torch.randn(2, 9, D)
    whole, _ = layers(inputs)
    state, parts = None, []
    for part in inputs.split(4, dim=1):
        outputs, state = layers(part, state)
        parts.append(outputs)
    assert [entry is None for entry in state] == [False, True, False]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_span_sublayer_carries_its_cache():
    torch.manual_seed(0)
    positions = RelativePositions(head_dim=8, max_span=6)
    spans = [
        SpanAttention(d_model=D, n_heads=2, positions=positions, ramp_size=2, initial_ratio=0.5)
        for _ in range(2)
    ]
    layers = Stack(
        [[span, FeedForward(d_model=D, d_ff=8)] for span in spans], d_model=D, norm_position="post"
    ).eval()
    inputs = torch.randn(2, 12, D)
    whole, _ = layers(inputs)
    state, parts = None, []
    for part in inputs.split(5, dim=1):
        outputs, state = layers(part, state)
        parts.append(outputs)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


def test_logits_come_from_the_embedding_or_a_matrix_of_their_own():
    hidden = torch.randn(2, 3, D)
    tied = Vocabulary(vocab_size=V, d_model=D, scale=4.0)
    torch.testing.assert_close(tied.logits(hidden), hidden @ tied.embedding.T)
    tokens = torch.tensor([[3, 0]])
    torch.testing.assert_close(tied.embed(tokens), 4 * tied.embedding[tokens])
    apart = Vocabulary(vocab_size=V, d_model=D, is_tied=False, use_bias=True, std=1.0)
    nn.init.normal_(apart.bias)
    torch.testing.assert_close(apart.logits(hidden), hidden @ apart.unembedding.T + apart.bias)
    assert sum(p.numel() for p in tied.parameters()) == V * D
    assert sum(p.numel() for p in apart.parameters()) == 2 * V * D + V
    assert apart.embedding.std().item() == pytest.approx(1.0, rel=0.2) and tied.embedding.std() < 0.4


def test_costs_are_of_the_logits():
    language_model = model()
    tokens, targets = torch.randint(0, V, (2, 2, 7))
    logits, _ = language_model(tokens)
    nats, _ = language_model(tokens, targets=targets)
    expected = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(nats, expected)


def test_no_output_depends_on_later_tokens():
    language_model = model()
    tokens = torch.randint(0, V, (2, 8))
    changed = tokens.clone()
    changed[:, 5:] = (tokens[:, 5:] + 1) % V
    logits, other = language_model(tokens)[0], language_model(changed)[0]
    torch.testing.assert_close(other[:, :5], logits[:, :5], rtol=0, atol=0)
    assert not torch.allclose(other[:, 5:], logits[:, 5:])


def test_positions_are_added():
    language_model = model()
    tokens = torch.full((1, 6), 3)
    with_positions = language_model(tokens)[0]
    language_model.positions = None
    without = language_model(tokens)[0]
    torch.testing.assert_close(without[:, 0], without[:, 5])
    assert not torch.allclose(with_positions[:, 0], with_positions[:, 5])


def test_half_precision_costs_are_in_single():
    language_model = model().bfloat16()
    nats, _ = language_model(torch.zeros(1, 2, dtype=torch.long), targets=torch.ones(1, 2, dtype=torch.long))
    assert nats.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Stack([[]], d_model=D), "layers must hold at least one sub-layer; got none"),
        (lambda: Stack([[Causal()]], d_model=0), "d_model must be a whole number of at least 1; got 0"),
        (lambda: Stack([[Causal()]], d_model=D, norm_position="mid"), "norm_position must be 'post' or 'pre'; got 'mid'"),
        (lambda: Vocabulary(vocab_size=0, d_model=D), "vocab_size must be a whole number of at least 1; got 0"),
        (lambda: model()(torch.full((1, 2), V)), f"tokens must hold token ids from 0 to {V - 1}; got {V}"),
        (lambda: model()(torch.zeros(1, 2).long(), targets=torch.zeros(1, 3).long()),
         r"targets must have the shape of tokens, \[1, 2\]; got \[1, 3\]"),
        (lambda: model()(torch.zeros(1, 2).long(), ()), "state must be None where positions are absolute"),
        (lambda: Stack([[Causal()], [Causal()]], d_model=D)(torch.zeros(1, 2, D), (None,)),
         "state must have 2 entries, one for each sub-layer and None where it carries nothing; got 1"),
        (lambda: model()(torch.zeros(1, 30).long()), "a sequence must not be longer than max_len = 20 positions; got 30"),
        (lambda: LanguageModel(vocabulary=Vocabulary(vocab_size=V, d_model=D), stack=stack(), dropout=1.0),
         "dropout must be a number from 0 to below 1; got 1.0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
