"""Which config of the all-attention chapter stands for which model at which profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn.data.language_text import TextConfig
from attn.experiments.adaptive_span.workloads import SpanModelConfig, SpanTextConfig
from attn.experiments.all_attention.facts import FactsConfig, build_facts
from attn.experiments.all_attention.words import WordTextConfig, build_words
from attn.experiments.all_attention.workloads import build_text
from attn.reproduction.experiment import Experiment
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig

PAPER = "sukhbaatar2019allattn"
# Every budget has these models in its own sizes; `all` is the paper's way to spend a feed-forward model's parameters.
LABELS = {
    "ff": "attention and feed-forward layers",
    "all": "all-attention, deeper, equal parameters",
    "large": "all-attention, the large model",
    "same_depth": "all-attention, same depth, equal parameters and operations",
    "equal_flops": "all-attention, deeper, equal operations",
    "none": "no persistent vectors and no feed-forward layers",
    "eighth": "an eighth as many persistent vectors",
    "half": "half as many persistent vectors",
    "fourfold": "four times as many persistent vectors",
    "deep_none": "attention alone, deeper, equal parameters",
    "attn_split": "attn-split: two softmaxes, outputs added",
    "head_split": "head-split: half of the heads for the context, half for the vectors",
    "single_head": "single-head: all vectors in one head",
    "ff_attn": "ff-attn: ReLU in place of the second softmax",
    "ff_from_max": "attention and feed-forward layers, spans from the maximum",
    "all_from_max": "all-attention, deeper, equal parameters, spans from the maximum",
    "none_from_max": "no persistent vectors and no feed-forward layers, spans from the maximum",
    "ff_long": "attention and feed-forward layers, longer training",
    "all_long": "all-attention, deeper, equal parameters, longer training",
    "none_long": "no persistent vectors and no feed-forward layers, longer training",
}
FROM_MAXIMUM = "_from_max"  # ends the names of models whose spans start at S
LONG = "_long"  # ends the names of models that are trained for more updates
SWEEP = ("none", "eighth", "half", "all", "fourfold")  # by N
VARIANTS = ("attn_split", "head_split", "single_head", "ff_attn")
_TASKS = {"letters": "27 characters", "bytes": "bytes", "words": "words", "facts": "facts to be remembered"}
_BUILDS = {"words": build_words, "facts": build_facts}
_TABLES = {
    "letters/all": ("table2_text8",),
    "letters/large": ("table2_text8",),
    "bytes/all": ("table1_enwik8",),
    "bytes/large": ("table1_enwik8",),
    "words/all": ("table3_wikitext103",),
}
_ABLATION = (*SWEEP, *VARIANTS)

Budget = Mapping[str, Any]


def budgets(task: str) -> Mapping[str, Budget]:
    """Of a task, by profile."""
    return load_papers()[PAPER].budgets[task]


def text_config(budget: Budget, model: str) -> SpanTextConfig:
    """The run of a budget's model."""
    own = dict(budget["models"][model])
    training = {**budget["training"], **own.pop("training", {})}
    rows = budget["rows"]
    settings = {
        "text": TextConfig(**budget["text"]),
        "model": SpanModelConfig(**{**budget["model"], **own}),
        "training": TrainingConfig(
            max_steps=training["steps"],
            batch_size=rows["n_rows"] * rows["block"],
            optimizer=training["optimizer"],
            lr=training["lr"],
            schedule="linear_warmup",
            warmup_steps=training["warmup_steps"],
            final_steps=training.get("final_steps", 0),
            grad_clip_norm=training["clip"],
            grad_clip_per_parameter=training["per_tensor"],
            eval_every=training["evaluate_every"],
        ),
        **rows,
    }
    if "facts" in budget:
        return FactsConfig(**settings, **budget["facts"])
    if "words" not in budget:
        return SpanTextConfig(**settings)
    words = {**budget["words"], "cutoffs": tuple(budget["words"]["cutoffs"])}
    return WordTextConfig(**settings, **words)


def _experiment(task: str, model: str) -> Experiment:
    having = {profile: budget for profile, budget in budgets(task).items() if model in budget["models"]}
    name = f"{task}/{model}"
    ablation = ("fig3_ablation",) if task == "letters" and model in _ABLATION else ()
    return Experiment(
        id=name,
        task=task,
        label=f"{_TASKS[task].capitalize()}, {LABELS[model]}",
        tables=(*_TABLES.get(name, ()), *ablation),
        configs={profile: text_config(budget, model) for profile, budget in having.items()},
        seeds={
            profile: budget.get("more_seeds", {}).get(model, budget["seeds"])
            for profile, budget in having.items()
        },
        build=_BUILDS.get(task, build_text),
        share=_share,
    )


def _share(config: SpanTextConfig) -> str:
    """Symbols seen beside the paper's, on which text, and the model's size beside the paper's."""
    seen, model = config.training.max_steps * config.training.batch_size, config.model
    if isinstance(config, FactsConfig):
        return (
            f"{seen:,} symbols of a generated list of {config.n_facts:,} facts; {model.n_layers} layers of width "
            f"{model.d_model}"
        )
    task = _task(config)
    paper = budgets(task)["paper"]
    whole = paper["training"]["steps"] * paper["rows"]["n_rows"] * paper["rows"]["block"]
    unit = "words" if task == "words" else "symbols"
    return (
        f"{seen:,} {unit}, {seen / whole:.2g} of the paper's, of {config.text.corpus} ({_TASKS[task]}); "
        f"{model.n_layers} layers of width {model.d_model}, spans up to {model.max_span}"
    )


def _task(config: SpanTextConfig) -> str:
    if isinstance(config, WordTextConfig):
        return "words"
    return (
        "letters"
        if config.text.representation == _TASKS["letters"] or config.text.corpus == "generated"
        else "bytes"
    )


EXPERIMENTS = tuple(
    _experiment(task, model)
    for task in _TASKS
    for model in LABELS
    if any(model in budget["models"] for budget in budgets(task).values())
)
