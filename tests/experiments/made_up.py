"""Made-up runs of the Neural Turing Machine's chapter: tiny models of every task, and records without training."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import CopyTask
from attn.data.ngrams import NGramTask
from attn.data.priority_sort import PrioritySortTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.experiments.ntm.runs import PAPER as PAPER_ID
from attn.experiments.ntm.runs import TASKS
from attn.experiments.ntm.workloads import MODELS, EpisodicConfig, ModelConfig
from attn.reproduction.experiment import Outcome
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from attn.training.config import TrainingConfig
from tests.reproduction.toy import record_data

CPU = torch.device("cpu")
PAPER = load_papers()[PAPER_ID]
TASK = {task.id: task for task in TASKS}
LENGTHS = (10, 20, 30, 50, 120)  # of copy's final test
TRAINING = TrainingConfig(max_steps=2, batch_size=2, optimizer="rmsprop_graves", lr=1e-4)

# Each task as small as it can be, with sizes of the final test.
TINY = {
    "copy": (CopyTask(max_length=2), ((1,), (3,))),
    "repeat_copy": (RepeatCopyTask(n_bits=3, max_length=2, max_repeats=2), ((2, 2), (3, 1), (1, 3))),
    "associative": (AssociativeRecallTask(max_items=3), ((3,), (4,))),
    "ngrams": (NGramTask(order=3, length=12), ()),
    "priority_sort": (PrioritySortTask(n_shown=4, n_answered=3), ((),)),
}


def tiny(kind: str, task: str = "copy", /, **changes) -> EpisodicConfig:
    """A model of a few hundred weights on episodes of a few vectors; `changes` replace fields of the config."""
    episodes, sizes = TINY[task]
    model = ModelConfig(kind=kind, size=3, n_slots=9, slot_dim=2, n_layers=2 if kind == "lstm" else 1)
    settings = {"model": model, "task": episodes, "training": TRAINING, "validation_count": 2,
                "test_sizes": sizes, "test_count": 2, "trace_size": episodes.sizes()[-1]}  # fmt: skip
    return EpisodicConfig(**(settings | changes))


def outcome_of(config: EpisodicConfig, task: str, *, seed: int = 0, cost: float = 13.5) -> Outcome:
    """What is kept of the untrained model of a config; `cost` is the last of its history."""
    workload = TASK[task].build(config, seed, CPU)
    return workload.outcome(workload.model, [{"bits_per_sequence": cost}])


@cache
def outcomes(task: str = "copy") -> dict[str, Outcome]:
    """Outcomes of untrained models with 128 slots of width 2 by kind: artifacts of the sizes that the facts ask for."""
    budget = PAPER.budgets[task]["cpu"]
    config = {
        "task": TASK[task].episodes(**budget["task"]),
        "test_sizes": tuple(tuple(size) for size in budget["test_sizes"]),
        "trace_size": tuple(budget["trace_size"]),
        "validation_count": 2,
    }
    found = {}
    for kind in MODELS:
        layers = 2 if kind == "lstm" else 1
        model = ModelConfig(kind=kind, size=3, n_slots=128, slot_dim=2, n_layers=layers)
        found[kind] = outcome_of(tiny(kind, task, model=model, **config), task)
    return found


def run_of(
    experiment: str, seed: int = 0, *, costs=(9.0, 8.0), evaluations=101, metrics=None, **changes
) -> Record:
    """A run whose cost goes from one value to another in equal steps of 2000 sequences, with these metrics."""
    history = [
        {"step": 125 * i, "seen": 2000 * i, "bits_per_sequence": float(cost)}
        for i, cost in enumerate(np.linspace(*costs, evaluations))
    ]
    data = record_data(PAPER_ID, experiment, seed, metrics or {}, history=history, **changes)
    return Record(Path(f"seed{seed}.json"), data | {"artifact": None})


def seeds_of(experiment: str, n_seeds: int, *, spread=0.01, metrics=None, **options) -> list[Record]:
    """Seeds that differ a little in their metrics."""
    metrics = metrics or {}
    return [
        run_of(
            experiment,
            seed,
            metrics={name: value * (1 + spread * seed) for name, value in metrics.items()},
            **options,
        )
        for seed in range(n_seeds)
    ]


def costs_at(at) -> dict[str, float]:
    """Metrics of copy: a cost per bit at each length, 0.5 unless `at` says otherwise."""
    return {
        f"bits_per_bit_at_{length}": value
        for length, value in (dict.fromkeys(LENGTHS, 0.5) | (at or {})).items()
    }


def record(kind: str, seed: int = 0, *, at=None, **options) -> Record:
    """A run of copy."""
    return run_of(f"copy/{kind}", seed, metrics=costs_at(at), **options)


def five(kind: str, *, at=None, **options) -> list[Record]:
    """Five seeds of copy that differ a little."""
    return seeds_of(f"copy/{kind}", 5, metrics=costs_at(at), **options)


# Copy as the paper reports it: the NTM copies beyond training, the LSTM breaks there.
GOOD = five("ntm_lstm", costs=(9, 0.01), at={10: 1e-4, 20: 1e-4, 30: 2e-4, 50: 1e-3, 120: 0.05})
POOR = five("lstm", costs=(9, 2), at={10: 0.02, 20: 0.04, 30: 0.9, 50: 1.0, 120: 1.0})
