"""Counts of what trained machines do, on made-up traces that do it, in part, or not at all."""

import numpy as np
import pytest
import torch

from attn.data.associative_recall import AssociativeRecallTask
from attn.experiments.ntm import mechanisms
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.records import Record, pack_arrays
from tests.experiments.made_up import outcomes, run_of

N_SLOTS = 16


def one_hot(slots):
    return np.eye(N_SLOTS)[np.asarray(slots) % N_SLOTS][:, None]  # [T, 1, N]


@pytest.fixture
def keep(tmp_path):
    """A function from a trace to a record that keeps it, of a seed that ends at `cost`."""

    def keep(arrays, seed=0, cost=1.0):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        path.write_bytes(pack_arrays({name: np.asarray(array) for name, array in arrays.items()}))
        run = run_of("copy/ntm_lstm", seed, costs=(cost, cost), config={"task": {"order": 3}, "training": {}})
        return Record(tmp_path / f"seed{seed}.json", run.data | {"artifact": {"file": path.name}})

    return keep


# --- copy ----------------------------------------------------------------------------------------------------


def copied(read, write=(15, 14, 13)):
    """Three vectors: start, three inputs, end, three answers."""
    inputs = np.zeros((8, 4))
    inputs[:5, 0] = 1
    return {
        "trace_inputs": inputs,
        "trace_write_weights": one_hot([0, *write, 5, 5, 5, 5]),
        "trace_read_weights": one_hot([0, 1, 2, 3, *read]),
    }


def test_a_walk_is_counted_and_its_direction_told():
    assert mechanisms.copying_counts(copied([4, 15, 14, 13])) == (2, 3, 3, -1, 0)
    assert mechanisms.copying_counts(copied([4, 15, 14, 9])) == (2, 2, 3, -1, 0), (
        "one vector is read elsewhere"
    )
    assert mechanisms.copying_counts(copied([0, 1, 15, 7], write=(1, 15, 0))) == (1, 2, 3, -2, 0)


def test_reading_a_step_ahead_is_reading_too():
    assert mechanisms.copying_counts(copied([15, 14, 13, 9])) == (2, 3, 3, -1, 1)


def test_copying_is_told_of_the_best_seed_and_counted_for_all(keep):
    rows = [keep(copied([4, 15, 14, 9]), seed=0, cost=2), keep(copied([15, 14, 13, 9]), seed=1, cost=1)]
    shown, others = mechanisms.copying_words(rows)
    assert shown == (
        "Seed 1, shown above: while 3 vectors come in, the write head's main slot moves by -1 in 2 of 2 steps between "
        "them; for 3 of 3 vectors the read head's main slot a step before that vector is due is the one written to when "
        "it came in."
    )
    assert others == "The same counts of all 2 seeds. seed 0: 2 and 2; seed 1: 2 and 3."
    assert (
        len(mechanisms.copying_words(rows[:1])) == 1
        and "at the step where" in mechanisms.copying_words(rows[:1])[0]
    )


# --- associative recall --------------------------------------------------------------------------------------


def recalled(read_slot, queried=1):
    """Four items, item i written to slot i; the second is shown again."""
    bits = torch.randint(0, 2, (1, 4, 3, 6), generator=torch.Generator().manual_seed(1))
    inputs = AssociativeRecallTask().episodes(bits, torch.tensor([queried])).inputs[0].numpy()
    steps = len(inputs)
    return {
        "trace_inputs": inputs,
        "trace_write_weights": one_hot(np.minimum(np.arange(steps) // 4, 9)),
        "trace_read_weights": one_hot([read_slot] * steps),
        "trace_reads": np.ones((steps, 1, 2)),
    }


@pytest.mark.parametrize(
    ("slot", "whose"),
    [
        (2, "the item to be answered"),
        (1, "the item shown again"),
        (3, "the item after the answer"),
        (0, "another item"),
    ],
)
def test_the_slot_read_first_belongs_to_an_item(keep, slot, whose):
    assert mechanisms.recalled_item(recalled(slot)) == (slot, 1, 4, slot, 1.0)
    (said,) = mechanisms.recalling_words([keep(recalled(slot))])
    assert f"main slot is {slot} (weight 1.00)" in said and said.endswith(
        f"while item {slot + 1} of 4 came in, {whose}."
    )


# --- dynamic n-grams -----------------------------------------------------------------------------------------


def counted(slot_of):
    """A sequence of 60 bits whose read head is where `slot_of` (context, step) says; contexts have two bits."""
    bits = np.random.default_rng(0).integers(0, 2, 60)
    inputs = np.concatenate([[0], bits])[:, None]
    slots = [0, 0] + [slot_of(2 * bits[t - 2] + bits[t - 1], t) for t in range(2, 61)]
    return {
        "trace_inputs": inputs,
        "trace_read_weights": one_hot(slots),
        "trace_write_weights": one_hot([0] * 61),
    }


def test_a_slot_for_each_context_is_found():
    assert mechanisms.same_slot(counted(lambda context, t: context + 3), 3) == (1.0, 0.0)
    assert mechanisms.same_slot(counted(lambda context, t: 5), 3) == (1.0, 1.0), "always the same slot"
    again, otherwise = mechanisms.same_slot(counted(lambda context, t: t), 3)
    assert again < 0.2 and otherwise < 0.2, "a walk that does not look at contexts"


def test_counting_words_say_how_far_weights_are_spread(keep):
    trace = counted(lambda context, t: context)
    trace["trace_write_weights"] = np.full_like(trace["trace_write_weights"], 1 / N_SLOTS)
    shown, both = mechanisms.counting_words([keep(trace), keep(trace, seed=1)])
    assert "is 0.062 when writing and 1 when reading" in shown and "0.062 all slots alike" in shown
    assert "in 100% of cases" in shown and shown.endswith("it is the same in 0%.")
    assert both.endswith("seed 0: 100% against 0%; seed 1: 100% against 0%.")


# --- priority sort -------------------------------------------------------------------------------------------


def test_sorting_counts_the_line_and_the_walk(keep):
    generator = np.random.default_rng(0)
    priorities = generator.uniform(-1, 1, 20)
    inputs = np.zeros((36, 9))
    inputs[:20, :8] = 1
    inputs[:20, 8] = priorities
    places = np.concatenate([np.round(7 - 5 * priorities), np.zeros(16)]).astype(int)
    trace = {
        "trace_inputs": inputs,
        "trace_write_weights": one_hot(places),
        "trace_read_weights": one_hot([*[0] * 20, *range(2, 18)]),
    }
    explained, steps, count = mechanisms.sorting_counts(trace)
    assert explained > 0.95 and (steps, count) == (15, 15)
    (said,) = mechanisms.sorting_words([keep(trace)])
    assert f"explains {explained:.0%} of where" in said and "15 of 15 steps" in said


# --- in general ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["copying", "recalling", "counting", "sorting"])
def test_without_records_it_says_so(words):
    assert getattr(mechanisms, f"{words}_words")([]) == ["No records yet."]


@pytest.mark.parametrize(
    ("words", "task"),
    [("copying", "copy"), ("recalling", "associative"), ("counting", "ngrams"), ("sorting", "priority_sort")],
)
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "lstm"])
def test_artifacts_of_runs_hold_what_is_counted(keep, words, task, kind):
    (said,) = getattr(mechanisms, f"{words}_words")([keep(outcomes(task)[kind].artifact)])
    assert said.startswith("Seed 0, shown above: ") and said.endswith(".")
