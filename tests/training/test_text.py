"""Training on a text that goes on from update to update."""

import math

import pytest
import torch
from torch import nn

from attn.adaptive_span import RelativePositions, SpanAttention
from attn.data.language_text import LanguageText, TextConfig, load
from attn.data.text import evaluation_segments
from attn.evaluation.text import text_bits
from attn.language_model import LanguageModel, Stack, Vocabulary
from attn.training import train
from attn.training.config import TrainingConfig
from attn.training.text import TextWorkload

D, SPAN = 16, 12


def model(vocab_size=13, n_layers=2):
    positions = RelativePositions(head_dim=D // 2, max_span=SPAN)
    settings = {"d_model": D, "n_heads": 2, "positions": positions, "span": "fixed", "ramp_size": 4}
    return LanguageModel(
        vocabulary=Vocabulary(vocab_size=vocab_size, d_model=D),
        stack=Stack([[SpanAttention(**settings)] for _ in range(n_layers)], d_model=D),
    )


def text():
    return load(TextConfig(corpus="generated", train_size=500, valid_size=150, test_size=90))


def workload(seed=0, **options):
    torch.manual_seed(seed)
    settings = {"n_rows": 4, "block": 6, "seed": seed, "evaluation_rows": 2} | options
    return TextWorkload(model=model(), text=text(), **settings)


def config(**options):
    settings = {"max_steps": 12, "batch_size": 24, "optimizer": "adam", "lr": 5e-3}
    return TrainingConfig(**settings | options)


def test_an_update_sees_what_the_updates_before_it_read():
    """The cost of the third block is that of one long pass over three."""
    work = workload()
    losses = [work.loss(work.model, work.batch(step, 0, 1)) for step in (1, 2, 3)]
    tokens = text().splits["train"].view(4, 125).long()
    costs, _ = work.model(tokens[:, :18], targets=tokens[:, 1:19])
    torch.testing.assert_close(losses[2].total, costs[:, 12:].sum())
    alone, _ = work.model(tokens[:, 12:18], targets=tokens[:, 13:19])
    assert not torch.allclose(losses[2].total, alone.sum())
    assert (losses[0].weight, losses[0].seen) == (24, 24)


def test_a_new_pass_begins_without_state():
    work = workload()
    steps = work.segments.steps_per_pass
    for step in range(1, steps + 1):
        work.loss(work.model, work.batch(step, 0, 1))
    batch = work.batch(steps + 1, 0, 1)
    assert batch.batch.is_start
    found = work.loss(work.model, batch)
    costs, _ = work.model(batch.batch.tokens, targets=batch.batch.targets)
    torch.testing.assert_close(found.total, costs.sum())


def test_pieces_carry_their_own_rows():
    whole, cut = workload(), workload()
    for step in (1, 2, 3):
        expected = whole.loss(whole.model, whole.batch(step, 0, 1)).total
        found = sum(cut.loss(cut.model, cut.batch(step, part, 2)).total for part in range(2))
        torch.testing.assert_close(found, expected)


def test_other_pieces_in_the_middle_of_a_text_are_refused():
    work = workload()
    work.loss(work.model, work.batch(1, 0, 1))
    with pytest.raises(ValueError, match="got piece 0 of 2 after 0 of 1: keep grad_accum_steps"):
        work.loss(work.model, work.batch(2, 0, 2))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_resumed_run_carries_on_with_the_saved_state(tmp_path, parts):
    straight, stopped, resumed = workload(), workload(), workload()
    settings = config(grad_accum_steps=parts)
    expected = train(straight, settings, seed=1, record_losses=12)
    train(stopped, settings, seed=1, checkpoint_path=tmp_path / "c", stop_after=5, record_losses=12)
    found = train(resumed, settings, seed=1, checkpoint_path=tmp_path / "c", record_losses=12)
    assert found.first_losses == expected.first_losses
    assert found.history[-1]["bits_per_token"] == expected.history[-1]["bits_per_token"]
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_learns():
    history = train(workload(), config(max_steps=60), seed=0).history
    assert history[-1]["bits_per_token"] < history[0]["bits_per_token"] - 0.3


class Wide(nn.Module):
    """Costs each token its own id in nats, and counts how often it is told of a state."""

    def __init__(self):
        super().__init__()
        self.weight, self.states = nn.Parameter(torch.zeros(1)), []

    def forward(self, tokens, state=None, *, targets=None):
        self.states.append(state)
        return targets.float(), len(self.states)


def test_text_bits_are_the_mean_over_all_targets_and_state_goes_from_segment_to_segment():
    reader, tokens = Wide(), torch.arange(41)
    found = text_bits(reader, evaluation_segments(tokens, batch_size=2, block=5))
    scored = [*range(1, 16), *range(21, 36)]  # rows of 20, three blocks each
    assert found == pytest.approx(sum(scored) / len(scored) / math.log(2))
    assert reader.states == [None, 1, 2]


def test_text_bits_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one token"):
        text_bits(Wide(), [])


def test_validation_is_read_with_the_state_carried_along():
    work = workload(evaluation_rows=1)
    tokens = text().splits["valid"].long()[None]
    costs, _ = work.model(tokens[:, :144], targets=tokens[:, 1:145])
    assert work.evaluate(work.model)["bits_per_token"] == pytest.approx(
        float(costs.detach().mean()) / math.log(2), rel=1e-5
    )


def test_a_model_without_state_reads_every_segment_from_its_start():
    class Bigram(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(13, 13))

        def forward(self, tokens, state=None, *, targets=None):
            assert state is None
            costs = nn.functional.cross_entropy(self.table[tokens].transpose(1, 2), targets, reduction="none")
            return costs, None

    work = TextWorkload(model=Bigram(), text=text(), n_rows=4, block=6, seed=0)
    train(work, config(lr=0.1, max_steps=30), seed=0)
    assert work.state_dict() == {}
    assert work.bits(work.model, "test") < math.log2(13) - 0.3


def test_a_text_names_its_checksums():
    made = LanguageText(splits=text().splits, vocab_size=13, title="t", checksums={"a": "b"})
    work = TextWorkload(model=model(), text=made, n_rows=4, block=6, seed=0)
    assert work.data_checksums() == {"a": "b"}
