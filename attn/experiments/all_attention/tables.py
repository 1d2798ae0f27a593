"""How the tables of the all-attention chapter are filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn.experiments.all_attention.runs import PAPER
from attn.experiments.all_attention.sizes import millions, paper_sizes
from attn.reproduction.experiment import Exact, Measured, TableView

Row = Mapping[str, Any]
# Rows of figure 3 that are one model each.
_FIGURE3 = {
    "N=0": "none",
    "N large": "fourfold",
    "attn-split": "attn_split",
    "head-split": "head_split",
    "single-head": "single_head",
    "FF-attn": "ff_attn",
}


def _model(task: str, row: Row) -> str | None:
    """Which of our models a row is; None for the systems that the paper quotes."""
    if "All-attention" not in row["model"]:
        return None
    return "large" if "36 layers" in row["model"] and task != "words" else "all"


def _experiment(task: str, row: Row) -> str | None:
    model = _model(task, row)
    return f"{task}/{model}" if model else None


def _command(experiment: str | None, profile: str = "cpu") -> str | None:
    return f"attn run {PAPER} --experiment {experiment} --profile {profile}" if experiment else None


def _row_command(task: str, row: Row) -> str | None:
    return _command(_experiment(task, row), "paper" if _model(task, row) == "large" else "cpu")


def _parameters(task: str) -> Exact:
    def compute(row: Row) -> str | None:
        model = _model(task, row)
        return millions(paper_sizes(task, model).total) if model else None

    def note(row: Row) -> str | None:
        model = _model(task, row)
        if model is None:
            return None
        count = f"{paper_sizes(task, model).total:,} counted"
        if task != "words":
            return count
        untied = paper_sizes(task, model, tie_projections=False).total
        return (
            f"{count} with words and clusters' matrices tied between input and output, as the public code has it; "
            f"{untied:,} where the matrices are not tied, which is printed so"
        )

    return Exact(compute, note=note)


def _measured(task: str, metric: str, unit: str) -> Measured:
    return Measured(lambda row: _experiment(task, row), lambda row, record: record.metric(metric), unit=unit)


def _table(table: str, task: str, columns: Mapping[str, str], unit: str) -> TableView:
    return TableView(
        id=table,
        label=lambda row: row["model"],
        label_columns=("model", "kind"),
        cells={
            "params": _parameters(task),
            **{column: _measured(task, metric, unit) for column, metric in columns.items()},
        },
        command=lambda row: _row_command(task, row),
    )


def _figure3(row: Row) -> str | None:
    model = _FIGURE3.get(row["row"])
    return f"letters/{model}" if model else None


TABLES = (
    _table("table1_enwik8", "bytes", {"test_bpb": "test_bits"}, "bits per byte"),
    _table(
        "table2_text8", "letters", {"dev_bpc": "valid_bits", "test_bpc": "test_bits"}, "bits per character"
    ),
    _table(
        "table3_wikitext103",
        "words",
        {"dev_ppl": "valid_perplexity", "test_ppl": "test_perplexity"},
        "perplexity per word",
    ),
    TableView(
        id="fig3_ablation",
        label=lambda row: row["row"],
        label_columns=("row",),
        cells={
            "value": Measured(
                _figure3, lambda row, record: record.metric("valid_bits"), unit="bits per character"
            )
        },
        command=lambda row: _command(_figure3(row)),
    ),
)
