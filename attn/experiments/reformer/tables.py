"""How the tables of the Reformer's chapter are filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn.experiments.reformer import complexity
from attn.experiments.reformer.concepts import memory_amounts
from attn.experiments.reformer.runs import PAPER, TABLE2_ROWS
from attn.reproduction.experiment import Exact, Measured, TableView

Row = Mapping[str, Any]
_COLUMNS = {"eval_full": "full", **{f"eval_lsh{rounds}": f"lsh{rounds}" for rounds in (8, 4, 2, 1)}}


# What the replication's model with full attention probably was: its row comes out with separate queries and keys.
_REPLICATION_ROWS = {**TABLE2_ROWS, "Full Attention": "separate"}


def _duplication(table: str, rows: Mapping[str, str]) -> TableView:
    def percent(name: str) -> Measured:
        return Measured(
            lambda row: f"duplication/{rows[row['train']]}",
            lambda row, record: 100 * record.metric(f"accuracy_{name}"),
            unit="percent",
        )

    return TableView(
        id=table,
        label=lambda row: row["train"],
        label_columns=("train",),
        cells={column: percent(name) for column, name in _COLUMNS.items()},
        command=lambda row: f"attn run {PAPER} --experiment duplication/{rows[row['train']]} --profile cpu",
    )


def _stated(row: Row) -> float | None:
    """Numbers in the text that are arithmetic: memory in GiB, and the window in tokens."""
    for amount in memory_amounts():
        if amount.stated == row["quantity"]:
            return amount.gib
    return None


def _pending(unit: str) -> Measured:
    """A cell that nothing fills yet."""
    return Measured(lambda row: None, lambda row, record: None, unit=unit)


# What is wrong where a formula does not have the growth that is counted.
_WHY = {
    (
        "Memory-Efficient",
        "memory",
    ): "counted on attention that holds one query's weights at a time; the text agrees, so the "
    "printed square is a misprint",
    "nc": "each token sees a window of 4l/nc: the printed square counts it twice",
    "c": "c is the square of the window of 4l/nc, and each token sees a window",
    "nh": "the printed number of heads in the feed-forward term is a misprint: the rows without it have none",
}


def _why(kind: str, column: str, formula: str, found: str) -> str | None:
    if found == formula:
        return None
    if (kind, column) in _WHY:
        return _WHY[kind, column]
    return _WHY["nc" if "nc" in formula else "c" if "*c)" in formula else "nh"]


def _formulas(table: str, label: str) -> TableView:
    def exact(column: str) -> Exact:
        def compute(row: Row) -> str:
            return complexity.cell(table, row[label], column, row[column])

        return Exact(compute, note=lambda row: _why(row[label], column, row[column], compute(row)))

    return TableView(
        id=table, label=lambda row: row[label], label_columns=(label,),
        cells={column: exact(column) for column in ("memory", "time")},
    )  # fmt: skip


TABLES = (
    _formulas("table1", "attention_type"),
    _duplication("table2", TABLE2_ROWS),
    _duplication("table2_reproduction", _REPLICATION_ROWS),
    _formulas("table3", "model_type"),
    TableView(
        id="table4",
        label=lambda row: row["model"],
        label_columns=("model",),
        cells={column: _pending("BLEU") for column in ("bleu", "sacrebleu_uncased", "sacrebleu_cased")},
    ),
    TableView(
        id="numbers_in_text",
        label=lambda row: row["quantity"],
        label_columns=("quantity",),
        settings=("unit",),
        cells={"value": Exact(_stated)},
    ),
)
