"""How the tables of the Transformer's chapter are filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn.experiments.transformer.complexity import law_texts, path_fit
from attn.experiments.transformer.flops import on_meta
from attn.experiments.transformer.runs import (
    GRID,
    PAPER,
    PRINTED_VOCABULARY,
    printed_model,
    row_id,
    row_label,
    table3_rows,
)
from attn.reproduction.experiment import Exact, Measured, Recomputed, TableView
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Row = Mapping[str, Any]
# Chosen from the printed column: meets all of its rows but the big model.
FITTED_VOCABULARY = load_papers()[PAPER].exact_fact("params_table3")["fitted_vocabulary"]
_TRAINED_HERE = {"Transformer (base model)": "base", "Transformer (big)": "big"}


# --- table 1: laws -----------------------------------------------------------------------------------------


def _law(column: str) -> Exact:
    def note(row: Row) -> str | None:
        return path_fit(row["layer_type"]).note if column == "max_path_length" else None

    return Exact(lambda row: law_texts(row["layer_type"])[column], note=note)


# --- table 2: training FLOPs ---------------------------------------------------------------------------------


def hardware_flops(run: Mapping[str, Any]) -> float:
    """Training FLOPs as the paper estimates them: seconds times GPUs times sustained single-precision rate.

    Args:
        run: `days`, `gpus` and `gpu`, as the facts list them.
    """
    rates = load_papers()[PAPER].recipe["training_cost"]["sustained_tflops"]
    return run["days"] * 86_400 * run["gpus"] * rates[run["gpu"]] * 1e12


def cost_run(row: Row, column: str) -> Mapping[str, Any] | None:
    """What the facts know behind a printed cost: GPUs and days, or the system that an ensemble is made of."""
    runs = load_papers()[PAPER].recipe["training_cost"]["runs"]
    found = [run for run in runs if run["model"] == row["model"] and column in run["columns"]]
    if not found:
        return None
    (run,) = found
    return run


def _flops(column: str) -> Recomputed:
    def compute(row: Row) -> float | None:
        run = cost_run(row, column)
        if run is None:
            return None
        if "of" in run:  # an ensemble of systems like one that is printed
            rows = load_papers()[PAPER].table("table2").rows
            return run["systems"] * next(one[column] for one in rows if one["model"] == run["of"])
        return hardware_flops(run)

    return Recomputed(
        compute, note=lambda row: _inputs(row, column), verified=lambda row: not _from_memory(row, column)
    )


def _from_memory(row: Row, column: str) -> bool:
    """Whether a cost is recomputed from GPU counts and days that no source at hand confirms."""
    run = cost_run(row, column)
    return run is not None and "of" not in run and row.get("kind") == "quoted"


def _inputs(row: Row, column: str) -> str | None:
    """What a cost is recomputed from, and whether that is known from memory alone."""
    run = cost_run(row, column)
    if run is None:
        return None
    if "of" in run:
        return f"{run['systems']} times the printed number of {run['of']}"
    days = f"{run['days']:g} day{'' if run['days'] == 1 else 's'}"
    memory = ", GPUs and days from memory" if _from_memory(row, column) else ""
    return f"{run['gpus']} {run['gpu']} for {days}{memory}"


def _bleu(task: str):
    def experiment(row: Row) -> str | None:
        kind = _TRAINED_HERE.get(row["model"])
        return f"{task}/{kind}" if kind else None

    return Measured(experiment, lambda row, record: record.metric("bleu_test"), unit="BLEU")


# --- table 3 -------------------------------------------------------------------------------------------------


def parameters(row: Row, vocab_size: int = PRINTED_VOCABULARY) -> float:
    """Millions of parameters of the model that a row describes."""
    network = on_meta(printed_model(row), vocab_size)
    return sum(p.numel() for p in network.parameters()) / 1e6


def fitted_rows() -> list[dict[str, Any]]:
    """The parameter column three times: printed, with the stated vocabulary, and with the one fitted to it."""
    return [
        {
            "row": row_label(row),
            "printed": row["params_million"],
            "stated": parameters(row),
            "fitted": parameters(row, FITTED_VOCABULARY),
        }
        for row in table3_rows()
        if row["params_million"] is not None
    ]


def _why_parameters(row: Row) -> str | None:
    return load_papers()[PAPER].exact_fact("params_table3")["finding"] if row["params_million"] else None


def _measured(metric: str, unit: str) -> Measured:
    # Of a record at profile paper, and there is none, this unit would not be true: that one reads newstest2013.
    return Measured(
        lambda row: f"{GRID}/{row_id(row)}",
        lambda row, record: _metric(record, metric),
        unit=f"{unit}, generated sentences",
    )


def _metric(record: Record, name: str) -> float:
    return record.metric(name)


_LAWS = ("complexity_per_layer", "sequential_operations", "max_path_length")
TABLES = (
    TableView(
        id="table1",
        label=lambda row: row["layer_type"],
        label_columns=("layer_type",),
        cells={column: _law(column) for column in _LAWS},
    ),
    TableView(
        id="table2",
        label=lambda row: row["model"],
        label_columns=("model",),
        cells={
            "bleu_en_de": _bleu("wmt14_en_de"),
            "bleu_en_fr": _bleu("wmt14_en_fr"),
            "flops_en_de": _flops("flops_en_de"),
            "flops_en_fr": _flops("flops_en_fr"),
        },
    ),
    TableView(
        id="table3",
        label=row_label,
        label_columns=("group",),
        settings=("N", "d_model", "d_ff", "h", "d_k", "d_v", "P_drop", "eps_ls", "train_steps"),
        cells={
            "ppl_dev": _measured("perplexity", "perplexity per subword"),
            "bleu_dev": _measured("bleu_validation", "BLEU"),
            "params_million": Exact(parameters, note=_why_parameters),
        },
        command=lambda row: f"attn run {PAPER} --experiment {GRID}/{row_id(row)} --profile cpu",
    ),
    TableView(
        id="table4",
        label=lambda row: f"{row['parser']}, {row['training']}",
        label_columns=("parser", "training"),
        cells={"wsj23_f1": Measured(lambda row: None, lambda row, record: None, unit="F1")},
    ),
)
