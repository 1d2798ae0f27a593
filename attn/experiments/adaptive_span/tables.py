"""How the tables of the chapter on adaptive spans are filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import ceil
from typing import Any

import numpy as np
import torch

from attn.adaptive_span import flops_per_step, reported_span
from attn.experiments.adaptive_span.runs import PAPER, TABLE_ROWS, budgets, span_config
from attn.experiments.adaptive_span.workloads import SpanModelConfig
from attn.reproduction.experiment import Exact, Measured, TableView
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Row = Mapping[str, Any]
# Symbols of the authors' files, end of line included.
VOCABULARY = {"text8": 28, "enwik8": 206}


def paper_model(name: str) -> SpanModelConfig:
    """The small or the large model of table 1, S = 8192."""
    return span_config("text8", budgets("text8")["paper"], name).model


@cache
def parameters(model: SpanModelConfig, vocab_size: int) -> int:
    """Parameters of a model, counted on the code's own without numbers."""
    with torch.device("meta"):
        network = model.build(vocab_size)
    return sum(parameter.numel() for parameter in network.parameters())


def millions(value: float) -> str:
    """A number as the tables print it."""
    return f"{value / 1e6:.0f}M"


def _size(row: Row) -> str:
    return "small" if row["model"].endswith("small") else "large"


def _parameters(task: str) -> Exact:
    def counted(row: Row) -> int:
        return parameters(paper_model(_size(row)), VOCABULARY[task])

    return Exact(lambda row: millions(counted(row)), note=lambda row: f"{counted(row):,} counted")


def _implied(size: str) -> Row:
    """What the facts say of the spans that the printed FLOPs on enwik8 imply."""
    rows = load_papers()[PAPER].exact_fact("implied_spans_enwik8")["values"]
    return next(row for row in rows if row["model"].endswith(size))


def implied_spans(*, L: int, d: int, f: int, printed: str) -> tuple[int, int]:
    """The shortest and the longest whole mean span with which the rule gives a printed number of FLOPs.

    Args:
        L: layers.
        d: width of the model.
        f: width of the feed-forward layers.
        printed: as "41M", a number that was rounded to it.
    """
    number = float(printed.removesuffix("M"))
    rest = flops_per_step(n_layers=L, d_model=d, d_ff=f, span=0)
    low, high = (((number + half) * 1e6 - rest) / (2 * L * d) for half in (-0.5, 0.5))
    return ceil(low), ceil(high) - 1


def _spans_of(size: str) -> tuple[int, int]:
    row = _implied(size)
    return implied_spans(**{name: row[name] for name in ("L", "d", "f", "printed")})


def _note_width() -> str:
    return (
        f"the printed FLOPs need feed-forward width {_implied('large')['f']:,}, the printed parameters the stated width "
        f"of {paper_model('large').d_ff:,}"
    )


def _note_span() -> str:
    shortest, longest = _spans_of("small")
    return f"the span is not printed: any from {shortest} to {longest} tokens gives the printed number"


def _flops_text8() -> Exact:
    def compute(row: Row) -> str:
        return millions(paper_model(_size(row)).flops(row["avg_span"]))

    return Exact(compute, note=lambda row: _note_width() if _size(row) == "large" else None)


def _flops_enwik8() -> Exact:
    """With a fitted span for the small model; the large one has too many at the shortest span there is."""

    def compute(row: Row) -> str:
        model = paper_model(_size(row))
        fitted = sum(_spans_of("small")) // 2  # the middle of what gives the print
        return millions(model.flops(fitted if _size(row) == "small" else model.ramp_size))

    def note(row: Row) -> str:
        return _note_span() if _size(row) == "small" else f"with all spans at the minimum; {_note_width()}"

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


def printed_span(size: str) -> float:
    """Mean span that is printed for the small or large model on text8, S = 8192."""
    rows = load_papers()[PAPER].table("table1_text8").rows
    return next(row["avg_span"] for row in rows if row["kind"] == "own" and row["model"].endswith(size))


def saving() -> float:
    """Percent of the small model's operations that its printed mean span saves against a fixed one at the limit."""
    model = paper_model("small")
    return 100 * (1 - model.flops(printed_span("small")) / model.flops(model.max_span))


def shares_findings() -> list[Mapping[str, Any]]:
    """How operations of the small model with fixed spans divide, at the limits of the facts, and computed anew."""
    rows = load_papers()[PAPER].exact_fact("flops_shares")["values"]
    model = paper_model("small")
    names = ("feed_forward", "attention")
    return [
        {**row, "flops": model.flops(row["S"]), **dict(zip(names, shares(row["S"]), strict=True))}
        for row in rows
    ]


_FIG3 = {
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
    spans = record.artifact()["spans"]
    if row["row"] == "heads in high layers":
        return float(spans[-(len(spans) // 2) :].max())
    if row["row"] == "trend":
        return rises(spans)
    settings = record.data["config"]["model"]
    shortest = reported_span(torch.zeros(1), settings["ramp_size"], settings["max_span"])
    return short_layers(spans, float(shortest))


def _fig4_label(row: Row) -> str:
    measured = _FIG4_MEASURED.get(row["row"])
    return f"{row['row']} (here: {measured})" if measured else row["row"]


def _single_gpu(row: Row) -> int | None:
    """The other rows are settings, which the profile `paper` copies."""
    if not row["row"].startswith("parameters"):
        return None
    config = span_config("enwik8", budgets("enwik8")["paper"], "eight_layers")
    return parameters(config.model, VOCABULARY["enwik8"])


def _single_gpu_run(row: Row) -> str | None:
    return "enwik8/eight_layers" if row.get("dev_bpc") is not None else None


def _single_gpu_command(row: Row) -> str | None:
    experiment = _single_gpu_run(row)
    return f"attn run {PAPER} --experiment {experiment} --profile gpu" if experiment else None


# --- FLOPs and parameters of every printed system ------------------------------------------------------------


def flops_findings() -> list[Mapping[str, Any]]:
    """The stated rule applied to every printed number of FLOPs, as the facts list them, and computed anew.

    Returns:
        The facts' rows, each with `flops`; `params`, how many parameters a model of these sizes has, or None where no
        formula is at hand; and `params_printed`.
    """
    found = []
    for row in load_papers()[PAPER].exact_fact("flops_convention")["values"]:
        step = flops_per_step(n_layers=row["L"], d_model=row["d"], d_ff=row["f"], span=row["span"])
        more = {
            "flops": row.get("positions", 1) * step,
            "params": _params_of(row),
            "params_printed": _printed(row),
        }
        found.append({**row, **more})
    return found


def transformer_xl_parameters(n_layers: int, d_model: int, d_ff: int) -> int:
    """Weights of the matrices of a Transformer-XL, by the formula of its facts: L (5 d^2 + 2 d f).

    To queries, keys, values, position keys and outputs, and both of a feed-forward layer.
    """
    return n_layers * (5 * d_model**2 + 2 * d_model * d_ff)


def _params_of(row: Row) -> int | None:
    if row["model"] == "Transformer-XL":
        return transformer_xl_parameters(row["L"], row["d"], row["f"])
    if not row["model"].startswith("Adaptive-Span"):
        return None
    return parameters(replace(paper_model(_size(row)), d_ff=row["f"]), VOCABULARY["text8"])


def _printed(row: Row) -> str:
    """Parameters of a system as tables 1 and 2 print them."""
    tables = (load_papers()[PAPER].table(name) for name in ("table1_text8", "table2_enwik8"))
    rows = (printed for table in tables for printed in table.rows)
    return next(
        one["params"] for one in rows if one["model"].startswith(row["model"]) and one["layers"] == row["L"]
    )


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
        id="fig4_read_off", label=lambda row: row["row"], label_columns=("row",),
        cells={"value": Exact(lambda row: None)},  # what others read is not ours to compute
    ),
    TableView(
        id="eight_layers", label=lambda row: row["row"], label_columns=("row",),
        cells={
            "value": Exact(_single_gpu),
            "dev_bpc": Measured(_single_gpu_run, lambda row, record: record.metric("valid_bits"), unit=_BITS),
        },
        command=_single_gpu_command,
    ),
)  # fmt: skip
