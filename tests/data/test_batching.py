import numpy as np
import pytest
import torch

from attn.data.batching import EncodedPairs, TrainingBatches, evaluation_batches
from attn.data.errors import FileMissing
from attn.data.tokenisation import BOS, EOS, PAD
from attn.data.translation import ParallelText, load


class Words:
    """Stands in for a tokeniser: a word's id is 10 and its number of letters."""

    def encode_all(self, texts):
        return ([10 + len(word) for word in text.split()] for text in texts)


def text_of(pairs, name="by hand"):
    source, target = zip(*pairs, strict=True) if pairs else ((), ())
    return ParallelText(name, ("en", "de"), tuple(source), tuple(target))


def random_pairs(n_pairs, seed=0, most=30):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, most, n_pairs)
    return EncodedPairs(
        text_of(
            [
                ("a " * n, "b " * max(1, n + d))
                for n, d in zip(lengths, rng.integers(-3, 4, n_pairs), strict=True)
            ]
        ),
        Words(),
    )


@pytest.fixture(scope="module")
def pairs():
    return random_pairs(1000)


def batches_of(pairs, tokens_per_batch=400, seed=0, **kwargs):
    return TrainingBatches(pairs, tokens_per_batch=tokens_per_batch, seed=seed, **kwargs)


def test_tensors_by_hand():
    pairs = EncodedPairs(text_of([("a bb", "ccc"), ("a", "b cc ddd")]), Words())
    batch = pairs.batch(np.array([0, 1]))
    assert batch.source.tolist() == [[11, 12, EOS], [11, EOS, PAD]]
    assert batch.target_in.tolist() == [[BOS, 13, PAD, PAD], [BOS, 11, 12, 13]]
    assert batch.target_out.tolist() == [[13, EOS, PAD, PAD], [11, 12, 13, EOS]]
    assert batch.indices.tolist() == [0, 1]
    assert (batch.n_source_tokens, batch.n_target_tokens) == (5, 6)
    assert {tensor.dtype for tensor in batch} == {torch.int64}
    assert [tensor.device.type for tensor in batch.to("meta")] == ["meta"] * 4
    assert len(pairs) == 2 and pairs.lengths.tolist() == [[3, 2], [2, 4]]


def test_every_pair_comes_once_an_epoch_with_its_own_tokens(pairs):
    batches = batches_of(pairs)
    for epoch in (0, 1, 5):
        found = [batches.batch(epoch, k) for k in range(batches.n_batches)]
        assert sorted(torch.cat([batch.indices for batch in found]).tolist()) == list(range(1000))
        for batch in found:
            lengths = pairs.lengths[batch.indices.numpy()]
            assert (batch.source != PAD).sum(1).tolist() == lengths[:, 0].tolist()
            assert (batch.target_out != PAD).sum(1).tolist() == lengths[:, 1].tolist()
            assert (batch.target_in != PAD).sum(1).tolist() == lengths[:, 1].tolist()


def test_a_batch_depends_on_seed_epoch_and_number_alone(pairs):
    def told(batches, places):
        return {place: batches.indices(*place).tolist() for place in places}

    places = [(0, 0), (0, 7), (3, 7), (0, 1), (40, 2), (3, 6)]
    first = told(batches_of(pairs), places)
    assert told(batches_of(pairs), places[::-1]) == first
    assert told(batches_of(random_pairs(1000)), places) == first
    assert told(batches_of(pairs, seed=1), places) != first
    assert first[0, 7] != first[3, 7]


def test_batches_hold_about_as_many_tokens_as_told(pairs):
    for limit in (100, 400, 2000):
        batches = batches_of(pairs, limit, max_length=50)
        counts = [
            (batch.n_source_tokens, batch.n_target_tokens)
            for batch in (batches.batch(0, k) for k in range(batches.n_batches))
        ]
        means = np.mean(counts, axis=1)
        assert max(means) <= 1.1 * limit
        assert np.mean(means) >= 0.8 * limit
        assert np.max(counts) <= 1.3 * limit


def test_the_number_of_batches_is_that_of_the_tokens():
    """500 pairs of 10 and 30 tokens are 20 tokens a side: 100 pairs to a batch of 2000."""
    pairs = EncodedPairs(text_of([("a " * 9, "b " * 29)] * 500), Words())
    batches = batches_of(pairs, 2000)
    assert [len(batches.indices(0, k)) for k in range(batches.n_batches)] == [100] * 5


def test_pairs_of_a_batch_are_about_equally_long(pairs):
    def padding(found):
        return 1 - sum((b.target_out != PAD).sum() for b in found) / sum(b.target_out.numel() for b in found)

    batches = batches_of(pairs)
    ordered = padding([batches.batch(0, k) for k in range(batches.n_batches)])
    by_chance = padding(
        [pairs.batch(part) for part in np.array_split(np.random.default_rng(0).permutation(1000), 40)]
    )
    assert ordered < 0.1 < 0.4 < by_chance


def test_batches_come_in_no_order_of_length(pairs):
    batches = batches_of(pairs)
    widths = [batches.batch(0, k).source.shape[1] for k in range(batches.n_batches)]
    assert widths != sorted(widths) and abs(np.corrcoef(widths, range(len(widths)))[0, 1]) < 0.5


def test_neighbours_change_from_epoch_to_epoch(pairs):
    batches = batches_of(pairs)
    sets = [
        {frozenset(batches.indices(epoch, k).tolist()) for k in range(batches.n_batches)} for epoch in (0, 1)
    ]
    assert len(sets[0] & sets[1]) < batches.n_batches / 4


@pytest.mark.parametrize("n_parts", [1, 2, 3, 7])
def test_parts_together_are_the_batch(pairs, n_parts):
    batches = batches_of(pairs)
    for k in range(batches.n_batches):
        whole = batches.batch(2, k)
        parts = [batches.batch(2, k, part, n_parts) for part in range(n_parts)]
        assert sorted(torch.cat([part.indices for part in parts]).tolist()) == sorted(whole.indices.tolist())
        assert sum(part.n_target_tokens for part in parts) == whole.n_target_tokens
        sizes = [len(part.source) for part in parts]
        assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


def test_updates_count_through_the_epochs(pairs):
    batches = batches_of(pairs)
    n = batches.n_batches
    for step, place in ((1, (0, 0)), (n, (0, n - 1)), (n + 1, (1, 0)), (5 * n + 3, (5, 2))):
        assert batches.at(step).indices.tolist() == batches.indices(*place).tolist()
    assert batches.at(2, 1, 2).indices.tolist() == batches.batch(0, 1, 1, 2).indices.tolist()


def test_what_cannot_be_trained_on_is_left_out_and_counted():
    lines = [("a b", "c"), ("", "c"), ("a", " \t"), ("a " * 9, "b"), ("a " * 10, "b"), ("a", "b " * 10)]
    batches = batches_of(EncodedPairs(text_of(lines), Words()), 40, max_length=10)
    assert sorted(i for k in range(batches.n_batches) for i in batches.indices(0, k).tolist()) == [0, 3]
    assert (batches.n_pairs, batches.n_empty, batches.n_too_long) == (2, 2, 2)
    assert batches.dropped == (
        "4 of 6 pairs of by hand are left out: 2 with more than 10 tokens on a side, 2 with an empty side"
    )


def test_the_last_batch_is_no_crumb():
    """21 pairs, 10 to a batch: not 10, 10 and 1."""
    pairs = EncodedPairs(text_of([("a", "b")] * 21), Words())
    batches = batches_of(pairs, 20, max_length=9)
    assert sorted(len(batches.indices(0, k)) for k in range(batches.n_batches)) == [5, 6, 10]
    few = batches_of(EncodedPairs(text_of([("a", "b")] * 3), Words()), 20, max_length=9)
    assert few.n_batches == 1 and len(few.indices(0, 0)) == 3


def test_too_many_parts_are_refused():
    batches = batches_of(EncodedPairs(text_of([("a", "b")] * 3), Words()), 100, max_length=9)
    with pytest.raises(
        ValueError, match="n_parts must be at most 3, the pairs in batch 0 of epoch 0; got 4: use fewer"
    ):
        batches.batch(0, 0, 0, 4)


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"tokens_per_batch": 1}, "tokens_per_batch must be a whole number of at least 2; got 1"),
        ({"tokens_per_batch": 100.0}, "tokens_per_batch must be a whole number of at least 2; got 100.0"),
        ({"max_length": 401}, "max_length must be a whole number of at least 2 and at most 400; got 401"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        (
            {"max_length": 2},
            "pairs must hold one with text and at most max_length=2 tokens on each side; by hand has",
        ),
    ],
)
def test_bad_arguments_are_named(facts, complaint):
    pairs = EncodedPairs(text_of([("a b", "c d")]), Words())
    with pytest.raises(ValueError, match=complaint):
        batches_of(pairs, **facts)


def test_places_outside_are_refused(pairs):
    batches = batches_of(pairs)
    last = batches.n_batches - 1
    for call, complaint in (
        (lambda: batches.indices(-1, 0), "epoch must be a whole number of at least 0; got -1"),
        (
            lambda: batches.indices(0, last + 1),
            f"k must be a whole number of at least 0 and at most {last}; got",
        ),
        (lambda: batches.batch(0, 0, 2, 2), "part must be a whole number of at least 0 and at most 1; got 2"),
        (lambda: batches.batch(0, 0, 0, 0), "n_parts must be a whole number of at least 1; got 0"),
        (lambda: batches.at(0), "step must be a whole number of at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=complaint):
            call()


def test_a_text_without_pairs_is_refused():
    with pytest.raises(ValueError, match="pairs must hold one with text"):
        batches_of(EncodedPairs(text_of([]), Words()))


def test_evaluation_leaves_nothing_out():
    lines = [("a b", "c"), ("", "c"), ("a " * 90, "b"), ("a", "b " * 5), ("a", "")]
    found = list(evaluation_batches(EncodedPairs(text_of(lines), Words()), tokens_per_batch=12))
    assert [batch.indices.tolist() for batch in found] == [[2], [3, 0], [1, 4]]
    assert found[-1].source.tolist() == [[EOS, PAD], [11, EOS]]
    assert list(evaluation_batches(EncodedPairs(text_of([]), Words()), tokens_per_batch=9)) == []


def test_evaluation_bounds_the_padded_size(pairs):
    found = list(evaluation_batches(pairs, tokens_per_batch=200))
    assert sorted(torch.cat([batch.indices for batch in found]).tolist()) == list(range(1000))
    assert max(max(batch.source.numel(), batch.target_out.numel()) for batch in found) <= 200
    assert len(found) < 150
    with pytest.raises(ValueError, match="tokens_per_batch must be a whole number of at least 1; got 0"):
        list(evaluation_batches(pairs, tokens_per_batch=0))


def test_real_captions_fill_their_batches(real_data):
    try:
        text = load("multi30k", "train", download=False)
    except FileMissing as error:
        pytest.skip(str(error))
    batches = batches_of(EncodedPairs(text, Words()), 4096, max_length=100)
    assert batches.n_pairs == 29_000
    sizes = [batches.batch(0, k) for k in range(batches.n_batches)]
    tokens = np.array([(batch.n_source_tokens, batch.n_target_tokens) for batch in sizes])
    assert tokens.sum() == batches.pairs.lengths.sum()
    assert tokens.mean(axis=1).max() < 1.02 * 4096 and tokens.mean() > 0.97 * 4096
    assert tokens.sum() > 0.85 * sum(batch.source.numel() + batch.target_out.numel() for batch in sizes)
