"""Which config of the Neural Turing Machine's chapter stands for which row at which profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import CopyTask
from attn.data.ngrams import NGramTask
from attn.data.priority_sort import PrioritySortTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.experiments.ntm.variants import build_learned_start, build_plain_heads
from attn.experiments.ntm.workloads import (
    MODELS,
    AssociativeWorkload,
    CopyWorkload,
    EpisodicConfig,
    ModelConfig,
    NGramWorkload,
    PrioritySortWorkload,
    RepeatCopyWorkload,
    TaskWorkload,
)
from attn.reproduction.experiment import Experiment
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig

PAPER = "graves2014ntm"
LABELS = {"ntm_lstm": "NTM, LSTM controller", "ntm_ff": "NTM, feed-forward controller", "lstm": "LSTM"}
PRINTED_TABLES = {"ntm_ff": "table1_ntm_ff", "ntm_lstm": "table2_ntm_lstm", "lstm": "table3_lstm"}


def build_copy(config: EpisodicConfig, seed: int, device: torch.device) -> CopyWorkload:
    """Workload of copy."""
    return CopyWorkload(config, seed, device)


def build_repeat_copy(config: EpisodicConfig, seed: int, device: torch.device) -> RepeatCopyWorkload:
    """Workload of repeat copy."""
    return RepeatCopyWorkload(config, seed, device)


def build_associative(config: EpisodicConfig, seed: int, device: torch.device) -> AssociativeWorkload:
    """Workload of associative recall."""
    return AssociativeWorkload(config, seed, device)


def build_ngrams(config: EpisodicConfig, seed: int, device: torch.device) -> NGramWorkload:
    """Workload of dynamic n-grams."""
    return NGramWorkload(config, seed, device)


def build_priority_sort(config: EpisodicConfig, seed: int, device: torch.device) -> PrioritySortWorkload:
    """Workload of priority sort."""
    return PrioritySortWorkload(config, seed, device)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the chapter needs to know of a task.

    Attributes:
        id: as in experiment ids and the facts' budgets.
        label: for people.
        row: the task's name in tables 1 to 3.
        episodes: draws its episodes; a budget's `task` gives the arguments.
        build: its workload.
        tables: the facts' tables that its runs fill, that of its learning curves first; none for a variant.
        of: for a variant, the id of the task whose paper budget is the whole.
    """

    id: str
    label: str
    row: str
    episodes: Callable[..., Any]
    build: Callable[..., TaskWorkload]
    tables: tuple[str, ...] = ()
    of: str | None = None


TASKS = (
    Task(id="copy", label="Copy", row="Copy", episodes=CopyTask, build=build_copy, tables=("fig3_copy_curves",)),
    Task(id="repeat_copy", label="Repeat copy", row="Repeat Copy", episodes=RepeatCopyTask, build=build_repeat_copy,
         tables=("fig7_repeat_copy_curves",)),
    Task(id="associative", label="Associative recall", row="Associative", episodes=AssociativeRecallTask,
         build=build_associative, tables=("fig10_associative_curves", "fig11_associative_generalisation")),
    Task(id="ngrams", label="Dynamic 6-grams", row="N-Grams", episodes=NGramTask, build=build_ngrams,
         tables=("fig13_ngram_curves",)),
    Task(id="priority_sort", label="Priority sort", row="Priority Sort", episodes=PrioritySortTask,
         build=build_priority_sort, tables=("fig18_sort_curves",)),
)  # fmt: skip


def _variant(name: str, label: str, of: str, build: Callable[..., TaskWorkload] | None = None) -> Task:
    """The same task under another id, to be run with another budget or setting, or built otherwise."""
    whole = next(task for task in TASKS if task.id == of)
    return replace(
        whole, id=name, label=f"{whole.label}, {label}", build=build or whole.build, tables=(), of=of
    )


# What a deviation changes, measured: each has its own budget in the facts.
VARIANTS = (
    _variant("copy_batch1", "one sequence an update", "copy"),
    _variant("copy_mixed_lengths", "a length for each sequence of an update", "copy"),
    _variant("copy_torch_rmsprop", "torch's RMSprop", "copy"),
    _variant("copy_no_shift", "no shift", "copy"),
    _variant("copy_wide_shift", "shifts by up to two slots", "copy"),
    _variant("copy_printed_rate", "the paper's learning rate", "copy"),
    _variant("copy_plain_heads", "heads with zero biases", "copy", build_plain_heads),
    _variant("copy_learned_start", "a learned start of the memory", "copy", build_learned_start),
    _variant("associative_batch1", "one sequence an update", "associative"),
    _variant("priority_sort_batch1", "one sequence an update", "priority_sort"),
    _variant(
        "priority_sort_one_head", "one read and one write head, one sequence an update", "priority_sort"
    ),
)


def numbers(text: str) -> tuple[int, int]:
    """ "2 x 100" as (2, 100), "100" as (1, 100): how tables 1 to 3 print layers and memory."""
    found = [int(part) for part in text.split("x")]
    return (1, found[0]) if len(found) == 1 else (found[0], found[1])


def printed_model(kind: str, row: Mapping[str, Any]) -> ModelConfig:
    """The model of a row of table 1, 2 or 3."""
    if kind == "lstm":
        n_layers, size = numbers(row["network"])
        return ModelConfig(kind=kind, size=size, n_layers=n_layers)
    n_layers, size = numbers(row["controller_size"])
    n_slots, slot_dim = numbers(row["memory"])
    return ModelConfig(
        kind=kind, size=size, n_layers=n_layers, n_heads=row["heads"], n_slots=n_slots, slot_dim=slot_dim
    )


def _printed_row(kind: str, task: Task) -> Mapping[str, Any]:
    rows = load_papers()[PAPER].table(PRINTED_TABLES[kind]).rows
    return next(row for row in rows if row["task"] == task.row)


def _config(task: Task, kind: str, budget: Mapping[str, Any]) -> EpisodicConfig:
    """The config of a budget in the facts."""
    batch_size = budget["batch_size"]
    max_steps = budget["sequences"] // batch_size
    training = TrainingConfig(
        max_steps=max_steps,
        final_steps=round(budget["final_share"] * max_steps),
        batch_size=batch_size,
        optimizer=budget.get("optimizer", "rmsprop_graves"),
        lr=budget["lr"][kind],
        momentum=0.9,
        grad_clip_value=10.0,
        eval_every=budget["evaluate_every"] // batch_size,
    )
    model = replace(printed_model(kind, _printed_row(kind, task)), **budget.get("model", {}))
    return EpisodicConfig(
        model=model, task=task.episodes(**budget["task"]), training=training,
        same_length=budget.get("same_length", True),
        validation_count=budget["validation_count"], test_count=budget["test_count"],
        test_sizes=tuple(tuple(size) for size in budget["test_sizes"]), trace_size=tuple(budget["trace_size"]),
    )  # fmt: skip


def _share(task: Task) -> Callable[[EpisodicConfig], str]:
    whole = load_papers()[PAPER].budgets[task.of or task.id]["paper"]["sequences"]

    def share(config: EpisodicConfig) -> str:
        seen = config.training.max_steps * config.training.batch_size
        return f"{seen:,} sequences, {seen / whole:.0%} of the paper's {whole:,}"

    return share


def _experiment(task: Task, kind: str) -> Experiment:
    budgets = {
        profile: budget
        for profile, budget in load_papers()[PAPER].budgets[task.id].items()
        if kind in budget["lr"]
    }
    return Experiment(
        id=f"{task.id}/{kind}",
        task=task.id,
        label=f"{task.label}, {LABELS[kind]}",
        tables=task.tables,
        configs={profile: _config(task, kind, budget) for profile, budget in budgets.items()},
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=task.build,
        share=_share(task),
    )


def _models(task: Task) -> list[str]:
    """Models with a budget at any profile."""
    budgets = load_papers()[PAPER].budgets[task.id].values()
    return [kind for kind in MODELS if any(kind in budget["lr"] for budget in budgets)]


EXPERIMENTS = tuple(_experiment(task, kind) for task in (*TASKS, *VARIANTS) for kind in _models(task))
