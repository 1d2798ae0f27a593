"""Which config of the Transformer's chapter stands for which row at which profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from attn.data.copied_letters import CopyingTask
from attn.experiments.transformer.alignments import AlignedWorkload
from attn.experiments.transformer.best import BestWorkload
from attn.experiments.transformer.corpora import GENERATED, CorpusConfig
from attn.experiments.transformer.flops import model_flops
from attn.experiments.transformer.lengths import LengthsConfig, LengthsWorkload
from attn.experiments.transformer.pronoun import CaptionsWorkload
from attn.experiments.transformer.workloads import (
    PairsWorkload,
    RecurrentConfig,
    SearchConfig,
    TransformerConfig,
    TranslationConfig,
)
from attn.reproduction.experiment import Experiment
from attn.reproduction.facts import load_papers
from attn.reproduction.number_text import plain_exponent
from attn.training.config import TrainingConfig

PAPER = "vaswani2017"
LABELS = {
    "transformer": "Transformer",
    "base": "Transformer (base model)",
    "big": "Transformer (big)",
    "gru_attention": "GRU with additive attention",
    "gru": "GRU without attention",
    "lstm": "LSTM without attention",
}
TASKS = {
    "spoken_numbers": "Numbers and dates in words, English to German",
    "captions_en_de": "Multi30k, English to German",
    "captions_en_fr": "Multi30k, English to French",
    "multi30k_en_de": "Multi30k, English to German, longer training",
    "wmt14_sample_en_de": "10,000 pairs of WMT14, English to German",
    "wmt14_en_de": "WMT14, English to German",
    "wmt14_en_fr": "WMT14, English to French",
}
POSITIONS = {
    "sinusoids": "sinusoids",
    "learned": "learned positions",
    "sinusoids_shifted": "sinusoids, shifted in training",
    "learned_shifted": "learned positions, shifted in training",
}
GRID = "table3_long"  # the runs of table 3 that its tests are judged on
SHORT_GRID = "table3"  # its first runs, too short for its tests; named first, and records carry names
# "About 37000 tokens" (Sec. 5.1).
PRINTED_VOCABULARY = load_papers()[PAPER].recipe["tokenisation"]["entries"]["en_de"]
_TABLE3_COLUMNS = {
    "N": "n_layers", "d_model": "d_model", "d_ff": "d_ff", "h": "n_heads", "d_k": "head_dim", "d_v": "value_dim",
}  # fmt: skip
Row = Mapping[str, Any]


def build(config: TranslationConfig, seed: int, device: torch.device) -> PairsWorkload:
    """Workload of a run."""
    return PairsWorkload(config, seed, device)


def build_captions(config: TranslationConfig, seed: int, device: torch.device) -> CaptionsWorkload:
    """Workload of a run on captions of images."""
    return CaptionsWorkload(config, seed, device)


def build_aligned(config: TranslationConfig, seed: int, device: torch.device) -> AlignedWorkload:
    """Workload of a recurrent model with attention."""
    return AlignedWorkload(config, seed, device)


def build_best(config: TranslationConfig, seed: int, device: torch.device) -> BestWorkload:
    """Workload of a run that is also scored at its best evaluation."""
    return BestWorkload(config, seed, device)


def build_lengths(config: LengthsConfig, seed: int, device: torch.device) -> LengthsWorkload:
    """Workload of a run on copied letters."""
    return LengthsWorkload(config, seed, device)


def _builder(task: str, model: TransformerConfig | RecurrentConfig) -> Callable[..., PairsWorkload]:
    """Which workload keeps what there is to show of a model on this corpus."""
    if isinstance(model, RecurrentConfig) and model.attention is not None:
        return build_aligned
    return build_captions if task.startswith(("captions", "multi30k")) else build


# --- the rows of table 3 -----------------------------------------------------------------------------------


def table3_rows() -> tuple[Row, ...]:
    """The rows as printed."""
    return load_papers()[PAPER].table("table3").rows


def row_id(row: Row) -> str:
    """A row by what it changes, as "h_4", "d_k_16" or "base"."""
    if row["group"] in ("base", "big"):
        return row["group"]
    if "variation" in row:
        return "learned_positions"
    name = _changed(row)
    return f"{name.lower()}_{row[name]:g}".replace(".", "")


def _changed(row: Row) -> str:
    """The first column that a row prints; a width of heads follows from those before it."""
    return next(name for name in (*_TABLE3_COLUMNS, "P_drop", "eps_ls") if row[name] is not None)


def complete(row: Row) -> dict[str, Any]:
    """A row with its blank cells filled in: the base model's values, and d_model / h for the widths of a head."""
    base = table3_rows()[0]
    filled = {name: base[name] if row.get(name) is None else row[name] for name in base}
    for width in ("d_k", "d_v"):
        if row[width] is None and row["h"] is not None:
            filled[width] = filled["d_model"] // filled["h"]
    return filled | {"positions": "learned" if "variation" in row else "sinusoidal"}


def printed_model(row: Row) -> TransformerConfig:
    """The model of a row of table 3 at the paper's size."""
    full = complete(row)
    sizes = {field: full[column] for column, field in _TABLE3_COLUMNS.items()}
    return TransformerConfig(**sizes, dropout=full["P_drop"], positions=full["positions"])


def scaled_model(row: Row, base: Mapping[str, int]) -> TransformerConfig:
    """The model of a row where `base` stands for the paper's base model: every size by the same ratio to it.

    Args:
        row: of table 3.
        base: n_layers, d_model, d_ff and n_heads of the small base model.

    Raises:
        ValueError: if a size would be no whole number.
    """
    wanted, paper = printed_model(row), printed_model(table3_rows()[0])
    own = {
        **base,
        "head_dim": base["d_model"] // base["n_heads"],
        "value_dim": base["d_model"] // base["n_heads"],
    }
    sizes = {}
    for name, value in own.items():
        size, left = divmod(value * getattr(wanted, name), getattr(paper, name))
        if left or size < 1:
            raise ValueError(
                f"{name} of row {row_id(row)!r} must be a whole number; got {size + left / getattr(paper, name):g}"
            )
        sizes[name] = size
    return replace(wanted, **sizes)


# --- configs from the budgets of the facts ------------------------------------------------------------------


def _training(budget: Row, d_model: int) -> TrainingConfig:
    """The paper's optimiser and schedule (Sec. 5.3); `peak_lr` stands in for what d_model ** -0.5 would give."""
    warmup = budget["warmup_steps"]
    factor = budget["peak_lr"] * warmup**0.5 if "peak_lr" in budget else d_model**-0.5
    return TrainingConfig(
        max_steps=budget["steps"],
        batch_size=budget["tokens_per_batch"],
        optimizer="adam",
        betas=(0.9, 0.98),
        eps=1e-9,
        lr=factor,
        schedule="inverse_sqrt",
        warmup_steps=warmup,
        grad_clip_norm=budget.get("grad_clip_norm"),
        grad_accum_steps=budget.get("grad_accum_steps", 1),
        precision=budget.get("precision", "fp32"),
        eval_every=budget["evaluate_every"],
    )


def _config(
    budget: Row, model: TransformerConfig | RecurrentConfig, training: Row, label_smoothing: float
) -> TranslationConfig:
    corpus = {**budget["corpus"], "tests": tuple(budget["corpus"].get("tests", ()))}
    width = model.d_model if isinstance(model, TransformerConfig) else model.hidden_size
    return TranslationConfig(
        corpus=CorpusConfig(**corpus),
        model=model,
        training=_training(training, width),
        label_smoothing=label_smoothing,
        average_every=training.get("average_every"),
        average_count=training.get("average_count", 5),
        search=SearchConfig(**budget.get("search", {})),
    )


def _model(settings: Row) -> TransformerConfig | RecurrentConfig:
    return (RecurrentConfig if "cell" in settings else TransformerConfig)(**settings)


def _translation(task: str, kind: str) -> Experiment:
    """One model on one corpus, at every profile that has a budget for it."""
    budgets = {p: b for p, b in load_papers()[PAPER].budgets[task].items() if kind in b["models"]}
    configs = {}
    for profile, budget in budgets.items():
        own = budget["models"][kind]
        training = {**budget["training"], **own.get("training", {})}
        configs[profile] = _config(budget, _model(own["model"]), training, own.get("label_smoothing", 0.1))
    return Experiment(
        id=f"{task}/{kind}",
        task=task,
        label=f"{TASKS[task]}, {LABELS[kind]}",
        tables=("table2",) if task in ("wmt14_en_de", "wmt14_en_fr") else (),
        configs=configs,
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=_builder(task, next(iter(configs.values())).model),
        share=partial(_share, whole="big" if kind == "big" else "base"),
    )


def _ablation(row: Row, task: str = GRID) -> Experiment:
    """A row of table 3 by a task's budgets: at the paper's sizes in profile "paper", scaled down in the others."""
    full = complete(row)
    budgets = load_papers()[PAPER].budgets[task]
    configs = {}
    for profile, budget in budgets.items():
        model = printed_model(row) if profile == "paper" else scaled_model(row, budget["base"])
        training = budget["training"]
        if profile == "paper":
            training = {**training, "steps": full["train_steps"]}
        configs[profile] = _config(budget, model, training, full["eps_ls"])
    return Experiment(
        id=f"{task}/{row_id(row)}",
        task=task,
        label=f"Table 3, {row_label(row)}",
        tables=("table3",),
        configs=configs,
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=build_best,
        share=partial(_share, whole="big" if row["group"] == "big" else "base"),
    )


def _short(row: Row) -> Experiment:
    """A row of table 3 with fewer updates and a shorter warm-up, not scored at its best evaluation."""
    row_again = _ablation(row, SHORT_GRID)
    return replace(row_again, label=f"{row_again.label}, shorter training", tables=(), build=build)


def _pre_norm(base: Experiment) -> Experiment:
    """A row of table 3 with layer norm before each sub-layer, which measures a deviation."""
    return replace(
        base,
        id=base.id.replace(f"{GRID}/", "table3_pre_norm/"),
        task="table3_pre_norm",
        label=f"{base.label}, layer norm before each sub-layer",
        tables=(),
        configs={
            profile: replace(config, model=replace(config.model, norm_position="pre"))
            for profile, config in base.configs.items()
        },
    )


def _positions(kind: str) -> Experiment:
    """Copied letters with one kind of positions."""
    budgets = load_papers()[PAPER].budgets["lengths"]
    configs = {
        profile: LengthsConfig(
            task=CopyingTask(**budget["task"]),
            model=TransformerConfig(**budget["model"], positions=budget["models"][kind]["positions"]),
            training=_training(
                {**budget["training"], "tokens_per_batch": budget["pairs"]}, budget["model"]["d_model"]
            ),
            max_shift=budget["models"][kind].get("max_shift", 0),
            test_lengths=tuple(budget["test_lengths"]),
            n_test=budget["n_test"],
        )
        for profile, budget in budgets.items()
    }
    return Experiment(
        id=f"lengths/{kind}",
        task="lengths",
        label=f"Copied letters, {POSITIONS[kind]}",
        tables=(),
        configs=configs,
        seeds={profile: budget["seeds"] for profile, budget in budgets.items()},
        build=build_lengths,
        share=_lengths_share,
    )


def _lengths_share(config: LengthsConfig) -> str:
    seen = config.training.max_steps * config.training.batch_size
    return (
        f"{seen:,} generated pairs of at most {config.task.max_length} letters; no counterpart in the paper"
    )


def row_label(row: Row) -> str:
    """A row for people, by the first thing that it changes: "(A) h = 4"."""
    if row["group"] in ("base", "big"):
        return row["group"]
    if "variation" in row:
        return f"({row['group']}) learned positions"
    name = _changed(row)
    return f"({row['group']}) {name} = {row[name]}"


def _share(config: TranslationConfig, *, whole: str) -> str:
    """Target tokens seen and arithmetic done, beside those of the paper's base or big model."""
    recipe = load_papers()[PAPER].recipe
    row = next(row for row in table3_rows() if row["group"] == whole)
    theirs = recipe["steps"][whole] * recipe["batch"]["target_tokens"]
    seen = config.training.max_steps * config.training.batch_size
    done, all_flops = (
        model_flops(model, vocab_size=vocabulary, source_tokens=tokens, target_tokens=tokens)
        for model, vocabulary, tokens in (
            (config.model, config.corpus.vocab_size, seen),
            (printed_model(row), PRINTED_VOCABULARY, theirs),
        )
    )
    generated = "generated sentences, not newstest2013: " if config.corpus.name == GENERATED else ""
    return plain_exponent(
        f"{generated}at most {seen:,} target tokens, {seen / theirs:.2g} of the {theirs:,} of the paper's {whole} model"
        f", and {done:.2g} FLOPs, {done / all_flops:.2g} of its {all_flops:.2g}"
    )


def _kinds(task: str) -> list[str]:
    budgets = load_papers()[PAPER].budgets[task].values()
    return [kind for kind in LABELS if any(kind in budget["models"] for budget in budgets)]


ABLATIONS = tuple(map(_ablation, table3_rows()))
EXPERIMENTS = (
    *(_translation(task, kind) for task in TASKS for kind in _kinds(task)),
    *ABLATIONS,
    *map(_short, table3_rows()),
    _pre_norm(ABLATIONS[0]),
    *map(_positions, POSITIONS),
)
