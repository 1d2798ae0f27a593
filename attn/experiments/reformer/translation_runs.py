"""Which config of the translation models stands for which row of table 4 at which profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attn.experiments.reformer.runs import PAPER
from attn.experiments.reformer.text_runs import training_rate
from attn.experiments.reformer.translation import (
    EncoderDecoderConfig,
    ReversibleTranslationConfig,
    TranslationWorkload,
)
from attn.experiments.transformer.corpora import CorpusConfig
from attn.reproduction.experiment import Experiment
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig

Budget = Mapping[str, Any]
# Reversible or not, how long it is trained, and whether embeddings are shared.
MODELS: Mapping[str, tuple[bool, str, bool]] = {
    "transformer": (False, "short", True),
    "short_shared": (True, "short", True),
    "short_apart": (True, "short", False),
    "long_shared": (True, "long", True),
    "long_apart": (True, "long", False),
    "long_transformer": (False, "long", True),
    "big": (True, "big", False),
}
LABELS = {
    "transformer": "Transformer, short training, shared embeddings",
    "short_shared": "reversible, short training, shared embeddings",
    "short_apart": "reversible, short training, no sharing",
    "long_shared": "reversible, long training, shared embeddings",
    "long_apart": "reversible, long training, no sharing",
    "long_transformer": "Transformer, long training, shared embeddings",
    "big": "reversible, big, no sharing",
}
TABLE4_ROWS = {
    "Vaswani et al. (2017), base": "transformer",
    "Reversible Transformer (base, 100K steps)": "short_shared",
    "Reversible Transformer (base, 500K steps, no weight sharing)": "long_apart",
    "Reversible Transformer (big, 300K steps, no weight sharing)": "big",
}


def build_translation(
    config: ReversibleTranslationConfig, seed: int, device: torch.device
) -> TranslationWorkload:
    """Workload of translation."""
    return TranslationWorkload(config, seed, device)


def _config(budget: Budget, model: str) -> ReversibleTranslationConfig:
    is_reversible, duration, is_shared = MODELS[model]
    own = budget.get(model, {})
    training = {**budget["training"], **own.get("training", {})}
    sizes = {**budget["model"], **own.get("model", {})}
    corpus = {**budget["corpus"], "tests": tuple(budget["corpus"]["tests"])}
    return ReversibleTranslationConfig(
        corpus=CorpusConfig(**corpus),
        model=EncoderDecoderConfig(is_reversible=is_reversible, share_embeddings=is_shared, **sizes),
        training=TrainingConfig(
            max_steps=budget["steps"][duration],
            batch_size=training["tokens_per_batch"],
            optimizer="adam",
            betas=(0.9, 0.98),
            eps=1e-9,
            lr=training_rate(training),
            schedule="inverse_sqrt",
            warmup_steps=training["warmup_steps"],
            eval_every=training["evaluate_every"],
        ),
        average_every=training.get("average_every"),
    )


def _experiment(model: str) -> Experiment:
    all_budgets = load_papers()[PAPER].budgets["translation"]
    budgets = {p: b for p, b in all_budgets.items() if model in b["models"]}
    return Experiment(
        id=f"translation/{model}",
        task="translation",
        label=f"Translation, {LABELS[model]}",
        tables=("table4",) if model in TABLE4_ROWS.values() else (),
        configs={profile: _config(budget, model) for profile, budget in budgets.items()},
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=build_translation,
        share=_share,
    )


def _share(config: ReversibleTranslationConfig) -> str:
    """Corpus and target tokens seen, beside the paper's short training."""
    paper = load_papers()[PAPER].budgets["translation"]["paper"]
    whole = paper["steps"]["short"] * paper["training"]["tokens_per_batch"]
    seen = config.training.max_steps * config.training.batch_size
    return (
        f"about {seen:,} target tokens of {config.corpus.name}, {seen / whole:.2g} of the {whole:,} of the paper's "
        "short training"
    )


EXPERIMENTS = tuple(_experiment(model) for model in MODELS)
