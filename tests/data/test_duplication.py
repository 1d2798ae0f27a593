import pytest
import torch

from attn.data.duplication import DuplicationTask


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_sequence_by_hand():
    batch = DuplicationTask(vocab_size=10, length=8).batch(torch.tensor([[3, 9, 4]]))
    assert batch.tokens.tolist() == [[0, 3, 9, 4, 0, 3, 9, 4]]
    assert batch.targets.tolist() == [[3, 9, 4, 0, 3, 9, 4, 0]]
    assert batch.scored.int().tolist() == [[0, 0, 0, 0, 1, 1, 1, 0]]
    assert batch.is_start


@pytest.mark.parametrize("length", [4, 6, 64, 1024])
def test_scored_are_the_symbols_of_the_second_word(length):
    task = DuplicationTask(length=length)
    batch = task.sample(3, generator())
    half = length // 2
    assert batch.tokens.shape == batch.targets.shape == batch.scored.shape == (3, length)
    assert batch.n_scored == 3 * task.word_length == 3 * (half - 1)
    words = batch.tokens[:, 1:half]
    assert batch.targets[batch.scored].view(3, -1).equal(words)
    assert batch.tokens[:, 1 + half :].equal(words)
    assert batch.tokens[:, [0, half]].eq(0).all() and words.ge(1).all()
    assert batch.targets[:, :-1].equal(batch.tokens[:, 1:])


def test_the_paper_scores_511_of_1024_and_chance_prints_as_0_8_percent():
    task = DuplicationTask()
    assert (task.length, task.word_length, f"{task.chance:.1%}") == (1024, 511, "0.8%")


def test_all_symbols_are_drawn_equally_often():
    words = DuplicationTask().sample(200, generator()).tokens[:, 1:512]
    counts = torch.bincount(words.flatten(), minlength=128)
    assert counts[0] == 0
    expected = words.numel() / 127
    chi_squared = ((counts[1:] - expected) ** 2 / expected).sum()
    assert 70 < chi_squared < 190  # 126 degrees of freedom, standard deviation 16


def test_equal_generators_give_equal_batches():
    task = DuplicationTask(length=20)
    one, again, other = (task.sample(4, generator(seed)) for seed in (1, 1, 2))
    assert one.tokens.equal(again.tokens) and not one.tokens.equal(other.tokens)


def test_the_evaluation_set_depends_on_its_seed_alone():
    task = DuplicationTask(length=20)
    batches = task.evaluation_batches(10, batch_size=4, seed=3)
    assert [len(batch.tokens) for batch in batches] == [4, 4, 2]
    torch.manual_seed(1)
    (whole,) = task.evaluation_batches(10, batch_size=100, seed=3)
    assert torch.cat([batch.tokens for batch in batches]).equal(whole.tokens)
    assert not task.evaluation_batches(10, batch_size=100, seed=4)[0].tokens.equal(whole.tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1023}, "length must be even, two times 0 and w; got 1023: take 1022 or 1024"),
        ({"length": 2}, "length must be a whole number of at least 4; got 2"),
        ({"vocab_size": 1}, "vocab_size must be a whole number of at least 2; got 1"),
    ],
)
def test_bad_tasks(options, message):
    with pytest.raises(ValueError, match=message):
        DuplicationTask(**options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([[1, 2]], r"words must have shape \[batch, 3\]; got \[1, 2\]"),
        ([[1, 2, 0]], r"from 1 to 9; got torch.int64 from 0 to 2"),
        ([[1, 2, 10]], "from 1 to 10"),
        ([[1.0, 2.0, 3.0]], "whole numbers .* got torch.float32"),
    ],
)
def test_bad_words(words, message):
    with pytest.raises(ValueError, match=message):
        DuplicationTask(vocab_size=10, length=8).batch(torch.tensor(words))


def test_no_sequences():
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1; got 0"):
        DuplicationTask().sample(0, generator())
