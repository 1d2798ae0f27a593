"""Which config of the Reformer's chapter stands for which row at which profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from attn.experiments.reformer.fixed import FixedAttentionConfig, FixedWorkload
from attn.experiments.reformer.workloads import (
    AttentionConfig,
    CodeConfig,
    CodeWorkload,
    DuplicationConfig,
    DuplicationWorkload,
)
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


class Code(NamedTuple):
    """What a code that is public takes full attention and hashing for, with one bucket for each chunk."""

    label: str
    full: AttentionConfig
    hashed: AttentionConfig  # but for rounds and buckets


_HASHED = AttentionConfig(kind="lsh", is_scaled=True)
# As the facts read them: that of the replication, and that of the package which the benchmarks compare with.
CODES: Mapping[str, Code] = {
    "replication": Code("the replication's code", AttentionConfig(kind="full", unit_keys=False), _HASHED),
    "public": Code(
        "reformer-pytorch",
        AttentionConfig(kind="full", is_scaled=True),
        replace(_HASHED, convention="public"),
    ),
}
# Rows of table 2 by the conventions of a code: the row and the code.
CODE_MODELS: Mapping[str, tuple[str, str]] = {
    f"{row}_{code}": (row, code) for code in CODES for row in ("full", "lsh4", "lsh2", "lsh1")
}


class Variant(NamedTuple):
    """A row of table 2 by some of what the replication's code does, or by all and more, beside its full attention."""

    row: str
    label: str
    hashed: AttentionConfig  # but for rounds and buckets
    buckets: int  # for each chunk; two in the paper


# The code's own seed makes every call and head hash alike; its factor and its buckets are two things, each alone here.
_FIXED = FixedAttentionConfig(kind="lsh", is_scaled=True, rotation_seed=42)
VARIANTS: Mapping[str, Variant] = {
    "lsh1_fixed": Variant("lsh1", "the replication's code, fixed rotations", _FIXED, 1),
    "lsh2_fixed": Variant("lsh2", "the replication's code, fixed rotations", _FIXED, 1),
    "lsh2_scaled": Variant("lsh2", "of the replication's hashing the factor alone", _HASHED, 2),
    "lsh2_one_bucket": Variant(
        "lsh2", "of the replication's hashing the buckets alone", AttentionConfig(kind="lsh"), 1
    ),
}
MODELS = (*ATTENTIONS, *CODE_MODELS, *VARIANTS)
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
LABELS |= {
    model: f"{CODES[code].label}: {LABELS[row].partition(':')[0]}"
    for model, (row, code) in CODE_MODELS.items()
}
LABELS |= {model: f"{one.label}: {LABELS[one.row]}" for model, one in VARIANTS.items()}
TABLE2_ROWS = {"Full Attention": "full", "LSH-4": "lsh4", "LSH-2": "lsh2", "LSH-1": "lsh1"}


def own_evaluation(model: str) -> str:
    """Which evaluation is that of the training; queries and keys that were trained apart stay apart in full ones."""
    if model in CODE_MODELS:
        return CODE_MODELS[model][0]
    if model in VARIANTS:
        return VARIANTS[model].row
    return "full_plain" if model == "separate" else model


def build_duplication(config: DuplicationConfig, seed: int, device: torch.device) -> DuplicationWorkload:
    """Workload of duplication."""
    return DuplicationWorkload(config, seed, device)


def build_code(config: CodeConfig, seed: int, device: torch.device) -> CodeWorkload:
    """Workload of duplication by the conventions of a code."""
    return CodeWorkload(config, seed, device)


def build_fixed(config: CodeConfig, seed: int, device: torch.device) -> FixedWorkload:
    """Workload of duplication where every call and head hashes with the same rotations."""
    return FixedWorkload(config, seed, device)


def _builder(model: str) -> Callable[[Any, int, torch.device], DuplicationWorkload]:
    if model in ATTENTIONS:
        return build_duplication
    is_fixed = model in VARIANTS and isinstance(VARIANTS[model].hashed, FixedAttentionConfig)
    return build_fixed if is_fixed else build_code


def _duplication(budget: Mapping[str, Any], model: str) -> DuplicationConfig:
    training = budget["training"]
    config = DuplicationConfig if model in ATTENTIONS else CodeConfig
    return config(
        seq_len=budget["seq_len"],
        chunk_len=budget["chunk_len"],
        **_attentions(model, n_chunks=budget["seq_len"] // budget["chunk_len"]),
        training=TrainingConfig(
            max_steps=budget["steps"].get(model, training["steps"]),
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


def _attentions(model: str, n_chunks: int) -> Mapping[str, AttentionConfig]:
    """Of the training, and where the columns of the evaluation are a code's, of these."""
    if model in ATTENTIONS:
        return {"attention": ATTENTIONS[model]}
    if model in VARIANTS:
        row, _, hashed, buckets = VARIANTS[model]
        full = CODES["replication"].full
    else:
        row, code = CODE_MODELS[model]
        _, full, hashed = CODES[code]
        buckets = 1
    hashed = replace(hashed, n_buckets=buckets * n_chunks)
    trained = full if row == "full" else replace(hashed, n_rounds=ATTENTIONS[row].n_rounds)
    return {"attention": trained, "full": full, "hashed": hashed}


def _experiment(model: str) -> Experiment:
    budgets = {
        profile: budget
        for profile, budget in load_papers()[PAPER].budgets["duplication"].items()
        if model in budget["models"]
    }
    return Experiment(
        id=f"duplication/{model}",
        task="duplication",
        label=f"Duplication, {LABELS[model]}",
        tables=_tables(model),
        configs={profile: _duplication(budget, model) for profile, budget in budgets.items()},
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=_builder(model),
        share=_share,
    )


def _tables(model: str) -> tuple[str, ...]:
    """Which tables of the facts its records fill."""
    if model in TABLE2_ROWS.values():
        return ("table2",)
    return ("table2_reproduction",) if model.endswith("_replication") else ()


def _share(config: DuplicationConfig) -> str:
    """Updates and length beside the paper's, and the replication's batch."""
    paper = load_papers()[PAPER]
    steps, whole = config.training.max_steps, paper.recipe["steps"]["synthetic"]
    length = paper.budgets["duplication"]["paper"]["seq_len"]
    sequences = f"{config.training.batch_size} sequences of {config.seq_len:,} symbols"
    return f"{steps:,} updates of {sequences}; {whole:,} in the paper, of {length:,} symbols"


EXPERIMENTS = tuple(map(_experiment, MODELS))
