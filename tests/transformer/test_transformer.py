import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attn.reproduction.facts import load_papers
from attn.transformer import (
    DecoderLayer,
    DecodingState,
    EncoderLayer,
    FeedForward,
    Transformer,
)
from tests.transformer.torch_copy import TorchTransformer

DOUBLE = torch.float64
# float64 against float64: only the order of sums differs
EXACT = {"rtol": 1e-10, "atol": 1e-12}
VOCABULARY, PADDING = 11, 0


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def small(**changes):
    """A tiny model in float64 with every parameter drawn anew, biases and norms included."""
    sizes = {
        "vocab_size": VOCABULARY, "d_model": 12, "n_heads": 3, "d_ff": 20, "n_layers": 2, "dropout": 0.0,
        "max_len": 16, "padding_index": PADDING,
    }  # fmt: skip
    torch.manual_seed(0)
    model = Transformer(**(sizes | changes)).double()
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.add_(0.2 * random(*parameter.shape, seed=index))
    return model


def tokens(*shape, seed=0, low=1):
    return torch.randint(low, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def padded(tensor, *lengths):
    """With padding from `lengths` on in each row."""
    tensor = tensor.clone()
    for row, length in zip(tensor, lengths, strict=True):
        row[length:] = PADDING
    return tensor


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, **EXACT)


norm_positions = pytest.mark.parametrize("norm_position", ["post", "pre"])

SOURCE, TARGET = padded(tokens(3, 6, seed=1), 6, 4, 1), tokens(3, 5, seed=2)


# --- Against torch's layers --------------------------------------------------------------------------------


@norm_positions
def test_logits_and_gradients_equal_torch(norm_position):
    model = small(norm_position=norm_position)
    theirs = TorchTransformer(model)
    found = model(SOURCE, TARGET)

    def embedded(ids):
        pairs = [(i // 2 * 2, i % 2) for i in range(12)]
        angles = torch.tensor(
            [[position / 10000 ** (i / 12) for i, _ in pairs] for position in range(ids.shape[1])],
            dtype=DOUBLE,
        )
        is_cosine = torch.tensor([bool(odd) for _, odd in pairs])
        return model.embedding[ids] * 12**0.5 + torch.where(is_cosine, angles.cos(), angles.sin())

    hidden = theirs(embedded(SOURCE), embedded(TARGET), SOURCE == PADDING)
    expected = hidden @ model.embedding.T
    assert_equal(found, expected)
    weights = random(*found.shape, seed=9)
    own = torch.autograd.grad((found * weights).sum(), [model.embedding, *(own for own, _ in theirs.pairs)])
    other = torch.autograd.grad(
        (expected * weights).sum(), [model.embedding, *(other for _, other in theirs.pairs)]
    )
    assert len(theirs.pairs) == 2 * 10 + 2 * 14
    for mine, torchs in zip(own, other, strict=True):
        assert_equal(mine, torchs)


def test_feed_forward_by_hand():
    module = FeedForward(d_model=1, d_ff=2)
    with torch.no_grad():
        module.expand.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        module.expand.bias.copy_(torch.tensor([1.0, -1.0]))
        module.contract.weight.copy_(torch.tensor([[3.0, 5.0]]))
        module.contract.bias.fill_(0.5)
    # x = 1: (3, -2) -> 3 * 3 + 0.5; x = -2: (-3, 1) -> 5 * 1 + 0.5
    assert module(torch.tensor([[[1.0], [-2.0]]])).flatten().tolist() == [9.5, 5.5]


# --- Parameters and start ----------------------------------------------------------------------------------

BIG = {"d_model": 1024, "n_heads": 16, "d_ff": 4096}
ROWS = {
    "base": [{}],
    "A_all": [{"n_heads": heads} for heads in (1, 4, 16, 32)],
    "B_dk16": [{"head_dim": 16}],
    "B_dk32": [{"head_dim": 32}],
    "C_N2": [{"n_layers": 2}],
    "C_N4": [{"n_layers": 4}],
    "C_N8": [{"n_layers": 8}],
    "C_d256": [{"d_model": 256, "head_dim": 32, "value_dim": 32}],
    "C_d1024": [{"d_model": 1024, "head_dim": 128, "value_dim": 128}],
    "C_ff1024": [{"d_ff": 1024}],
    "C_ff4096": [{"d_ff": 4096}],
    "big": [BIG],
}


def counted(**sizes):
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(**({"vocab_size": 37000} | sizes)).parameters())


def test_parameter_counts_are_those_of_the_facts():
    facts = {entry["id"]: entry for entry in load_papers()["vaswani2017"].exact}["params_table3"]
    computed = facts["computed_million_at_V37000"]
    assert set(computed) == set(ROWS)
    for row, variants in ROWS.items():
        for sizes in variants:
            assert f"{counted(**sizes) / 1e6:.3f}" == f"{computed[row]:.3f}", row


def test_parameter_counts_follow_the_formula():
    def formula(v=37000, d=512, n=6, h=8, dk=64, dv=64, d_ff=2048):
        attention, feed_forward = 2 * d * h * dk + 2 * d * h * dv, 2 * d * d_ff + d_ff + d
        return v * d + n * (attention + feed_forward + 4 * d) + n * (2 * attention + feed_forward + 6 * d)

    assert counted() == formula() == 63_045_632
    assert counted(head_dim=16) == formula(dk=16)
    assert counted(**BIG) == formula(d=1024, h=16, d_ff=4096)
    assert counted(share_embeddings=False) == formula() + 2 * 37000 * 512
    assert counted(share_embeddings=False, target_vocab_size=100) == formula() + (2 * 100) * 512
    assert counted(norm_position="pre") == formula() + 2 * 2 * 512
    assert counted(positions="learned", max_len=64) == formula() + 2 * 64 * 512


def test_a_shared_matrix_is_stored_once():
    model = small()
    assert [name for name in model.state_dict() if "embedding" in name] == ["embedding"]
    other = small()
    with torch.no_grad():
        other.embedding.zero_()
    other.load_state_dict(model.state_dict())
    assert_equal(other(SOURCE, TARGET), model(SOURCE, TARGET))


def test_start_has_embeddings_of_variance_1_and_xavier_weights():
    torch.manual_seed(0)
    model = Transformer(vocab_size=2000, d_model=64, n_heads=4, d_ff=256, n_layers=1, share_embeddings=False)
    for matrix in (model.embedding, model.target_embedding, model.unembedding):
        assert (matrix * 64**0.5).std().item() == pytest.approx(1, rel=0.02)
    expand = model.decoder[0].feed_forward.expand
    bound = (6 / (64 + 256)) ** 0.5
    assert 0.98 * bound < expand.weight.abs().max() <= bound
    assert not expand.bias.any()


def test_three_matrices_have_three_tasks():
    model = small(share_embeddings=False, target_vocab_size=7)
    target = TARGET % 7
    before = model(SOURCE, target)
    assert before.shape == (3, 5, 7)
    memory = model.encode(SOURCE)[0]
    with torch.no_grad():
        model.unembedding.mul_(2)
        assert_equal(model(SOURCE, target), 2 * before)
        model.target_embedding.zero_()
        assert_equal(model.encode(SOURCE)[0], memory)
        assert not torch.allclose(model(SOURCE, target), 2 * before)


# --- What may depend on what -------------------------------------------------------------------------------


@norm_positions
def test_a_later_target_token_changes_no_earlier_logits(norm_position):
    model = small(norm_position=norm_position)
    before = model(SOURCE, TARGET)
    for place in range(5):
        changed = TARGET.clone()
        changed[:, place] = TARGET[:, place] % (VOCABULARY - 1) + 1
        after = model(SOURCE, changed)
        assert_equal(after[:, :place], before[:, :place])
        assert (after[:, place:] != before[:, place:]).any(-1).all()


def test_padding_changes_nothing():
    model = small(share_embeddings=False)
    before = model(SOURCE, TARGET)
    longer = F.pad(SOURCE, (0, 4), value=PADDING)
    assert_equal(model(longer, TARGET), before)
    # the same sentence alone and without padding
    assert_equal(model(SOURCE[1:2, :4], TARGET[1:2]), before[1:2])
    with torch.no_grad():
        model.embedding[PADDING] += 100
    assert_equal(model(SOURCE, TARGET), before)
    before.sum().backward()
    assert model.embedding.grad[PADDING].eq(0).all()
    assert model.embedding.grad[SOURCE[0]].ne(0).any(-1).all()


def test_padding_of_the_target_changes_nothing_before_it():
    model = small()
    before = model(SOURCE, TARGET)
    assert_equal(model(SOURCE, F.pad(TARGET, (0, 3), value=PADDING))[:, :5], before)


def test_without_a_padding_index_every_token_counts():
    model, masked = small(padding_index=None), small()
    assert model.encode(SOURCE)[1] is None
    assert_equal(model(SOURCE[:1], TARGET[:1]), masked(SOURCE[:1], TARGET[:1]))  # has no padding
    assert not torch.allclose(model(SOURCE[1:], TARGET[1:]), masked(SOURCE[1:], TARGET[1:]))


def test_a_source_of_nothing_but_padding_gives_finite_logits_and_gradients():
    model = small()
    source = SOURCE.clone()
    source[1] = PADDING
    logits = model(source, TARGET)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert_equal(logits[[0, 2]], model(SOURCE, TARGET)[[0, 2]])


def test_source_positions_matter():
    model = small()
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    assert not torch.allclose(model(SOURCE[:1, order], TARGET[:1]), model(SOURCE[:1], TARGET[:1]))


# --- Decoding ----------------------------------------------------------------------------------------------


@norm_positions
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("pieces", [[1] * 5, [2, 1, 2]])
def test_decoding_by_steps_equals_the_whole(pieces, positions, norm_position):
    model = small(positions=positions, norm_position=norm_position)
    state = model.initial_state(*model.encode(SOURCE))
    logits, length = [], 0
    for piece in TARGET.split(pieces, dim=1):
        assert state.length == length
        found, state = model.step(piece, state)
        logits.append(found)
        length += piece.shape[1]
    assert_equal(torch.cat(logits, dim=1), model(SOURCE, TARGET))


def test_a_step_leaves_its_state_as_it_was():
    model = small()
    _, state = model.step(TARGET[:, :2], model.initial_state(*model.encode(SOURCE)))
    first, _ = model.step(TARGET[:, 2:3], state)
    model.step(TARGET[:, 3:5], state)
    assert torch.equal(model.step(TARGET[:, 2:3], state)[0], first)


def test_selecting_rows_of_a_state_follows_the_beams():
    model = small()
    index = torch.tensor([2, 0, 0, 1])  # other order, one twice
    _, state = model.step(TARGET[:, :3], model.initial_state(*model.encode(SOURCE)))
    found, _ = model.step(TARGET[index, 3:], state.select(index))
    assert_equal(found, model(SOURCE, TARGET)[index][:, 3:])


@pytest.mark.parametrize("padding_index", [None, PADDING])
def test_beams_of_one_sentence_keep_its_source(padding_index):
    model = small(padding_index=padding_index)
    beams = torch.tensor([0, 0, 0])
    state: DecodingState = model.initial_state(*model.encode(SOURCE[1:2])).select(beams)
    _, state = model.step(TARGET[:, :3], state)
    index = torch.tensor([2, 2, 0])
    moved = state.select(index, same_source=True)
    assert moved.cross is state.cross and moved.memory_mask is state.memory_mask
    expected = model(SOURCE[[1, 1, 1]], TARGET)[index]
    assert_equal(model.step(TARGET[index, 3:], moved)[0], expected[:, 3:])


def test_decode_takes_what_encode_gives():
    model = small()
    memory, mask = model.encode(SOURCE)
    assert mask.shape == (3, 1, 1, 6)
    assert_equal(model.decode(TARGET, memory, mask), model(SOURCE, TARGET))
    assert not torch.allclose(model.decode(TARGET, memory), model(SOURCE, TARGET))


def test_attention_maps_are_the_weights_of_each_layer():
    model = small()
    maps = model.attention_maps(SOURCE, TARGET)
    for weights, shape in zip(maps, [(6, 6), (5, 5), (5, 6)], strict=True):
        assert len(weights) == 2
        for layer in weights:
            assert layer.shape == (3, 3, *shape) and not layer.requires_grad
            assert_equal(layer.sum(-1), torch.ones(3, 3, shape[0], dtype=DOUBLE))
    hidden = F.embedding(SOURCE, model.embedding) * 12**0.5 + model.source_positions(6)
    by_hand = model.encoder[0].attention(hidden, mask=model.encode(SOURCE)[1], need_weights=True).weights
    assert_equal(maps.encoder[0], by_hand)
    assert all(layer.triu(1).eq(0).all() for layer in maps.decoder)
    assert all(layer[1, ..., 4:].eq(0).all() for layer in (*maps.encoder, *maps.cross))


# --- Dropout, training, other ways to run ------------------------------------------------------------------


def test_dropout_acts_where_the_paper_says():
    model = small(dropout=0.3)
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, inputs, output: seen.append((module.p, output.shape)))
    model(SOURCE, TARGET)
    # the sum of embeddings and positions, then every sub-layer: 2 an encoder layer, 3 a decoder layer
    assert seen == [(0.3, (3, 6, 12))] * (1 + 2 * 2) + [(0.3, (3, 5, 12))] * (1 + 2 * 3)
    assert not torch.equal(model(SOURCE, TARGET), model(SOURCE, TARGET))
    model.eval()
    assert_equal(model(SOURCE, TARGET), small()(SOURCE, TARGET))


def test_attention_dropout_reaches_every_attention():
    model = small(attention_dropout=0.4)
    attentions = [layer.attention for layer in model.encoder]
    attentions += [part for layer in model.decoder for part in (layer.self_attention, layer.cross_attention)]
    assert [attention.dropout for attention in attentions] == [0.4] * 6
    assert not torch.equal(model(SOURCE, TARGET), model(SOURCE, TARGET))


@norm_positions
def test_one_batch_can_be_learned_by_heart(norm_position):
    torch.manual_seed(0)
    model = Transformer(
        vocab_size=VOCABULARY, d_model=32, n_heads=4, d_ff=64, n_layers=1, dropout=0.0, max_len=8,
        norm_position=norm_position,
    )  # fmt: skip
    source = tokens(4, 6, seed=3)
    target = F.pad(source.flip(1), (1, 0), value=PADDING)  # reversed, after a start symbol
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, betas=(0.9, 0.98), eps=1e-9)
    for _ in range(60):
        loss = F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = model.eval().initial_state(*model.encode(source))
    token = target[:, :1]
    for place in range(6):  # greedy decoding from its own tokens
        logits, state = model.step(token, state)
        token = logits.argmax(-1)
        assert torch.equal(token[:, 0], target[:, place + 1])


@pytest.mark.parametrize(
    ("norm_position", "options"),
    [("post", {"backend": "eager", "dynamic": True}), ("pre", {"backend": "aot_eager"})],
    ids=["post, any length", "pre"],
)
def test_compiled_equals_eager_without_a_graph_break(norm_position, options):
    model = small(n_layers=1, norm_position=norm_position)
    compiled = torch.compile(model, fullgraph=True, **options)
    parameters = list(model.parameters())
    results = []
    for kind in (compiled, model):
        logits = kind(SOURCE, TARGET)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), parameters)])
    for own, other in zip(*results, strict=True):
        assert_equal(own, other)


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch's own compiler needs one of C++"
)
def test_compiled_by_torch_s_default_equals_eager():
    model = small(n_layers=1, d_model=8, n_heads=2, d_ff=8)
    with torch.no_grad():
        assert_equal(torch.compile(model)(SOURCE, TARGET), model(SOURCE, TARGET))


def test_a_source_for_every_target_is_asked_for():
    with pytest.raises(ValueError, match=f"batches of {len(SOURCE)} and 1"):
        small()(SOURCE, TARGET[:1])


def test_autocast_and_half_precision_are_close():
    model = small().float()
    expected = model(SOURCE, TARGET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(SOURCE, TARGET)
        logits.float().square().mean().backward()
    scale = expected.std().item()
    assert (logits - expected).abs().mean() < 0.02 * scale
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    half = model.half()(SOURCE, TARGET)
    assert half.dtype == torch.float16
    assert (half - expected).abs().mean() < 0.01 * scale


# --- Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "d_model must be divisible by n_heads.*d_model=12 and n_heads=5"),
        ({"n_layers": 0}, "n_layers must be a whole number of at least 1; got 0"),
        ({"d_ff": 2.5}, "d_ff must be a whole number of at least 1; got 2.5"),
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1; got 0"),
        ({"target_vocab_size": 7}, "target_vocab_size must be vocab_size = 11.*got 7"),
        ({"padding_index": 11}, "padding_index must be None or from 0 to 10; got 11"),
        ({"positions": "rotary"}, "positions must be 'sinusoidal' or 'learned'; got 'rotary'"),
        ({"norm_position": "Post"}, "norm_position must be 'post' or 'pre'; got 'Post'"),
        ({"dropout": -0.1}, "dropout must be a number from 0 to below 1; got -0.1"),
        ({"max_len": 0}, "max_len must be a whole number of at least 1; got 0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (SOURCE + 10, TARGET, "source must hold token ids from 0 to 10; got 20"),
        (SOURCE, TARGET - 11, "target must hold token ids from 0 to 10; got -1"),
        (
            SOURCE.float(),
            TARGET,
            r"source must hold token ids, int64 or int32.*got torch.float32 of shape \[3, 6\]",
        ),
        (SOURCE, TARGET[0], r"target must hold token ids.*got torch.int64 of shape \[5\]"),
        (SOURCE.repeat(1, 3), TARGET, "not be longer than max_len = 16 positions; got 18"),
        (SOURCE, TARGET.repeat(1, 4), "not be longer than max_len = 16 positions; got 20"),
        (SOURCE[:2], TARGET, "source and target must hold as many sequences; got batches of 2 and 3"),
    ],
    ids=[
        "id too large",
        "id negative",
        "not whole",
        "not a batch",
        "long source",
        "long target",
        "batches differ",
    ],
)
def test_wrong_sequences_are_refused(source, target, message):
    with pytest.raises(ValueError, match=message):
        small()(source, target)


def test_a_wrong_memory_or_mask_is_refused():
    model = small()
    memory, mask = model.encode(SOURCE)
    with pytest.raises(ValueError, match=r"memory must have shape \[batch, length, 12\]; got \[3, 6, 11\]"):
        model.decode(TARGET, memory[..., :11], mask)
    with pytest.raises(ValueError, match=r"mask must be boolean.*torch.float64"):
        model.decode(TARGET, memory, mask.double())
    with pytest.raises(ValueError, match=r"mask must be broadcastable.*\[3, 3, 5, 6\]; got \[3, 1, 1, 4\]"):
        model.decode(TARGET, memory, mask[..., :4])


def test_decoding_beyond_the_positions_is_refused():
    model = small(max_len=6)
    _, state = model.step(TARGET, model.initial_state(*model.encode(SOURCE)))
    _, state = model.step(TARGET[:, :1], state)
    with pytest.raises(ValueError, match="max_len = 6 positions; got 7"):
        model.step(TARGET[:, :1], state)


def test_layers_stand_alone():
    encoder = EncoderLayer(d_model=8, n_heads=2, d_ff=16)
    decoder = DecoderLayer(d_model=8, n_heads=2, d_ff=16)
    memory, weights = encoder.eval()(torch.randn(2, 3, 8))
    outputs, cache, maps = decoder.eval()(torch.randn(2, 4, 8), memory, need_weights=True)
    assert weights is None and outputs.shape == (2, 4, 8)
    assert cache.key.shape == (2, 2, 4, 4)
    assert [part.shape for part in maps] == [(2, 2, 4, 4), (2, 2, 4, 3)]
