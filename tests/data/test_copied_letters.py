"""Pairs whose target is the source again."""

import pytest
import torch

from attn.data.copied_letters import CopyingTask
from attn.data.tokenisation import BOS, EOS, PAD, UNK

TASK = CopyingTask(n_letters=5, min_length=2, max_length=6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_each_pair_is_a_copy_with_its_end_and_its_start():
    batch = TASK.sample(300, generator())
    lengths = set()
    for source, target_in, target_out in zip(*batch[:3], strict=True):
        letters = [i for i in source.tolist() if i != PAD]
        *letters, end = letters
        lengths.add(len(letters))
        assert end == EOS and all(UNK < letter < TASK.vocab_size for letter in letters)
        padding = [PAD] * (source.numel() - len(letters) - 1)
        assert source.tolist() == target_out.tolist() == [*letters, EOS, *padding]
        assert target_in.tolist() == [BOS, *letters, *padding]
    assert lengths == {2, 3, 4, 5, 6}


def test_letters_and_lengths_are_drawn_equally_often():
    batch = TASK.sample(4000, generator())
    counts = torch.bincount(batch.source[batch.source > UNK], minlength=TASK.vocab_size)[UNK + 1 :].double()
    assert (counts / counts.sum() - 1 / 5).abs().max() < 0.01
    lengths = torch.bincount((batch.source > UNK).sum(1))[2:].double()
    assert (lengths / 4000 - 1 / 5).abs().max() < 0.03


def test_a_test_set_has_one_length_and_is_the_same_again():
    batch, again, other = (TASK.of_length(9, 50, seed=seed) for seed in (3, 3, 4))
    assert batch.source.shape == (50, 10) and batch.n_target_tokens == 500
    assert batch.source.equal(again.source) and not batch.source.equal(other.source)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CopyingTask(n_letters=1), "n_letters must be a whole number of at least 2; got 1"),
        (lambda: CopyingTask(min_length=5, max_length=4), "min_length and max_length must be whole numbers .* got 5 and 4"),
        (lambda: TASK.of_length(0, 1, seed=0), "length must be a whole number of at least 1; got 0"),
        (lambda: TASK.sample(0, generator()), "batch_size must be a whole number of at least 1; got 0"),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
