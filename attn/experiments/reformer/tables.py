"""How the tables of the Reformer's chapter are filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from attn.experiments.reformer import complexity
from attn.experiments.reformer.concepts import FLOAT32, memory_amounts
from attn.experiments.reformer.convergence import converged_words
from attn.experiments.reformer.runs import CODE_MODELS, EXPERIMENTS, PAPER, TABLE2_ROWS, own_evaluation
from attn.experiments.reformer.translation_runs import TABLE4_ROWS
from attn.reproduction.experiment import Exact, Measured, TableView
from attn.reproduction.records import Record

Row = Mapping[str, Any]
_COLUMNS = {"eval_full": "full", **{f"eval_lsh{rounds}": f"lsh{rounds}" for rounds in (8, 4, 2, 1)}}
# The replication is compared with models by the conventions of its code.
_REPLICATION_ROWS = {
    label: next(model for model, named in CODE_MODELS.items() if named == (row, "replication"))
    for label, row in TABLE2_ROWS.items()
}


def _duplication(table: str, rows: Mapping[str, str]) -> TableView:
    def percent(name: str) -> Measured:
        def value(row: Row, record: Record) -> float:
            own = own_evaluation(rows[row["train"]])
            used = own if name == "full" and own.startswith("full") else name
            return 100 * record.metric(f"accuracy_{used}")

        return Measured(
            lambda row: f"duplication/{rows[row['train']]}", value, unit="percent", remark=converged_words
        )

    return TableView(
        id=table,
        label=lambda row: row["train"],
        label_columns=("train",),
        cells={column: percent(name) for column, name in _COLUMNS.items()},
        command=lambda row: f"attn run {PAPER} --experiment duplication/{rows[row['train']]} --profile cpu",
    )


def _stated(row: Row) -> float | None:
    """Numbers in the text that are arithmetic: memory, by powers of 2 unless the unit says otherwise, and the window."""
    if row["quantity"] == "typical chunk after hashing and sorting":
        return 2 * EXPERIMENTS[0].config("paper").chunk_len  # its own chunk and the one before
    for amount in memory_amounts():
        if amount.stated == row["quantity"]:
            return amount.gib if row["unit"].startswith("GiB") else amount.values * FLOAT32 / 1e9
    return None


# Numbers in the text that need training: the Reformer of so many layers.
_DEPTHS = {"enwik8 test, 12 layers, 20K steps, dropout 0.1": 12, "deepest Reformer trained": 20}


def _depth(row: Row) -> str | None:
    layers = _DEPTHS.get(row["quantity"])
    return f"byte_depth/layers_{layers}" if layers else None


def _trained(row: Row, record: Record) -> float:
    return record.data["config"]["n_layers"] if row["unit"] == "layers" else record.metric("bits_per_byte")


def _bleu(metric: str) -> Measured:
    """A column of table 4: BLEU of the one test split."""

    def value(row: Row, record: Record) -> float:
        (split,) = record.data["config"]["corpus"]["tests"]
        return record.metric(f"{metric}_{split}")

    return Measured(_translation, value, unit="BLEU")


def _translation(row: Row) -> str | None:
    model = TABLE4_ROWS.get(row["model"])
    return f"translation/{model}" if model else None


def _translation_command(row: Row) -> str | None:
    experiment = _translation(row)
    if experiment is None:
        return None
    profile = "paper" if experiment.endswith("big") else "cpu"
    return f"attn run {PAPER} --experiment {experiment} --profile {profile}"


class _Cause(NamedTuple):
    """What is wrong where the printed power of a size is not the counted one."""

    size: str
    words: str  # {law} stands for what was counted
    explains: tuple[str, ...] = ()  # sizes whose powers differ by the same cause
    column: str | None = None  # "memory" or "time" where it is a cause in one of them only


_CAUSES = (
    _Cause("nc", "each token sees a window of 4l/nc: the printed square counts it twice", explains=("l",)),
    _Cause("c", "c is the square of the window of 4l/nc, and each token sees a window"),
    _Cause(
        "nh",
        "the printed number of heads in the feed-forward term is a misprint: the rows without it have none",
    ),
    _Cause(
        "l",
        "counted on attention that holds one query's weights at a time; the text agrees, so the printed square is a "
        "misprint",
        explains=("dk",),
        column="memory",
    ),
    _Cause(
        "nr",
        "counted on the definition, which sorts the vectors of all rounds at once; with one round after another, as in "
        "attn.kernels.lsh, the first term has no nr",
        column="memory",
    ),
    _Cause(
        "dk",
        "counted is one term in both regimes, {law}: a query takes dk multiply-adds with every key that it sees; of the "
        "two printed terms the first leaves out how many keys these are, and the second leaves out dk",
        explains=("l", "nr"),
        column="time",
    ),
)


def _why(table: str, kind: str, column: str, formula: str) -> str | None:
    """What is wrong with a printed formula, or None if it stands."""
    counted = complexity.counted_law(table, kind, column)
    left = complexity.differing(counted, complexity.printed_law(table, kind, column, formula))
    if not left:
        return None
    said = []
    for cause in _CAUSES:
        if cause.size in left and cause.column in (None, column):
            said.append(cause.words.format(law=complexity.law_text(column, counted)))
            left -= {cause.size, *cause.explains}
    said += [f"the power of {size} differs" for size in sorted(left)]
    return "; ".join(said)


def _formulas(table: str, label: str) -> TableView:
    def exact(column: str) -> Exact:
        def compute(row: Row) -> str:
            return complexity.cell(table, row[label], column, row[column])

        return Exact(compute, note=lambda row: _why(table, row[label], column, row[column]))

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
        cells={
            "bleu": _bleu("bleu"),
            "sacrebleu_uncased": _bleu("bleu_uncased"),
            "sacrebleu_cased": _bleu("bleu_cased"),
        },
        command=_translation_command,
    ),
    TableView(
        id="trained_numbers_in_text",
        label=lambda row: row["quantity"],
        label_columns=("quantity",),
        settings=("unit",),
        cells={"value": Measured(_depth, _trained, unit="")},
        command=lambda row: (
            f"attn run {PAPER} --experiment {found} --profile paper" if (found := _depth(row)) else None
        ),
    ),
    TableView(
        id="numbers_in_text",
        label=lambda row: row["quantity"],
        label_columns=("quantity",),
        settings=("unit",),
        cells={"value": Exact(_stated)},
    ),
)
