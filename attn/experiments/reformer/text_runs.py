"""Which config of the byte-level models, and of the timed steps, stands for what at which profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attn.data.language_text import TextConfig
from attn.experiments.reformer.byte_lm import ByteConfig, ByteWorkload
from attn.experiments.reformer.runs import ATTENTIONS, PAPER
from attn.experiments.reformer.step_time import StepTimeConfig, StepTimeWorkload
from attn.experiments.reformer.workloads import AttentionConfig
from attn.reproduction.experiment import Experiment
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig

Budget = Mapping[str, Any]
# Attention, and whether layers are reversible.
MODELS: Mapping[str, tuple[AttentionConfig, bool]] = {
    "standard": (ATTENTIONS["separate"], False),
    "shared": (ATTENTIONS["full"], False),
    "reversible": (ATTENTIONS["separate"], True),
    **{f"lsh{rounds}": (AttentionConfig(kind="lsh", n_rounds=rounds), False) for rounds in (8, 4, 2, 1)},
}
LABELS = {
    "standard": "separate queries and keys, plain residuals",
    "shared": "shared queries and keys, plain residuals",
    "reversible": "separate queries and keys, reversible",
    **{f"lsh{rounds}": f"LSH of {rounds} rounds, plain residuals" for rounds in (8, 4, 2)},
    "lsh1": "LSH of 1 round, plain residuals",
}


def build_bytes(config: ByteConfig, seed: int, device: torch.device) -> ByteWorkload:
    """Workload of a language model on bytes."""
    return ByteWorkload(config, seed, device)


def build_step_time(config: StepTimeConfig, seed: int, device: torch.device) -> StepTimeWorkload:
    """Workload of timed steps."""
    return StepTimeWorkload(config, seed, device)


def training_rate(training: Budget) -> float:
    """The factor of the schedule: as the released configs have it, or from the rate at its peak."""
    if "rate_constant" in training:
        return training["rate_constant"]
    if training.get("schedule") == "cosine":
        return training["peak_lr"]
    return training["peak_lr"] * training["warmup_steps"] ** 0.5


def _byte_config(budget: Budget, attention: AttentionConfig, **changes: Any) -> ByteConfig:
    training = budget["training"]
    sizes = {**budget["sizes"], **changes}
    if "axial_shape" in sizes:
        sizes["axial_shape"] = tuple(sizes["axial_shape"])
    return ByteConfig(
        text=TextConfig(**budget["text"]),
        attention=attention,
        **sizes,
        training=TrainingConfig(
            max_steps=training["steps"],
            batch_size=training["sequences"] * sizes["seq_len"],
            optimizer="adam",
            betas=(0.9, 0.98),
            eps=1e-9,
            lr=training_rate(training),
            schedule=training.get("schedule", "inverse_sqrt"),
            warmup_steps=training["warmup_steps"],
            precision=training.get("precision", "fp32"),
            eval_every=training["evaluate_every"],
        ),
    )


def _budgets(task: str) -> Mapping[str, Budget]:
    return load_papers()[PAPER].budgets[task]


def _ablation(model: str) -> Experiment:
    attention, is_reversible = MODELS[model]
    budgets = _budgets("byte_lm")
    return Experiment(
        id=f"byte_lm/{model}",
        task="byte_lm",
        label=f"Bytes, {LABELS[model]}",
        tables=(),
        configs={
            p: _byte_config(budget, attention, is_reversible=is_reversible) for p, budget in budgets.items()
        },
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=build_bytes,
        share=_share,
    )


def depths() -> list[int]:
    """Numbers of layers at any profile."""
    return sorted({depth for budget in _budgets("byte_depth").values() for depth in budget["depths"]})


def _depth(n_layers: int) -> Experiment:
    """A Reformer, shared queries and keys, hashed and reversible, of so many layers."""
    budgets = {p: b for p, b in _budgets("byte_depth").items() if n_layers in b["depths"]}
    configs = {
        profile: _byte_config(
            budget,
            AttentionConfig(kind="lsh", n_rounds=budget["n_rounds"]),
            is_reversible=True,
            n_layers=n_layers,
        )
        for profile, budget in budgets.items()
    }
    return Experiment(
        id=f"byte_depth/layers_{n_layers}",
        task="byte_depth",
        label=f"Bytes, Reformer of {n_layers} layer{'' if n_layers == 1 else 's'}",
        tables=(),
        configs=configs,
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=build_bytes,
        share=_share,
    )


def _step_time(model: str) -> Experiment:
    budgets = {p: b for p, b in _budgets("step_time").items() if model in b["models"]}
    configs = {}
    for profile, budget in budgets.items():
        lengths = tuple(budget["sizes"]["lengths"])
        configs[profile] = StepTimeConfig(
            attention=MODELS[model][0],
            **{**budget["sizes"], "lengths": lengths},
            training=TrainingConfig(max_steps=1, batch_size=1, optimizer="adam", lr=1e-3),
        )
    return Experiment(
        id=f"step_time/{model}",
        task="step_time",
        label=f"Time of a step over length, {LABELS[model]}",
        tables=(),
        configs=configs,
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=build_step_time,
        share=lambda config: (
            f"steps of {config.tokens:,} tokens, up to {max(config.lengths):,} in a sequence"
        ),
    )


def _share(config: ByteConfig) -> str:
    """Bytes seen and length beside those of the paper's quoted model."""
    paper = load_papers()[PAPER].budgets["byte_depth"]["paper"]
    whole = paper["training"]["steps"] * paper["training"]["sequences"] * paper["sizes"]["seq_len"]
    seen = config.training.max_steps * config.training.batch_size
    return (
        f"{seen:,} bytes in sequences of {config.seq_len:,}, {seen / whole:.2g} of the {whole:,} of the paper's model, "
        f"in sequences of {paper['sizes']['seq_len']:,}"
    )


EXPERIMENTS = (
    *(_ablation(model) for model in MODELS),
    *(_depth(n_layers) for n_layers in depths()),
    *(_step_time(model) for model in MODELS if any(model in b["models"] for b in _budgets("step_time").values())),
)  # fmt: skip
