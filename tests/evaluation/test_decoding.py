import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from attn.data.batching import EncodedPairs
from attn.data.tokenisation import BOS, EOS, PAD
from attn.data.translation import ParallelText
from attn.evaluation.decoding import Hypothesis, beam_search, greedy_search, length_divisor, translate
from attn.transformer import Transformer
from tests.evaluation.table_model import TableModel, random_table, written_table

DOUBLE = torch.float64
VOCABULARY = 9
A, B, C = 3, 4, 5  # tokens of the models written down


def transformer(seed=3):
    """A tiny model in float64 that ends some sentences early, some late and some not, as a test makes sure."""
    torch.manual_seed(seed)
    model = Transformer(
        vocab_size=VOCABULARY, d_model=12, n_heads=3, d_ff=20, n_layers=2, dropout=0.1, max_len=32,
        padding_index=PAD, share_embeddings=False, norm_position="pre", positions="learned",
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((1.0 if parameter.dim() > 1 else 0.1) * torch.randn_like(parameter))
    return model.eval()


def sources(*lengths, seed=0):
    """Random sentences of these lengths [B, S], padded."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(inside, rows, PAD)


SOURCE = sources(5, 2, 4, 1, 5, 3)


def assert_same(found, expected):
    """Two lists of hypotheses, up to rounding."""
    assert [(one.tokens, one.finished) for one in found] == [(one.tokens, one.finished) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-10)
        assert one.log_prob == pytest.approx(other.log_prob, rel=1e-10)


# --- Plain definitions -------------------------------------------------------------------------------------


def hypothesis(log_prob, tokens, alpha):
    finished = tokens[-1] == EOS
    score = log_prob / ((5 + len(tokens)) / 6) ** alpha
    return Hypothesis(list(tokens[:-1] if finished else tokens), score, log_prob, finished)


def best_of_all(model, source, limit, alpha):
    """Every sentence of at most `limit` tokens that ends, best first."""
    found = []
    words = [token for token in range(VOCABULARY_OF_TABLES) if token not in (PAD, BOS, EOS)]
    for length in range(limit):
        for sentence in itertools.product(words, repeat=length):
            tokens, log_prob = (*sentence, EOS), 0.0
            for place, token in enumerate(tokens):
                logits = torch.tensor(model.lookup(source, tokens[:place]), dtype=DOUBLE)
                log_prob += logits.log_softmax(0)[token].item()
            found.append(hypothesis(log_prob, tokens, alpha))
    return sorted(found, key=lambda one: -one.score)


def plain_beam_search(model, source, *, beam_size, alpha, limit, n_best):
    """One sentence by lists and whole forward passes, always to the greatest length."""
    live, finished = [(0.0, [])], []
    for _ in range(limit):
        prefixes = torch.tensor([[BOS, *tokens] for _, tokens in live])
        logits = model(source.expand(len(live), -1), prefixes)[:, -1]
        ranked = []
        for (log_prob, tokens), row in zip(live, logits.log_softmax(-1).tolist(), strict=True):
            ranked += [(log_prob + row[t], [*tokens, t]) for t in range(len(row)) if t not in (PAD, BOS)]
        ranked.sort(key=lambda one: -one[0])
        finished += [one for one in ranked[:beam_size] if one[1][-1] == EOS]
        live = [one for one in ranked if one[1][-1] != EOS][:beam_size]
    found = [hypothesis(*one, alpha) for one in finished or live]
    return sorted(found, key=lambda one: -one.score)[:n_best]


# --- Beam search -------------------------------------------------------------------------------------------

VOCABULARY_OF_TABLES = 5  # two words
FULL_BEAM = 24  # as many continuations as there are at 4 tokens


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_the_space_finds_the_best_of_all(seed, alpha):
    model = TableModel(random_table(VOCABULARY_OF_TABLES, seed=seed))
    rows = [(A, B, A), (B,), (A, A)]
    source = torch.tensor([[A, B, A], [B, PAD, PAD], [A, A, PAD]])
    found = beam_search(model, source, beam_size=FULL_BEAM, length_penalty=alpha, extra_length=1, n_best=3)
    for row, hypotheses in zip(rows, found, strict=True):
        assert_same(hypotheses, best_of_all(model, row, len(row) + 1, alpha)[:3])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_beam_search_equals_a_plain_one(beam_size, alpha):
    model = transformer()
    n_best = min(beam_size, 3)
    found = beam_search(
        model, SOURCE, beam_size=beam_size, length_penalty=alpha, extra_length=4, n_best=n_best
    )
    for row, hypotheses in zip(SOURCE, found, strict=True):
        row = row[row != PAD]
        limit = len(row) + 4
        expected = plain_beam_search(
            model, row[None], beam_size=beam_size, alpha=alpha, limit=limit, n_best=n_best
        )
        assert_same(hypotheses, expected)


def test_some_sentences_of_these_tests_end_and_some_do_not():
    greedy = greedy_search(transformer(), SOURCE, extra_length=4)
    beams = [found[0] for found in beam_search(transformer(), SOURCE, extra_length=4)]
    for found in (greedy, beams):
        assert {one.finished for one in found} == {False, True}
        assert len({len(one.tokens) for one in found if one.finished}) > 1
        assert len({tuple(one.tokens) for one in found}) == len(SOURCE)


SEARCHES = [
    pytest.param(lambda *args, **kw: [[one] for one in greedy_search(*args, **kw)], id="greedy"),
    pytest.param(lambda *args, **kw: beam_search(*args, beam_size=3, n_best=2, **kw), id="beam"),
]
searches = pytest.mark.parametrize("search", SEARCHES)


@searches
def test_a_batch_is_each_sentence_alone(search):
    model = transformer()
    together = search(model, SOURCE, extra_length=6)
    for row, found in zip(SOURCE, together, strict=True):
        assert_same(found, search(model, row[None, row != PAD], extra_length=6)[0])


@searches
def test_the_cache_changes_nothing(search):
    model = transformer(seed=6)
    cached = search(model, SOURCE, extra_length=6)
    whole = search(model, SOURCE, extra_length=6, use_cache=False)
    for found, expected in zip(cached, whole, strict=True):
        assert_same(found, expected)


@searches
def test_padding_of_the_source_changes_nothing(search):
    model = transformer()
    narrow, wide = (search(model, F.pad(SOURCE, (0, n), value=PAD), extra_length=3) for n in (0, 4))
    for found, expected in zip(wide, narrow, strict=True):
        assert_same(found, expected)


@searches
def test_other_ids_give_the_same_sentences(search):
    """The same model with its special tokens at other places."""
    table = random_table(7, seed=5)
    order = [6, 0, 3, 1, 2, 4, 5]  # new id to old one

    def moved(source, prefix):
        old = table(*(tuple(order[token] for token in tokens) for tokens in (source, prefix)))
        return [old[token] for token in order]

    source = torch.tensor([[3, 4, 3], [5, PAD, PAD]])
    pad, bos, eos = (order.index(token) for token in (PAD, BOS, EOS))
    places = torch.tensor([order.index(token) for token in range(7)])
    expected = search(TableModel(table), source, extra_length=5)
    found = search(
        TableModel(moved, pad=pad, bos=bos), places[source], extra_length=5, pad=pad, bos=bos, eos=eos
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert_same([one._replace(tokens=[order[t] for t in one.tokens]) for one in ours], theirs)


# --- Greedy search -----------------------------------------------------------------------------------------


def test_greedy_is_the_likeliest_token_of_the_whole_model_at_every_step():
    model = transformer()
    for row, found in zip(SOURCE, greedy_search(model, SOURCE, extra_length=4), strict=True):
        source, tokens, log_prob = row[None, row != PAD], [BOS], 0.0
        while len(tokens) <= source.shape[1] + 4 and tokens[-1] != EOS:
            log_probs = model(source, torch.tensor([tokens]))[0, -1].log_softmax(-1)
            log_probs[[PAD, BOS]] = -math.inf
            tokens.append(int(log_probs.argmax()))
            log_prob += log_probs[tokens[-1]].item()
        assert_same([found], [hypothesis(log_prob, tokens[1:], 0.0)])


@pytest.mark.parametrize("seed", range(3))
def test_one_beam_without_a_penalty_is_greedy(seed):
    model = TableModel(random_table(6, seed=seed))
    source = torch.tensor([[A, B, C], [C, A, PAD], [B, PAD, PAD]])
    beams = beam_search(model, source, beam_size=1, length_penalty=0, extra_length=5)
    assert_same([one for (one,) in beams], greedy_search(model, source, extra_length=5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equal_tokens_rank_by_id(dtype):
    model = TableModel(lambda source, prefix: [9, 9, 0] + [1] * 40, dtype=dtype)
    source = torch.tensor([[A, A]])
    assert greedy_search(model, source, extra_length=1)[0].tokens == [A, A, A]
    (found,) = beam_search(model, source, beam_size=3, n_best=3, extra_length=0)
    assert [one.tokens for one in found] == [[A, A], [A, B], [A, C]]


# --- By hand -----------------------------------------------------------------------------------------------

ONE = torch.tensor([[A]])


def test_a_beam_of_two_leaves_the_garden_path():
    table = written_table(
        {(): {A: 0.6, B: 0.4}, (A,): {C: 0.5, A: 0.5}, (B,): {C: 0.9, A: 0.1}},
        vocab_size=6,
        otherwise={EOS: 1.0},
    )
    (greedy,) = greedy_search(TableModel(table), ONE)
    ((best, second),) = beam_search(TableModel(table), ONE, beam_size=2, n_best=2)
    assert greedy.tokens == [A, A] and math.exp(greedy.log_prob) == pytest.approx(0.3)
    assert best.tokens == [B, C] and math.exp(best.log_prob) == pytest.approx(0.36)
    assert second.tokens == [A, A]
    assert best.score == pytest.approx(math.log(0.36) / (8 / 6) ** 0.6)


def test_the_divisor_by_hand():
    assert length_divisor(1, 0.6) == 1
    assert length_divisor(7, 1) == 2
    assert length_divisor(31, 0.5) == pytest.approx(math.sqrt(6))
    assert length_divisor(19, 0.6) == pytest.approx(4**0.6)
    assert length_divisor(torch.tensor([7, 13]), 1).tolist() == [2, 3]


@pytest.mark.parametrize(("alpha", "winner"), [(0.0, []), (0.3, []), (0.6, [A] * 5), (1.0, [A] * 5)])
def test_the_penalty_decides_between_short_and_long(alpha, winner):
    # log 0.55 = -0.60 for nothing at all, log 0.45 = -0.80 for five words: equal at alpha = 0.48
    table = written_table({(): {EOS: 0.55, A: 0.45}, (A,) * 5: {EOS: 1.0}}, vocab_size=6, otherwise={A: 1.0})
    ((found,),) = beam_search(TableModel(table), ONE, beam_size=2, length_penalty=alpha)
    assert found.tokens == winner
    length, log_prob = len(winner) + 1, math.log(0.45 if winner else 0.55)
    assert found.score == pytest.approx(log_prob / ((5 + length) / 6) ** alpha)


def test_an_end_outside_the_beam_does_not_count():
    # with one beam the end comes second at first, with two it is among the first two
    table = written_table({(): {A: 0.6, EOS: 0.4}}, vocab_size=6, otherwise={B: 0.5, EOS: 0.5})
    assert [
        [one.tokens for one in beam_search(TableModel(table), ONE, beam_size=width, length_penalty=0)[0]]
        for width in (1, 2)
    ] == [[[A]], [[]]]


# --- Ends --------------------------------------------------------------------------------------------------


@searches
@pytest.mark.parametrize("extra_length", [0, 3])
def test_each_sentence_has_its_own_greatest_length(search, extra_length):
    model = TableModel(lambda source, prefix: [5.0, 5.0, -math.inf, 1.0, 0.0])
    source = torch.tensor([[A, B, A, B], [B, PAD, PAD, PAD], [A, B, A, PAD]])
    found = search(model, source, extra_length=extra_length)
    cost = 1 - torch.tensor([5.0, 5.0, 1.0, 0.0], dtype=DOUBLE).logsumexp(0).item()
    for length, hypotheses in zip([4, 1, 3], found, strict=True):
        length += extra_length
        assert [len(one.tokens) for one in hypotheses] == [length] * len(hypotheses)
        assert not any(one.finished for one in hypotheses)
        assert hypotheses[0].tokens == [A] * length
        assert hypotheses[0].log_prob == pytest.approx(length * cost)


def test_what_was_cut_off_counts_only_where_nothing_has_ended():
    table = written_table({(): {A: 0.99, EOS: 0.01}}, vocab_size=6, otherwise={A: 0.9, B: 0.1})
    (found,) = beam_search(TableModel(table), ONE, beam_size=2, n_best=2, extra_length=3)
    assert [(one.tokens, one.finished) for one in found] == [([], True)]
    (found,) = beam_search(TableModel(table), ONE, beam_size=1, extra_length=3)
    assert [(one.tokens, one.finished) for one in found] == [([A] * 4, False)]
    assert found[0].score == pytest.approx(math.log(0.99 * 0.9**3) / (9 / 6) ** 0.6)


@searches
def test_sentences_that_are_done_leave_the_batch(search):
    """Each copies its source and ends, with nearly all of the probability."""

    def copied(source, prefix):
        expected = source[len(prefix)] if len(prefix) < len(source) else EOS
        return [20.0 if token == expected else float(token) / 10 for token in range(6)]

    model = TableModel(copied)
    source = torch.tensor([[B, A, PAD, PAD], [C, C, B, A], [A, PAD, PAD, PAD]])
    found = search(model, source)
    assert [one[0].tokens for one in found] == [[B, A], [C, C, B, A], [A]]
    if len(found[0]) == 1:
        assert model.rows == [3, 3, 2, 1, 1]
    else:  # two hypotheses take longer, but not 50 tokens; at first each sentence has one prefix
        assert model.rows[:2] == [3, 9] and model.rows[-1] == 3 and len(model.rows) < 12


def test_the_search_stops_once_nothing_can_win():
    table = written_table({(): {EOS: 0.9, A: 0.1}}, vocab_size=6, otherwise={A: 0.5, B: 0.5})
    n_steps = []
    for alpha in (0, 0.6, 2):
        model = TableModel(table)
        ((found,),) = beam_search(model, ONE, beam_size=2, length_penalty=alpha, extra_length=49)
        assert found.tokens == []
        n_steps.append(len(model.rows))
    # The divisor at 50 tokens is 1, 3.78 and 84: log 0.1 / 3.78 < log 0.9, but at alpha = 2 words stay in the race
    # until log(0.1 / 2 ** k) / 84 < log 0.9, at k = 10.
    assert n_steps == [1, 1, 11]


# --- Mode, precision, device -------------------------------------------------------------------------------


@searches
def test_modes_are_restored_and_dropout_is_off(search):
    model = transformer()
    expected = search(model, SOURCE, extra_length=3)
    model.train()
    model.encoder[1].eval()
    modes = [module.training for module in model.modules()]
    found = search(model, SOURCE, extra_length=3)
    assert [module.training for module in model.modules()] == modes
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)
    with pytest.raises(ValueError, match="max_len"):
        search(model, SOURCE)
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


@searches
def test_half_precision_is_summed_in_single(search):
    model = TableModel(lambda source, prefix: [0, 0, -math.inf, 2.0, 1.0], dtype=torch.float16)
    ((found, *_),) = search(model, ONE, extra_length=63)
    cost = 2 - torch.tensor([0, 0, 2.0, 1.0], dtype=DOUBLE).logsumexp(0).item()
    assert found.log_prob == pytest.approx(64 * cost, rel=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@searches
def test_a_gpu_finds_the_same(search):
    model = transformer()
    expected = search(model, SOURCE, extra_length=6)
    for found, theirs in zip(search(model.cuda(), SOURCE.cuda(), extra_length=6), expected, strict=True):
        assert_same(found, theirs)


# --- Whole texts -------------------------------------------------------------------------------------------


class Words:
    """Stands in for a tokeniser: words are numbers, and ids are 10 more."""

    def encode_all(self, texts):
        return ([10 + int(word) for word in text.split()] for text in texts)

    def decode(self, ids):
        return " ".join(str(index - 10) for index in ids)


def test_translations_come_in_the_order_of_the_text():
    def reversed_source(source, prefix):
        words = source[-2::-1]  # without the end token
        expected = words[len(prefix)] if len(prefix) < len(words) else EOS
        return [9.0 * (token == expected) for token in range(20)]

    lines = ("1 2 3", "4", "", "5 6 7 8 9", "7", "2 1")
    pairs = EncodedPairs(ParallelText("by hand", ("en", "de"), lines, ("0",) * 6), Words())
    model = TableModel(reversed_source)
    found = translate(model, pairs, Words(), tokens_per_batch=8, beam_size=2, extra_length=2)
    assert found == ["3 2 1", "4", "", "9 8 7 6 5", "7", "1 2"]
    assert model.rows.count(1) >= 1 and len(model.rows) > 6 + 4  # several batches
    # no room for more than the source and its end
    assert translate(model, pairs, Words(), extra_length=0, length_penalty=0.0)[3] == "9 8 7 6 5"
    empty = EncodedPairs(ParallelText("none", ("en", "de"), (), ()), Words())
    assert translate(model, empty, Words()) == []


# --- Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_size": 0}, "beam_size must be a whole number of at least 1; got 0"),
        ({"beam_size": 2.0}, "beam_size must be a whole number of at least 1; got 2.0"),
        ({"n_best": 0}, "n_best must be a whole number of at least 1; got 0"),
        ({"n_best": 5}, "n_best must be at most beam_size = 4; got 5"),
        ({"length_penalty": -0.1}, "length_penalty must be a number of at least 0; got -0.1"),
        ({"length_penalty": math.nan}, "length_penalty must be a number of at least 0; got nan"),
        ({"extra_length": -1}, "extra_length must be a whole number of at least 0; got -1"),
        ({"eos": PAD}, "eos must be another id than pad = 0 and bos = 1; got 0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        beam_search(TableModel(random_table(6, seed=0)), ONE, **changes)


@searches
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.tensor([A, B]), r"source must hold token ids of shape \[sentences, length\].*shape \[2\]"),
        (torch.zeros(0, 3, dtype=torch.long), r"source must hold .* at least one; got shape \[0, 3\]"),
        (torch.zeros(2, 0, dtype=torch.long), r"source must hold .* at least one; got shape \[2, 0\]"),
        (torch.tensor([[A, B], [PAD, PAD]]), "source must have a token in every row; row 1 is all padding"),
    ],
)
def test_wrong_sources_are_refused(search, source, message):
    with pytest.raises(ValueError, match=message):
        search(TableModel(random_table(6, seed=0)), source)


@searches
@pytest.mark.parametrize("logit", [math.nan, -math.inf])
def test_a_model_without_an_answer_is_named(search, logit):
    def broken(source, prefix):
        rest = logit if source == (B,) and prefix else 0.0
        return [1.0, 1.0, rest - 9, rest, rest, rest]

    with pytest.raises(ValueError, match="model must give logits that are numbers.*not so for sentence 1"):
        search(TableModel(broken), torch.tensor([[A], [B], [C]]), extra_length=1)
