"""Sentences longer than those of training: the runs, what is counted of them, and what is shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attn.attention import LearnedPositions
from attn.data.copied_letters import CopyingTask
from attn.data.tokenisation import EOS
from attn.evaluation.decoding import greedy_search
from attn.experiments.transformer import length_results
from attn.experiments.transformer.lengths import LengthsConfig, LengthsWorkload, ShiftedPositions
from attn.experiments.transformer.runs import EXPERIMENTS, PAPER, POSITIONS
from attn.experiments.transformer.workloads import TransformerConfig
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from attn.training import train
from attn.training.config import TrainingConfig
from tests.reproduction.toy import record_data

CPU = torch.device("cpu")
CONFIG = LengthsConfig(
    task=CopyingTask(n_letters=3, min_length=1, max_length=3),
    model=TransformerConfig(n_layers=1, d_model=16, d_ff=16, n_heads=2, dropout=0.0, positions="learned"),
    training=TrainingConfig(max_steps=3, batch_size=8, optimizer="adam", lr=1e-3, eval_every=3),
    test_lengths=(2, 3, 5),
    n_test=20,
)


class Parrot(nn.Module):
    """Says the source again, up to a length."""

    def __init__(self, up_to):
        super().__init__()
        self.up_to = up_to

    def forward(self, source, target):
        said = source.clone()
        said[:, self.up_to :] = EOS
        return nn.functional.one_hot(said, 10).float()


# --- runs --------------------------------------------------------------------------------------------------------


def test_the_experiments_differ_in_positions_and_shift_alone():
    configs = {e.id.split("/")[1]: e.configs["cpu"] for e in EXPERIMENTS if e.task == "lengths"}
    assert list(configs) == list(POSITIONS)
    base = configs["sinusoids"]
    assert base.max_shift == 0 and base.model.positions == "sinusoidal"
    for kind, config in configs.items():
        learned = config.model.positions == "learned"
        assert learned == kind.startswith("learned") and bool(config.max_shift) == kind.endswith("_shifted")
        assert replace(config, max_shift=0, model=replace(config.model, positions="sinusoidal")) == base
    longest = max(base.test_lengths)
    trained = base.task.max_length
    assert trained in base.test_lengths and trained + 1 in base.test_lengths and longest > trained
    shifted = configs["learned_shifted"].max_shift + trained
    assert shifted >= longest  # every position of the test was met in training


def test_the_page_tells_the_settings_of_the_facts():
    config = next(e for e in EXPERIMENTS if e.id == "lengths/learned_shifted").configs["cpu"]
    said = length_results.task_words(load_papers()[PAPER])
    assert said.startswith(
        f"Training: {config.task.min_length} to {config.task.max_length} letters of an alphabet of 16."
    )
    assert f"Test: up to {max(config.test_lengths)}." in said
    assert f"begin anywhere from 0 to {config.max_shift}." in said and config.max_shift > 0
    n_rows = len(config.model.build(config.task.vocab_size).source_positions.table)
    assert said.endswith(f"A learned table has {n_rows:,} rows.")
    assert config.max_shift + config.task.max_length >= max(config.test_lengths), (
        "no position of the tests is new"
    )
    assert length_results.task_words(load_papers()[PAPER], "gpu") == said, (
        "a profile without a budget shows the book's"
    )


def test_a_shift_moves_positions_of_both_sides_and_only_in_training():
    positions = ShiftedPositions(LearnedPositions(d_model=4, max_len=9))
    whole = positions.positions(9)
    assert positions(3, 2).equal(whole[2:5])
    positions.shift = 4
    assert positions(3, 2).equal(whole[6:9])

    seen = []
    workload = LengthsWorkload(replace(CONFIG, max_shift=4), 0, CPU)
    for side in (workload.model.source_positions, workload.model.target_positions):
        side.register_forward_hook(lambda module, inputs, output: seen.append(module.shift))
    for seed in range(30):
        torch.manual_seed(seed)
        workload.loss(workload.model, workload.batch(1, 0, 1))
    assert seen[::2] == seen[1::2] and set(seen) == {0, 1, 2, 3, 4}
    seen.clear()
    workload.evaluate(workload.model)
    workload.right(workload.model, 5)
    assert set(seen) == {0}


def test_parts_of_an_update_are_the_whole_batch_and_seeds_differ():
    workload = LengthsWorkload(CONFIG, 0, CPU)
    whole, halves = workload.batch(2, 0, 1), [workload.batch(2, part, 2) for part in (0, 1)]
    assert torch.cat([half.indices for half in halves]).sort().values.equal(whole.indices)
    assert halves[1].source.equal(whole.source[1::2])
    assert not whole.source.equal(LengthsWorkload(CONFIG, 1, CPU).batch(2, 0, 1).source)


def test_what_is_right_is_counted_by_position():
    workload = LengthsWorkload(CONFIG, 0, CPU)
    right = workload.right(Parrot(up_to=3), 5)
    assert right.by_position.tolist() == [1, 1, 1, 0, 0, 1]  # three letters and the end
    assert right.whole == 0 and workload.right(Parrot(up_to=3), 3).whole == 1
    found = workload.outcome(Parrot(up_to=3), [])
    assert {name: metric.value for name, metric in found.metrics.items()} == pytest.approx(
        {"tokens_2": 1, "whole_2": 1, "tokens_3": 1, "whole_3": 1, "tokens_5": 4 / 6, "whole_5": 0}
    )
    assert found.artifact["right_by_position"].shape == (3, 6)
    assert np.isnan(found.artifact["right_by_position"][0, 3:]).all()


def test_whole_targets_are_those_that_greedy_search_finds():
    config = replace(CONFIG, training=replace(CONFIG.training, max_steps=30, eval_every=30, lr=1e-2))
    workload = LengthsWorkload(config, 0, CPU)
    train(workload, config.training, seed=0)
    model = workload.model.eval()
    pairs = config.task.of_length(3, 20, seed=72 + 3)
    found = greedy_search(model, pairs.source, extra_length=2)
    exact = [one.tokens == target.tolist()[:-1] for one, target in zip(found, pairs.target_out, strict=True)]
    assert workload.right(model, 3).whole == sum(exact) / 20 and 0 < sum(exact) < 20


# --- what is shown -----------------------------------------------------------------------------------------------


class Kept(Record):
    """A record whose artifact is at hand."""

    def artifact(self):
        return {"right_by_position": np.array([[1.0, 1, np.nan], [1, 0.5, 0.25]])}


def record(kind, seed, *whole):
    data = record_data(
        PAPER, f"lengths/{kind}", seed, {f"whole_{n}": v for n, v in zip((2, 3, 4, 9), whole, strict=True)}
    )
    data["config"] = {"task": {"max_length": 3}, "test_lengths": [2, 3, 4, 9]}
    return Kept(Path(f"{kind}-{seed}.json"), data)


RECORDS = {
    "sinusoids": [record("sinusoids", 0, 1.0, 0.9, 0.1, 0.0), record("sinusoids", 1, 1.0, 1.0, 0.3, 0.0)],
    "learned": [],
    "learned_shifted": [record("learned_shifted", 0, 1.0, 1.0, 1.0, 0.8)],
}


def test_words_name_the_last_trained_length_and_what_lies_beyond():
    first, second = length_results.beyond_words(RECORDS)
    assert (
        first
        == "Sinusoids: targets copied without an error are 95% of 3 letters, 20% of 4 letters, 0% of 9 letters (medians of 2 seeds)."
    )
    assert second.startswith("Learned positions, shifted in training:") and second.endswith(
        "80% of 9 letters (medians of 1 seed)."
    )
    assert length_results.beyond_words({"learned": []}) == ["No records yet."]


def test_words_compare_shifted_positions_where_all_kinds_are_recorded():
    shares = {"sinusoids": 0.1, "learned": 0.0, "sinusoids_shifted": 0.435, "learned_shifted": 0.995}
    records = {kind: [record(kind, 0, 1.0, 1.0, 0.035, share)] for kind, share in shares.items()}
    for found in records.values():
        found[0].data["config"]["task"]["max_length"] = 2
    *_, last = length_results.beyond_words(records)
    assert last.startswith(
        "Without shifts, 3.5% of targets of 4 letters are right with sinusoids and 3.5% with learned positions: on this task "
        "the paper's hope is not met. With shifts, 43.5% and 99.5% of targets of 9 letters are right (medians; single seeds "
        "43.5% to 99.5%)."
    )
    assert last.endswith("Which of the two helps is not told apart.")
    records["sinusoids"] = [record("sinusoids", 0, 1.0, 1.0, 0.9, 0.8)]
    records["sinusoids"][0].data["config"]["task"]["max_length"] = 2
    assert "the paper's hope is met at this length" in length_results.beyond_words(records)[-1]
    assert len(length_results.beyond_words(records | {"learned": []})) == len(POSITIONS) - 1


def test_the_share_beyond_training_is_a_median_over_seeds():
    found = [record("sinusoids", seed, 1.0, 1.0, 0.1, share) for seed, share in enumerate((0.0, 0.1, 0.9))]
    (said,) = length_results.beyond_words({"sinusoids": found})
    assert said.endswith("10% of 9 letters (medians of 3 seeds).")
    np.testing.assert_allclose(
        length_results.beyond_training({"sinusoids": found}).axes[0].lines[0].get_ydata(), [1, 1, 0.1, 0.1]
    )


def test_the_figure_has_a_line_for_each_kind_that_is_recorded():
    top, bottom = length_results.beyond_training(RECORDS).axes
    assert [line.get_label() for line in top.lines[:2]] == [
        POSITIONS["sinusoids"],
        POSITIONS["learned_shifted"],
    ]
    np.testing.assert_allclose(top.lines[0].get_ydata(), [1, 0.95, 0.2, 0])
    assert top.lines[2].get_xdata() == [3.5, 3.5]
    np.testing.assert_allclose(bottom.lines[0].get_ydata(), [1, 0.5, 0.25])
    assert length_results.beyond_training({"learned": []}) is None
