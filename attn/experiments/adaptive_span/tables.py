"""How the tables of the chapter on adaptive spans are filled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from attn.adaptive_span import flops_per_step, reported_span
from attn.experiments.adaptive_span.runs import LIMITS, PAPER, TABLE_ROWS, budgets, span_config
from attn.experiments.adaptive_span.workloads import SpanModelConfig
from attn.reproduction.experiment import Exact, Measured, TableView
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Row = Mapping[str, Any]
# Symbols of the authors' files, end of line included.
VOCABULARY = {"text8": 28, "enwik8": 206}
# Width of the feed-forward layers of the large model, as stated, and with which its printed FLOPs come out.
STATED_WIDTH, FLOPS_WIDTH = 4096, 3072
_SMALL_SPAN = 264  # tokens: with it the small model's FLOPs on enwik8 come out, as with any from 224 to 305
_PRINTED_AS = "{:.0f}M"


def paper_model(name: str) -> SpanModelConfig:
    """The small or the large model of table 1, S = 8192."""
    return span_config("text8", budgets("text8")["paper"], name).model


@cache
def parameters(model: SpanModelConfig, vocab_size: int) -> int:
    """Parameters of a model, counted on the code's own without numbers."""
    with torch.device("meta"):
        network = model.build(vocab_size)
    return sum(parameter.numel() for parameter in network.parameters())


def _millions(value: float) -> str:
    return _PRINTED_AS.format(value / 1e6)


def _size(row: Row) -> str:
    return "small" if row["model"].endswith("small") else "large"


def _parameters(task: str) -> Exact:
    return Exact(lambda row: _millions(parameters(paper_model(_size(row)), VOCABULARY[task])))


_NOTE_WIDTH = (
    "the printed FLOPs need feed-forward width 3,072, the printed parameters the stated width of 4,096"
)
_NOTE_SPAN = "the span is not printed: any from 224 to 305 tokens gives the printed number"


def _flops_text8() -> Exact:
    def compute(row: Row) -> str:
        return _millions(paper_model(_size(row)).flops(row["avg_span"]))

    return Exact(compute, note=lambda row: _NOTE_WIDTH if _size(row) == "large" else None)


def _flops_enwik8() -> Exact:
    """With a fitted span for the small model; the large one has too many at the shortest span there is."""

    def compute(row: Row) -> str:
        model = paper_model(_size(row))
        return _millions(model.flops(_SMALL_SPAN if _size(row) == "small" else model.ramp_size))

    def note(row: Row) -> str:
        return _NOTE_SPAN if _size(row) == "small" else f"with all spans at the minimum; {_NOTE_WIDTH}"

    return Exact(compute, fitted=True, note=note)


def _measured(task: str, metric: str, unit: str) -> Measured:
    _, rows = TABLE_ROWS[task]
    return Measured(
        lambda row: f"{task}/{rows[row['model']]}" if row["model"] in rows else None,
        lambda row, record: record.metric(metric),
        unit=unit,
    )


def _command(task: str):
    _, rows = TABLE_ROWS[task]

    def command(row: Row) -> str | None:
        name = rows.get(row["model"])
        return f"attn run {PAPER} --experiment {task}/{name} --profile cpu" if name else None

    return command


# --- fig. 3: what is stated in words -------------------------------------------------------------------------


def shares(span: float) -> tuple[float, float]:
    """Percent of the small model's operations in feed-forward layers, and in attention with its projections."""
    model = paper_model("small")
    whole = model.flops(span)
    attention = flops_per_step(n_layers=model.n_layers, d_model=model.d_model, span=span)
    return 100 * (1 - attention / whole), 100 * attention / whole


def saving(span: float = 314, limit: float = 8192) -> float:
    """Percent of the small model's operations that a mean span saves against a fixed one at the limit."""
    model = paper_model("small")
    return 100 * (1 - model.flops(span) / model.flops(limit))


def shares_findings() -> list[Mapping[str, Any]]:
    """How operations of the small model with fixed spans divide, at the limits of the facts, and computed anew."""
    rows = load_papers()[PAPER].exact_fact("flops_shares")["values"]
    model = paper_model("small")
    names = ("feed_forward", "attention")
    return [
        {**row, "flops": model.flops(row["S"]), **dict(zip(names, shares(row["S"]), strict=True))}
        for row in rows
    ]


def _limits(kind: str) -> list[int]:
    budget = budgets("limit")["paper"]
    names = [f"{kind}_{limit}" for limit in LIMITS if f"{kind}_{limit}" in budget["models"]]
    return [span_config("limit", budget, name).model.max_span for name in names]


_FIG3 = {
    "span limits named in the text": lambda: ", ".join(map(str, _limits("adaptive"))),
    "fixed-span model not trained at S (memory)": lambda: max(set(_limits("adaptive")) - set(_limits("fixed"))),
    "largest reduction of inference FLOPs by adaptive spans, percent": saving,
    "feed-forward share of FLOPs, fixed S=256, percent": lambda: shares(256)[0],
    "attention share of FLOPs, fixed S=8192, percent": lambda: shares(8192)[1],
}  # fmt: skip


def _fig3(row: Row) -> Any:
    return _FIG3[row["row"]]() if row["row"] in _FIG3 else None


# --- fig. 4 and the single-GPU configuration -----------------------------------------------------------------


def short_layers(spans: np.ndarray, shortest: float) -> int:
    """How many layers from the bottom have all spans [layers, H] at the minimum, to within a token."""
    is_short = (spans < shortest + 1).all(axis=1)
    return int(np.argmin(is_short)) if not is_short.all() else len(spans)


def rises(spans: np.ndarray) -> float:
    """Rank correlation of the layers' mean spans [layers, H] with their height: 1 where each is above the one before."""
    means = spans.mean(axis=1)
    ranks = (means[:, None] > means).sum(1) + (means[:, None] == means).sum(1) / 2  # equal ones share theirs
    spread = ranks.std()
    return float(np.corrcoef(np.arange(len(means)), ranks)[0, 1]) if spread else 0.0


# What is printed in words, and what is measured in its place.
_FIG4_MEASURED = {
    "heads in high layers": "longest span of the upper half of the layers, tokens",
    "trend": "rank correlation of the layers' mean spans with their height",
}


def _fig4(row: Row, record: Record) -> float | None:
    settings = record.data["config"]["model"]
    zero = torch.zeros(1)
    shortest = float(reported_span(zero, settings["ramp_size"], settings["max_span"]))
    if row["row"].startswith("minimum possible span"):
        return shortest
    spans = record.artifact()["spans"]
    if row["row"] == "heads in high layers":
        return float(spans[-(len(spans) // 2) :].max())
    if row["row"] == "trend":
        return rises(spans)
    return short_layers(spans, shortest)


def _fig4_label(row: Row) -> str:
    measured = _FIG4_MEASURED.get(row["row"])
    return f"{row['row']} (here: {measured})" if measured else row["row"]


def _single_gpu(row: Row) -> float | None:
    config = span_config("enwik8", budgets("enwik8")["paper"], "eight_layers")
    model, training = config.model, config.training
    found = {
        "layers": model.n_layers, "hidden": model.d_model, "feed-forward": model.d_ff, "heads": model.n_heads,
        "S": model.max_span, "block": config.block, "batch": config.n_rows, "dropout": model.dropout,
        "lambda": config.span_cost, "warm-up steps": training.warmup_steps, "steps": training.max_steps,
        "parameters by our count, vocabulary 206": parameters(model, VOCABULARY["enwik8"]),
    }  # fmt: skip
    return found.get(row["row"])


def _single_gpu_run(row: Row) -> str | None:
    return "enwik8/eight_layers" if row.get("dev_bpc") is not None else None


def _single_gpu_command(row: Row) -> str | None:
    experiment = _single_gpu_run(row)
    return f"attn run {PAPER} --experiment {experiment} --profile gpu" if experiment else None


# --- FLOPs of the other systems ------------------------------------------------------------------------------


def flops_findings() -> list[Mapping[str, Any]]:
    """The stated rule applied to every printed number of FLOPs, as the facts list them, and computed anew."""
    sizes = {
        "small text8 span 314": dict(n_layers=12, d_model=512, d_ff=2048, span=314),
        "large text8 span 245, f=4096": dict(n_layers=24, d_model=768, d_ff=STATED_WIDTH, span=245),
        "large text8 span 245, f=3072": dict(n_layers=24, d_model=768, d_ff=FLOPS_WIDTH, span=245),
        "Transformer-XL 24 layers": dict(n_layers=24, d_model=1024, d_ff=3072, span=3800),
        "Transformer-XL 18 layers": dict(n_layers=18, d_model=1024, d_ff=3072, span=3800),
        "Transformer-XL 12 layers": dict(n_layers=12, d_model=512, d_ff=2048, span=2100),
        "T12": dict(n_layers=12, d_model=512, d_ff=2048, span=512),
        "T64": dict(n_layers=64, d_model=512, d_ff=2048, span=512),
    }  # fmt: skip
    rows = load_papers()[PAPER].exact_fact("flops_convention")["values"]
    found = []
    for row in rows:
        name = next(name for name in sizes if row["row"].startswith(name))
        positions = sizes[name]["span"] if name.startswith("T12") or name.startswith("T64") else 1
        found.append({**row, "flops": positions * flops_per_step(**sizes[name])})
    return found


_BITS = "bits per character"
TABLES = (
    TableView(
        id="table1_text8", label=lambda row: f"{row['model']}, {row['layers']} layers", label_columns=("model", "kind"),
        settings=("layers",),
        cells={
            "avg_span": _measured("text8", "mean_span", "tokens"),
            "params": _parameters("text8"),
            "flops": _flops_text8(),
            "dev_bpc": _measured("text8", "valid_bits", _BITS),
            "test_bpc": _measured("text8", "test_bits", _BITS),
        },
        command=_command("text8"),
    ),
    TableView(
        id="table2_enwik8", label=lambda row: f"{row['model']}, {row['layers']} layers",
        label_columns=("model", "kind"), settings=("layers",),
        cells={
            "params": _parameters("enwik8"),
            "flops": _flops_enwik8(),
            "dev_bpb": _measured("enwik8", "valid_bits", "bits per byte"),
            "test_bpb": _measured("enwik8", "test_bits", "bits per byte"),
        },
        command=_command("enwik8"),
    ),
    TableView(
        id="table3_dynamic", label=lambda row: row["model"], label_columns=("model", "kind"),
        cells={
            "avg_span": _measured("limit", "mean_span", "tokens"),
            "dev_bpc": _measured("limit", "valid_bits", _BITS),
        },
        command=_command("limit"),
    ),
    TableView(
        id="fig3_stated", label=lambda row: row["row"], label_columns=("row",), cells={"value": Exact(_fig3)},
    ),
    TableView(
        id="fig4_spans_by_layer", label=_fig4_label, label_columns=("row",),
        cells={"value": Measured(lambda row: "limit/adaptive_fourfold", _fig4, unit="")},
        command=lambda row: f"attn run {PAPER} --experiment limit/adaptive_fourfold --profile cpu",
    ),
    TableView(
        id="repo_small_8layer", label=lambda row: row["row"], label_columns=("row",),
        cells={
            "value": Exact(_single_gpu),
            "dev_bpc": Measured(_single_gpu_run, lambda row, record: record.metric("valid_bits"), unit=_BITS),
        },
        command=_single_gpu_command,
    ),
)  # fmt: skip
