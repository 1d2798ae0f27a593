import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attn.recurrent_translation import AdditiveAttention, RecurrentTranslator
from attn.reproduction.facts import load_papers
from tests.recurrent_translation import reference

DOUBLE = torch.float64
# float64 against float64: only the order of sums differs
EXACT = {"rtol": 1e-10, "atol": 1e-12}
VOCABULARY, PADDING = 9, 0


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def tokens(*shape, seed=0):
    return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def drawn_anew(module):
    """In float64 with every parameter moved from where it started, biases included."""
    module.double()
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.add_(0.3 * random(*parameter.shape, seed=index))
    return module


def small(**changes):
    sizes = {
        "vocab_size": VOCABULARY, "target_vocab_size": 7, "embedding_dim": 5, "hidden_size": 6,
        "alignment_size": 4, "maxout_size": 3, "padding_index": PADDING,
    }  # fmt: skip
    torch.manual_seed(0)
    return drawn_anew(RecurrentTranslator(**(sizes | changes)))


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, **EXACT)


LENGTHS = (6, 4, 1)
SOURCE = tokens(3, 6, seed=1)
for row, length in zip(SOURCE, LENGTHS, strict=True):
    row[length:] = PADDING
TARGET = tokens(3, 5, seed=2) % 7

cells = pytest.mark.parametrize("cell", ["gru", "lstm"])
attentions = pytest.mark.parametrize("attention", ["additive", None])


# --- Additive attention ------------------------------------------------------------------------------------


def attention_layer(**changes):
    return drawn_anew(AdditiveAttention(**({"query_dim": 3, "memory_dim": 4, "hidden_size": 5} | changes)))


QUERY, MEMORY = random(2, 3, 3, seed=3), random(2, 4, 4, seed=4)
MASK = torch.tensor([[[True, True, False, True]], [[False, True, False, False]]])


def test_attention_by_hand():
    layer = AdditiveAttention(query_dim=1, memory_dim=1, hidden_size=1, use_bias=False).double()
    half = math.log(3) / 2  # tanh of it is 1 / 2
    with torch.no_grad():
        for matrix, value in ((layer.query.weight, 1), (layer.key.weight, 1), (layer.score, 2 * math.log(3))):
            matrix.fill_(value)
    query = torch.tensor([[[half]]], dtype=DOUBLE)
    memory = torch.tensor([[[0.0], [-half]]], dtype=DOUBLE)
    # energies v tanh(half) = log 3 and v tanh(0) = 0, so 3 to 1
    context, weights = layer(query, memory)
    assert_equal(weights, torch.tensor([[[0.75, 0.25]]], dtype=DOUBLE))
    assert context.item() == pytest.approx(-half / 4)


@pytest.mark.parametrize("use_bias", [True, False])
def test_attention_equals_the_sums_of_the_paper(use_bias):
    layer = attention_layer(use_bias=use_bias)
    contexts, weights = layer(QUERY, MEMORY, MASK)
    matrices = [layer.query.weight, layer.key.weight, layer.score[0]]
    for b in range(2):
        allowed = MASK[b, 0].nonzero()[:, 0].tolist()
        for t in range(3):
            context, alphas = reference.additive_attention(
                QUERY[b, t], [MEMORY[b, j] for j in allowed], *matrices, layer.key.bias if use_bias else 0.0
            )
            assert_equal(contexts[b, t], context)
            assert_equal(weights[b, t, allowed], torch.stack(alphas))


def test_weights_sum_to_1_and_are_0_where_nothing_may_be_seen():
    layer = attention_layer()
    context, weights = layer(QUERY, MEMORY, MASK)
    assert_equal(weights.sum(-1), torch.ones(2, 3, dtype=DOUBLE))
    assert torch.equal(weights > 0, MASK.expand(2, 3, 4))
    changed = MEMORY.masked_fill(~MASK[:, 0, :, None], 100.0)
    assert_equal(layer(QUERY, changed, MASK)[0], context)


def test_a_mask_of_each_query_and_one_for_all_rows():
    layer = attention_layer()
    each = torch.tensor([[True, False, True, True], [False, True, True, False], [True] * 4])
    context, weights = layer(QUERY, MEMORY, each)
    for t in range(3):
        alone = layer(QUERY[:, t : t + 1], MEMORY[:, each[t]])
        assert_equal(context[:, t : t + 1], alone[0])
        assert_equal(weights[:, t : t + 1, each[t]], alone[1])


def test_a_query_without_a_key_gets_zeros_and_finite_gradients():
    layer = attention_layer()
    query, memory = QUERY.clone().requires_grad_(), MEMORY.clone().requires_grad_()
    mask = MASK & torch.tensor([True, False])[:, None, None]
    context, weights = layer(query, memory, mask)
    assert not context[1].any() and not weights[1].any()
    assert_equal(context[0], layer(QUERY, MEMORY, MASK)[0][0])
    (context.sum() + weights.square().sum()).backward()
    assert not query.grad[1].any() and not memory.grad[1].any()
    assert all(part.grad.isfinite().all() for part in (query, memory, *layer.parameters()))


def test_keys_are_the_projected_memory():
    layer = attention_layer()
    keys = layer.project(MEMORY)
    assert_equal(keys, MEMORY @ layer.key.weight.T + layer.key.bias)
    for found, expected in zip(
        layer(QUERY, MEMORY, MASK, keys=keys), layer(QUERY, MEMORY, MASK), strict=True
    ):
        assert_equal(found, expected)
    assert not torch.allclose(layer(QUERY, MEMORY, MASK, keys=2 * keys)[1], layer(QUERY, MEMORY, MASK)[1])


def test_gradients_of_attention():
    layer = attention_layer()
    names = list(dict(layer.named_parameters()))

    def attend(query, memory, *parameters):
        arguments = (query, memory, MASK)
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), arguments)

    inputs = [QUERY, MEMORY, *layer.parameters()]
    assert torch.autograd.gradcheck(attend, [part.detach().requires_grad_() for part in inputs])


def test_attention_in_half_precision_is_close():
    layer = attention_layer()
    expected, _ = layer(QUERY, MEMORY, MASK)
    context, weights = layer.bfloat16()(QUERY.bfloat16(), MEMORY.bfloat16(), MASK)
    assert context.dtype == weights.dtype == torch.bfloat16
    assert (context - expected).abs().max() < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((QUERY[..., :2], MEMORY), r"query must have shape \[batch, length, 3\]; got \[2, 3, 2\]"),
        ((QUERY, MEMORY[0]), r"memory must have shape \[batch, length, 4\]; got \[4, 4\]"),
        ((QUERY, MEMORY, MASK.long()), "mask must be boolean.*got torch.int64"),
        ((QUERY, MEMORY, MASK[..., :3]), r"mask must be broadcastable to \[2, 3, 4\]; got \[2, 1, 3\]"),
    ],
)
def test_attention_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        attention_layer()(*arguments)


# --- The whole model, word by word -------------------------------------------------------------------------


@cells
@attentions
@pytest.mark.parametrize("use_bias", [True, False])
def test_logits_and_gradients_equal_the_equations(cell, attention, use_bias):
    model = small(cell=cell, attention=attention, use_bias=use_bias)
    logits = model(SOURCE, TARGET)
    expected = torch.stack([
        reference.translate(model, source[:length].tolist(), target.tolist())[0]
        for source, length, target in zip(SOURCE, LENGTHS, TARGET, strict=True)
    ])  # fmt: skip
    assert_equal(logits, expected)
    weights = random(*logits.shape, seed=9)
    parameters = list(model.parameters())
    own, other = (torch.autograd.grad((found * weights).sum(), parameters) for found in (logits, expected))
    for mine, theirs in zip(own, other, strict=True):
        assert_equal(mine, theirs)


def test_the_reset_gate_is_torchs_and_not_the_papers():
    model = small()
    source, target = SOURCE[:1], TARGET[:1]

    def expected(reset):
        return reference.translate(model, source[0].tolist(), target[0].tolist(), reset=reset)[0]

    assert not torch.allclose(model(source, target)[0], expected("before"), atol=1e-3)
    # r * (U s) is U (r * s) for a diagonal U, and without a bias on it the two conventions are one
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "weight_hh" in name:
                parameter.mul_(torch.eye(6, dtype=DOUBLE).repeat(3, 1))
            if "bias_hh" in name:
                parameter.zero_()
    assert_equal(model(source, target)[0], expected("before"))


@cells
def test_alignments_are_the_weights_of_forward(cell):
    model = small(cell=cell)
    found = model.alignments(SOURCE, TARGET)
    assert found.shape == (3, 5, 6) and not found.requires_grad
    assert_equal(found.sum(-1), torch.ones(3, 5, dtype=DOUBLE))
    for row, (source, length, target) in enumerate(zip(SOURCE, LENGTHS, TARGET, strict=True)):
        _, weights = reference.translate(model, source[:length].tolist(), target.tolist())
        assert_equal(found[row, :, :length], weights)
        assert not found[row, :, length:].any()


def test_what_the_encoder_gives():
    memory, mask = small().encode(SOURCE)
    assert memory.shape == (3, 6, 12) and torch.equal(mask, (SOURCE != PADDING)[:, None, None, :])
    assert not memory[~mask[:, 0, 0]].any()
    changed = SOURCE.clone()
    changed[0, 3] = SOURCE[0, 3] % (VOCABULARY - 1) + 1
    moved = (small().encode(changed)[0] - memory).abs().amax(-1) > 0
    assert moved[0].all() and not moved[1:].any()
    halves = (small().encode(changed)[0] - memory)[0].ne(0)
    # forward states know the words up to theirs, backward states those from theirs on
    assert halves[:, :6].any(-1).tolist() == [False] * 3 + [True] * 3
    assert halves[:, 6:].any(-1).tolist() == [True] * 4 + [False] * 2
    memory, mask = small(attention=None).encode(SOURCE)
    assert memory.shape == (3, 1, 6) and mask is None


# --- What may depend on what -------------------------------------------------------------------------------


@cells
@attentions
def test_padding_changes_nothing(cell, attention):
    model = small(cell=cell, attention=attention)
    before = model(SOURCE, TARGET)
    assert_equal(model(F.pad(SOURCE, (0, 3), value=PADDING), TARGET), before)
    assert_equal(model(SOURCE[1:2, :4], TARGET[1:2]), before[1:2])  # alone and without padding
    with torch.no_grad():
        model.embedding.weight[PADDING] += 100
    assert_equal(model(SOURCE, TARGET), before)
    before.sum().backward()
    assert model.embedding.weight.grad[PADDING].eq(0).all()
    assert model.embedding.weight.grad[SOURCE[0]].ne(0).any(-1).all()


@cells
@attentions
def test_a_source_of_nothing_but_padding_counts_for_nothing(cell, attention):
    model = small(cell=cell, attention=attention)
    source = SOURCE.clone()
    source[1] = PADDING
    logits = model(source, TARGET)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert_equal(logits[[0, 2]], model(SOURCE, TARGET)[[0, 2]])
    with torch.no_grad():
        model.embedding.weight[PADDING] += 100
    assert_equal(model(source, TARGET), logits)


@attentions
def test_without_a_padding_index_every_token_counts(attention):
    model, masked = small(attention=attention, padding_index=None), small(attention=attention)
    assert model.encode(SOURCE)[1] is None
    assert_equal(model(SOURCE[:1], TARGET[:1]), masked(SOURCE[:1], TARGET[:1]))  # has no padding
    assert not torch.allclose(model(SOURCE[1:], TARGET[1:]), masked(SOURCE[1:], TARGET[1:]))


@attentions
def test_a_later_target_token_changes_no_earlier_logits(attention):
    model = small(attention=attention)
    before = model(SOURCE, TARGET)
    for place in range(5):
        changed = TARGET.clone()
        changed[:, place] = (TARGET[:, place] + 1) % 7
        after = model(SOURCE, changed)
        assert_equal(after[:, :place], before[:, :place])
        assert (after[:, place:] != before[:, place:]).any(-1).all()


# --- Decoding ----------------------------------------------------------------------------------------------


@cells
@attentions
@pytest.mark.parametrize("pieces", [[1] * 5, [2, 1, 2]])
def test_decoding_by_steps_equals_the_whole(pieces, cell, attention):
    model = small(cell=cell, attention=attention)
    state = model.initial_state(*model.encode(SOURCE))
    logits, length = [], 0
    for piece in TARGET.split(pieces, dim=1):
        assert state.length == length
        found, state = model.step(piece, state)
        logits.append(found)
        length += piece.shape[1]
    assert_equal(torch.cat(logits, dim=1), model(SOURCE, TARGET))


@cells
@attentions
def test_a_step_leaves_its_state_as_it_was(cell, attention):
    model = small(cell=cell, attention=attention)
    _, state = model.step(TARGET[:, :2], model.initial_state(*model.encode(SOURCE)))
    first, _ = model.step(TARGET[:, 2:3], state)
    model.step(TARGET[:, 3:5], state)
    assert torch.equal(model.step(TARGET[:, 2:3], state)[0], first)


@cells
@attentions
def test_selecting_rows_of_a_state_follows_the_beams(cell, attention):
    model = small(cell=cell, attention=attention)
    index = torch.tensor([2, 0, 0, 1])  # other order, one twice
    _, state = model.step(TARGET[:, :3], model.initial_state(*model.encode(SOURCE)))
    found, state = model.step(TARGET[index, 3:], state.select(index))
    assert_equal(found, model(SOURCE, TARGET)[index][:, 3:])
    assert state.length == 5


@attentions
@pytest.mark.parametrize("padding_index", [None, PADDING])
def test_beams_of_one_sentence_keep_its_source(padding_index, attention):
    model = small(padding_index=padding_index, attention=attention, cell="lstm")
    beams = torch.tensor([0, 0, 0])
    state = model.initial_state(*model.encode(SOURCE[1:2])).select(beams)
    _, state = model.step(TARGET[:, :3], state)
    index = torch.tensor([2, 2, 0])
    moved = state.select(index, same_source=True)
    assert moved.memory is state.memory and moved.keys is state.keys
    assert moved.memory_mask is state.memory_mask
    expected = model(SOURCE[[1, 1, 1]], TARGET)[index]
    assert_equal(model.step(TARGET[index, 3:], moved)[0], expected[:, 3:])


def test_decode_takes_what_encode_gives():
    model = small()
    memory, mask = model.encode(SOURCE)
    assert_equal(model.decode(TARGET, memory, mask), model(SOURCE, TARGET))
    assert not torch.allclose(model.decode(TARGET, memory), model(SOURCE, TARGET))
    # one mask for every row, whose rows may yet change places
    mask = torch.tensor([True, True, False, True, True, True])
    found = model.decode(TARGET, memory, mask)
    assert_equal(found[1:2], model.decode(TARGET[1:2], memory[1:2], mask[None, None, None]))
    index = torch.tensor([2, 1, 0])
    moved = model.initial_state(memory, mask).select(index)
    assert_equal(model.step(TARGET[index], moved)[0], found[index])


# --- Parameters and start ----------------------------------------------------------------------------------


def counted(**changes):
    with torch.device("meta"):
        model = RecurrentTranslator(**({"vocab_size": 30000} | changes))
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def test_parameter_counts_are_those_of_the_facts():
    fact = {entry["id"]: entry for entry in load_papers()["bahdanau2015"].exact}["params"]["convention"]
    search, fixed = counted(use_bias=False), counted(use_bias=False, attention=None)
    assert f"RNNsearch {sum(search.values()):,} =" in fact
    assert f"RNNencdec {sum(fixed.values()):,} with a 1000-dimensional context" in fact

    def share(*owners):
        count = sum(size for name, size in search.items() if name.split(".")[0] in owners)
        return f"{count / 1e6:.3f}".rstrip("0")

    assert f"{share('embedding')}M source embedding" in fact
    assert f"{share('target_embedding')}M target embedding" in fact
    assert f"{share('encoder')}M encoder" in fact
    assert f"{share('decoder', 'start')}M decoder" in fact
    assert f"{share('attention')}M alignment" in fact
    assert f"{share('maxout', 'unembedding')}M output" in fact


def test_biases_come_on_top():
    gates = 2 * 3 * 1000  # torch's two a gate
    rest = 1000 + 1000 + 30000  # W_s, the pairs, the logits
    with_attention = sum(counted().values()) - sum(counted(use_bias=False).values())
    assert with_attention == 3 * gates + 1000 + rest
    without = sum(counted(attention=None).values()) - sum(counted(attention=None, use_bias=False).values())
    assert without == 2 * gates + rest


SIZES = {"vocab_size": 500, "embedding_dim": 40, "hidden_size": 30, "alignment_size": 50, "maxout_size": 200}


@cells
def test_start_of_the_paper(cell):
    torch.manual_seed(0)
    model = RecurrentTranslator(**SIZES, cell=cell, init="paper")
    for name, parameter in model.named_parameters():
        if "weight_hh" in name:
            for gate in parameter.split(30):
                torch.testing.assert_close(gate @ gate.T, torch.eye(30), rtol=0, atol=1e-5)
        elif "bias" in name or name == "attention.score":
            assert not parameter.any(), name
        else:
            deviation = 0.001 if name.startswith("attention.") else 0.01
            assert parameter.std().item() == pytest.approx(deviation, rel=0.1), name
    for _ in range(2):  # a start from which learning can move on
        model(torch.tensor([[1, 2]]), torch.tensor([[1, 2]])).square().sum().backward()
        assert model.attention.score.grad.any()


@cells
def test_start_for_adam(cell):
    torch.manual_seed(0)
    model = RecurrentTranslator(**SIZES, cell=cell)
    for name, parameter in model.named_parameters():
        if "weight_hh" in name:
            for gate in parameter.split(30):
                torch.testing.assert_close(gate @ gate.T, torch.eye(30), rtol=0, atol=1e-5)
        elif "weight_ih" in name:
            for gate in parameter.split(30):
                bound = (6 / (30 + gate.shape[1])) ** 0.5
                assert 0.95 * bound < gate.abs().max() <= bound, name
        elif "embedding.weight" in name and name != "unembedding.weight":
            assert parameter.std().item() == pytest.approx(1, rel=0.05), name
        elif "bias" in name:
            forget = slice(30, 60) if cell == "lstm" and "bias_ih" in name else slice(0)
            assert parameter[forget].eq(1).all(), name
            assert parameter.sum() == parameter[forget].sum(), name


# --- Dropout, training, other ways to run ------------------------------------------------------------------


@attentions
def test_dropout_acts_on_embeddings_and_maxima(attention):
    model, plain = small(dropout=0.4, attention=attention), small(attention=attention)
    seen = []
    model.dropout.register_forward_hook(lambda module, inputs, output: seen.append((module.p, output.shape)))
    model(SOURCE, TARGET)
    assert seen == [(0.4, (3, 6, 5)), (0.4, (3, 5, 5)), (0.4, (3, 5, 3))]
    assert not torch.equal(model(SOURCE, TARGET), model(SOURCE, TARGET))
    assert [type(module) for module in model.modules() if getattr(module, "p", 0)] == [nn.Dropout]
    model.eval()
    assert_equal(model(SOURCE, TARGET), plain(SOURCE, TARGET))
    assert_equal(plain(SOURCE, TARGET), plain(SOURCE, TARGET))


@cells
@attentions
def test_one_batch_can_be_learned_by_heart(cell, attention):
    torch.manual_seed(0)
    model = RecurrentTranslator(
        vocab_size=VOCABULARY, embedding_dim=16, hidden_size=24, alignment_size=16, maxout_size=16, cell=cell,
        attention=attention,
    )  # fmt: skip
    source = tokens(4, 5, seed=3)
    target = F.pad(source.flip(1), (1, 0), value=PADDING)  # reversed, after a start symbol
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(40):
        loss = F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    state = model.eval().initial_state(*model.encode(source))
    token = target[:, :1]
    for place in range(5):  # greedy decoding from its own tokens
        logits, state = model.step(token, state)
        token = logits.argmax(-1)
        assert torch.equal(token[:, 0], target[:, place + 1])


def test_attention_learns_to_reverse_unseen_sequences():
    torch.manual_seed(0)
    model = RecurrentTranslator(
        vocab_size=8,
        embedding_dim=16,
        hidden_size=32,
        alignment_size=32,
        maxout_size=16,
        padding_index=PADDING,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def batch():
        source = torch.randint(2, 8, (32, 5))
        return source, F.pad(source.flip(1), (1, 0), value=1)

    for _ in range(100):
        source, target = batch()
        loss = F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source, target = batch()
    assert (model(source, target[:, :-1]).argmax(-1) == target[:, 1:]).float().mean() > 0.97


@cells
@attentions
def test_autocast_is_close(cell, attention):
    model = small(cell=cell, attention=attention).float()
    expected = model(SOURCE, TARGET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(SOURCE, TARGET)
        logits.float().square().mean().backward()
    assert (logits - expected).abs().mean() < 0.02 * expected.std()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# --- Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1; got 0"),
        ({"hidden_size": 2.5}, "hidden_size must be a whole number of at least 1; got 2.5"),
        ({"maxout_size": 0}, "maxout_size must be a whole number of at least 1; got 0"),
        ({"dropout": 1}, "dropout must be a number from 0 to below 1; got 1"),
        ({"cell": "rnn"}, "cell must be 'gru' or 'lstm'; got 'rnn'"),
        ({"attention": "dot"}, "attention must be 'additive' or None; got 'dot'"),
        ({"init": "normal"}, "init must be 'xavier' or 'paper'; got 'normal'"),
        ({"padding_index": 9}, "padding_index must be None or from 0 to 8; got 9"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (SOURCE + 8, TARGET, "source must hold token ids from 0 to 8; got 16"),
        (SOURCE, TARGET + 6, "target must hold token ids from 0 to 6; got"),
        (
            SOURCE.float(),
            TARGET,
            r"source must hold token ids, int64 or int32.*torch.float32 of shape \[3, 6\]",
        ),
        (SOURCE, TARGET[0], r"target must hold token ids.*got torch.int64 of shape \[5\]"),
        (SOURCE[:2], TARGET, "target must have 2 rows, as the source has; got 3"),
        (SOURCE.flip(1), TARGET, "padding at the end; got padding before another token in row 1"),
    ],
    ids=["source id", "target id", "not whole", "not a batch", "batches differ", "padding in front"],
)
@attentions
def test_wrong_sequences_are_refused(source, target, message, attention):
    with pytest.raises(ValueError, match=message):
        small(attention=attention)(source, target)


def test_a_wrong_memory_or_mask_is_refused():
    model, fixed = small(), small(attention=None)
    memory, mask = model.encode(SOURCE)
    with pytest.raises(ValueError, match=r"memory must have shape \[batch, length, 12\]; got \[3, 6, 11\]"):
        model.decode(TARGET, memory[..., :11], mask)
    with pytest.raises(ValueError, match="memory_mask must be boolean.*torch.float64"):
        model.decode(TARGET, memory, mask.double())
    with pytest.raises(
        ValueError, match=r"memory_mask must be broadcastable to \[3, 1, 1, 6\]; got \[3, 1, 1, 4\]"
    ):
        model.decode(TARGET, memory, mask[..., :4])
    with pytest.raises(ValueError, match="memory_mask must be None where attention is None"):
        fixed.decode(TARGET, fixed.encode(SOURCE)[0], mask)


def test_alignments_without_attention_are_refused():
    with pytest.raises(ValueError, match="attention=None has no alignments; attention must be 'additive'"):
        small(attention=None).alignments(SOURCE, TARGET)
