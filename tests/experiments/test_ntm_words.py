"""What chapter 6 says of tasks, sizes and training: computed from tasks, models and optimisers."""

import pytest
import torch

from attn.experiments.ntm import words
from attn.experiments.ntm.runs import EXPERIMENTS, TASKS
from attn.training.optimizers import GravesRMSprop
from tests.experiments.made_up import run_of


@pytest.mark.parametrize(
    ("task", "sizes", "chance"),
    [
        ("copy", "1 to 20 vectors of 8 bits.", "8 bits a vector, and one more for the marker's output"),
        (
            "repeat_copy",
            "1 to 10 vectors of 6 bits, 1 to 10 times.",
            "6 bits a vector, and one more a step for",
        ),
        ("associative", "2 to 6 items, each of 3 vectors of 6 bits.", "18 bits."),
        ("ngrams", "Sequences of 200 bits, 32 contexts of 5 bits each.", "200 bits."),
        (
            "priority_sort",
            "20 vectors of 8 bits, of which the 16 of highest priority are answered.",
            "128 bits.",
        ),
    ],
)
def test_sizes_and_chance_are_the_task_s(task, sizes, chance):
    (said,) = words.task_words(task)
    assert said.startswith(f"{sizes} Guessing costs {chance}")
    if task == "copy":
        assert words.task_words(task, "ci")[0].startswith("1 to 5 vectors of 8 bits.")


def test_every_task_has_words():
    assert all(words.task_words(task.id) for task in TASKS)


def test_lengths_of_the_test_are_the_budget_s():
    assert words.length_test_words() == [
        "Trained on 1 to 20 vectors, tested at 10, 20, 30, 50, 120; the memory has 128 slots. The traces are of length 20."
    ]


def test_chance_of_repeat_copy_is_that_of_drawn_episodes():
    (said,) = words.width_words()
    task = next(one for one in TASKS if one.id == "repeat_copy").episodes()
    lengths = [task.draw(1, torch.Generator(), *size).scored.sum().item() for size in task.sizes()]
    mean = sum(lengths) / len(lengths)  # the end marker's step included
    assert (
        said.startswith(f"An answer has {mean - 1:g} vectors")
        and "cost 181.5 bits with 6 a vector, and 242 bits with 8" in said
    )
    assert "begin between 175 and 185" in said
    assert f": {mean * task.n_outputs:g} bits by chance." in said


def test_values_held_are_those_of_the_models_states():
    configs = {e.id: e.configs["cpu"] for e in EXPERIMENTS if e.task == "copy"}
    task = next(iter(configs.values())).task
    inputs = torch.zeros(1, 1, task.n_inputs)
    build = {e.id: e.build for e in EXPERIMENTS}
    states = {
        kind: build[f"copy/{kind}"](configs[f"copy/{kind}"], 0, torch.device("cpu")).model(inputs)[1]
        for kind in ("ntm_lstm", "lstm")
    }
    (said,) = words.memory_words()
    machine = states["ntm_lstm"]
    assert f"{machine.memory.numel():,} in the memory (128 slots of 20)" in said
    assert f"{machine.weights.numel():,} in the weightings of its heads" in said
    assert f" and {machine.reads.numel():,} in what they read" in said
    assert f"{sum(part.numel() for part in machine.controller):,} in the state of its LSTM" in said
    assert (
        f"{sum(part.numel() for part in states['lstm']):,} in the state of the LSTM alone (3 layers of 256"
        in said
    )


def test_tasks_without_runs_of_one_sequence_an_update_are_named():
    assert words.single_words() == [
        "With one sequence an update there are also runs of copy, associative recall and priority sort; of repeat copy "
        "and dynamic 6-grams there are none."
    ]


def test_the_longest_run_is_that_of_most_updates():
    assert words.longest_words([]) == ["No records yet."]
    runs = [run_of("copy/lstm", evaluations=n) for n in (101, 11)]
    assert "has 12,500 updates" in words.longest_words(runs)[0]


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
def test_the_factor_is_that_of_the_optimisers_own_steps(size):
    steps = {}
    for form, options in ((GravesRMSprop, {"momentum": 0.0}), (torch.optim.RMSprop, {"alpha": 0.95})):
        weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimiser = form([weight], lr=1.0, **options)
        for step in range(400):
            before = weight.detach().clone()
            weight.grad = torch.full_like(weight, size * (-1) ** step)
            optimiser.step()
        steps[form] = float((weight.detach() - before).abs())
    ratio = steps[torch.optim.RMSprop] / steps[GravesRMSprop]
    assert words.rmsprop_factor(size) == pytest.approx(ratio, rel=1e-2)


def test_what_either_form_cost_is_read_off_records():
    ours = [run_of("copy/ntm_lstm", seed, costs=(10, 0)) for seed in range(3)]
    theirs = [run_of("copy_torch_rmsprop/ntm_lstm", costs=(8, 0))]
    factors, found = words.rmsprop_words(ours, theirs)
    assert "1.41 times at 0.01, 10 times at 0.001, 100 times at 0.0001" in factors
    assert "Graves's form 5.2 bits (3), torch's 4.16 (1)" in found and found.endswith(
        "torch's form ended lower."
    )
    assert words.rmsprop_words(theirs, ours)[1].endswith("torch's form ended no lower.")
    assert len(words.rmsprop_words(ours, [])) == 1
