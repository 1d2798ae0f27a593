"""Which config of the chapter on adaptive spans stands for which row, at which profile and limit S."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn.data.language_text import GENERATED, TextConfig
from attn.experiments.adaptive_span.copies import CopiesConfig, build_copies
from attn.experiments.adaptive_span.workloads import SpanModelConfig, SpanTextConfig, build_text
from attn.reproduction.experiment import Experiment
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig

PAPER = "sukhbaatar2019span"
# Families of runs: rows of tables 1 and 2, fig. 3 and table 3 over the limit S, and the generated text.
TASKS = ("text8", "enwik8", "limit", "copies")
TABLE_ROWS = {
    "text8": ("table1_text8", {"Adaptive-Span (S=8192), small": "small", "Adaptive-Span (S=8192), large": "large"}),
    "enwik8": ("table2_enwik8", {"Adaptive-Span (S=8192), small": "small", "Adaptive-Span (S=8192), large": "large"}),
    "limit": ("table3_dynamic", {"Adaptive (S=1024)": "adaptive_whole", "Dynamic (S=1024)": "dynamic_whole"}),
}  # fmt: skip
# Names of limits: that of table 3, parts and multiples of it; "short" is the control's.
LIMITS = {
    "short": "the control's limit",
    "quarter": "a quarter of table 3's limit",
    "half": "half of table 3's limit",
    "whole": "table 3's limit",
    "double": "twice table 3's limit",
    "fourfold": "four times table 3's limit",
    "eightfold": "eight times table 3's limit",
}
KINDS = {"fixed": "fixed span", "adaptive": "adaptive span", "dynamic": "dynamic span"}
FROM_MAXIMUM = "from_max"  # ends the names of models whose spans start at S
SWITCHED = ("_zeros", "_fast", "_per_tensor")  # end the names of models that undo a deviation
_MORE = {
    "": "",
    FROM_MAXIMUM: ", from the maximum",
    "zeros": ", with a cache of zeros before the text",
    "fast": ", at the paper's learning rate",
    "per_tensor": ", each tensor clipped by itself",
    "from_max_per_tensor": ", from the maximum, each tensor clipped by itself",
}
_REPOSITORYS = "eight_layers"  # a model that the paper does not have
_SIZES = ("small", "large")  # models of tables 1 and 2; with fixed spans, their baselines
_TEXTS = {
    "text8": "27 characters",
    "enwik8": "bytes",
    "limit": "27 characters",
    "copies": "text of known entropy",
}

Budget = Mapping[str, Any]


def budgets(task: str) -> Mapping[str, Budget]:
    """Of one family, by profile, as the facts have them."""
    return load_papers()[PAPER].budgets[task]


def names(task: str) -> list[str]:
    """Models of a family at any profile, in the order of the facts."""
    return list(dict.fromkeys(name for budget in budgets(task).values() for name in budget["models"]))


def span_config(task: str, budget: Budget, name: str) -> SpanTextConfig:
    """One model of a family at one profile; what is stated for the model goes before what is stated for all."""
    own = budget["models"][name]
    run = {**budget["run"], **own.get("run", {})}
    training = {**budget["training"], **own.get("training", {})}
    source = {field: _tuple(value) for field, value in budget.get("source", {}).items()}
    kind = CopiesConfig if task == "copies" else SpanTextConfig
    return kind(
        text=TextConfig(**budget["text"]),
        model=SpanModelConfig(**{**budget["model"], **own.get("model", {})}),
        training=TrainingConfig(batch_size=run["n_rows"] * run["block"], **training),
        **run,
        **source,
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def label(task: str, name: str) -> str:
    """A model in words."""
    return f"{_TEXTS[task].capitalize()}, {model_label(name)}"


def model_label(name: str) -> str:
    """A model without its text: kind of span, limit and start."""
    kind, _, rest = name.partition("_")
    if kind not in KINDS:
        return f"adaptive span, {name.replace('_', ' ')} model"
    if rest in _SIZES:
        return f"{KINDS[kind]}, {rest} model"
    limit, _, more = rest.partition("_")
    return f"{KINDS[kind]}, {LIMITS.get(limit, f'S = {limit}')}{_MORE[more]}"


def _experiment(task: str, name: str) -> Experiment:
    there = {profile: budget for profile, budget in budgets(task).items() if name in budget["models"]}
    table, rows = TABLE_ROWS.get(task, ("", {}))
    return Experiment(
        id=f"{task}/{name}",
        task=task,
        label=label(task, name),
        tables=(table,) if name in rows.values() else (),
        configs={profile: span_config(task, budget, name) for profile, budget in there.items()},
        seeds={profile: budget["seeds"] for profile, budget in there.items()},
        build=build_copies if task == "copies" else build_text,
        share=lambda config: _share(name, config),
    )


def _share(name: str, config: SpanTextConfig) -> str:
    """Symbols seen beside those of the print, on which text, and the limit."""
    training, model = config.training, config.model
    seen = training.max_steps * training.batch_size
    size = f"{model.n_layers} layers of width {model.d_model}, S = {model.max_span}"
    if config.text.corpus == GENERATED:
        return f"{seen:,} characters of generated text; {size}"
    if name == _REPOSITORYS:
        whole, whose = span_config("enwik8", budgets("enwik8")["paper"], name), "the repository's"
    else:
        whole, whose = (
            span_config("text8", budgets("text8")["paper"], "small"),
            "the small model's in the paper",
        )
    paper = whole.training.max_steps * whole.training.batch_size
    text = f"{config.text.corpus} ({config.text.representation})"
    return f"{seen:,} symbols, {seen / paper:.2g} of {whose}, of {text}; {size}"


EXPERIMENTS = tuple(_experiment(task, name) for task in TASKS for name in names(task))
