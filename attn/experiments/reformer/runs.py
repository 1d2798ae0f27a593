"""Which config of the Reformer's chapter stands for which row at which profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attn.experiments.reformer.workloads import AttentionConfig, DuplicationConfig, DuplicationWorkload
from attn.reproduction.experiment import Experiment
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig

PAPER = "kitaev2020"
# What a model is trained with: table 2's rows, then full attention by other conventions.
ATTENTIONS: Mapping[str, AttentionConfig] = {
    "full": AttentionConfig(kind="full"),
    "lsh4": AttentionConfig(kind="lsh", n_rounds=4),
    "lsh2": AttentionConfig(kind="lsh", n_rounds=2),
    "lsh1": AttentionConfig(kind="lsh", n_rounds=1),
    "full_with_self": AttentionConfig(kind="full", self_last=False),
    "full_raw_keys": AttentionConfig(kind="full", unit_keys=False),
    "full_plain": AttentionConfig(kind="full", unit_keys=False, self_last=False),
    "separate": AttentionConfig(kind="full", shared_qk=False, unit_keys=False, self_last=False),
}
LABELS = {
    "full": "full attention: shared, unit keys, itself last",
    "lsh4": "LSH, 4 rounds",
    "lsh2": "LSH, 2 rounds",
    "lsh1": "LSH, 1 round",
    "full_with_self": "full attention: shared, unit keys, itself allowed",
    "full_raw_keys": "full attention: shared, raw keys, itself last",
    "full_plain": "full attention: shared, raw keys, itself allowed",
    "separate": "full attention: separate queries and keys",
}
TABLE2_ROWS = {"Full Attention": "full", "LSH-4": "lsh4", "LSH-2": "lsh2", "LSH-1": "lsh1"}


def own_evaluation(attention: str) -> str:
    """Which evaluation is that of the training; queries and keys that were trained apart stay apart in full ones."""
    return "full_plain" if attention == "separate" else attention


def build_duplication(config: DuplicationConfig, seed: int, device: torch.device) -> DuplicationWorkload:
    """Workload of duplication."""
    return DuplicationWorkload(config, seed, device)


def _duplication(budget: Mapping[str, Any], attention: str) -> DuplicationConfig:
    training = budget["training"]
    return DuplicationConfig(
        seq_len=budget["seq_len"],
        chunk_len=budget["chunk_len"],
        attention=ATTENTIONS[attention],
        training=TrainingConfig(
            max_steps=budget["steps"].get(attention, training["steps"]),
            batch_size=training["batch_size"],
            optimizer="adam",
            betas=(0.9, 0.98),
            eps=1e-9,
            lr=training["lr"],
            schedule="linear_warmup",
            warmup_steps=training["warmup_steps"],
            eval_every=training["evaluate_every"],
        ),
    )


def _experiment(attention: str) -> Experiment:
    budgets = {
        profile: budget
        for profile, budget in load_papers()[PAPER].budgets["duplication"].items()
        if attention in budget["models"]
    }
    return Experiment(
        id=f"duplication/{attention}",
        task="duplication",
        label=f"Duplication, {LABELS[attention]}",
        tables=("table2",) if attention in TABLE2_ROWS.values() else (),
        configs={profile: _duplication(budget, attention) for profile, budget in budgets.items()},
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=build_duplication,
        share=_share,
    )


def _share(config: DuplicationConfig) -> str:
    """Updates and length beside the paper's, and the replication's batch."""
    paper = load_papers()[PAPER]
    steps, whole = config.training.max_steps, paper.recipe["steps"]["synthetic"]
    length = paper.budgets["duplication"]["paper"]["seq_len"]
    sequences = f"{config.training.batch_size} sequences of {config.seq_len:,} symbols"
    return f"{steps:,} updates of {sequences}; {whole:,} in the paper, of {length:,} symbols"


EXPERIMENTS = tuple(_experiment(attention) for attention in ATTENTIONS)
