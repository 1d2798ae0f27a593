"""How the tables of the chapter on product-key memory are filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from attn.experiments.product_keys.runs import PAPER, keys_id, position_id, table1_id
from attn.product_keys import ProductKeyMemory
from attn.reproduction.experiment import Exact, Measured, TableView
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Row = Mapping[str, Any]
# Usage is not interpreted where the evaluation text reads a slot less often than this on average.
LEAST_LOOKUPS = 10
_SIZES = load_papers()[PAPER].budgets["text"]["cpu"][
    "sizes"
]  # of models and memories at cpu, by printed ones


def perplexity(record: Record) -> float:
    """Of the test text, per subword."""
    return record.metric("perplexity_test")


def memory_metric(record: Record, name: str) -> float:
    """A metric of the lowest memory, as "usage"."""
    return record.metric(f"{name}_layer{min(record.data['config']['model']['memories'])}")


def use(record: Record, name: str) -> float | None:
    """The same, or None where there were too few look-ups to speak of usage."""
    enough = memory_metric(record, "lookups_per_slot") >= LEAST_LOOKUPS
    return memory_metric(record, name) if enough else None


def printed_memory(**sizes: Any) -> ProductKeyMemory:
    """A memory of any size, without numbers."""
    with torch.device("meta"):
        return ProductKeyMemory(**sizes)


def _perplexity(experiment: Callable[[Row], str]) -> Measured:
    return Measured(experiment, lambda row, record: perplexity(record), unit="perplexity per subword")


def _use(experiment: Callable[[Row], str], name: str, unit: str) -> Measured:
    return Measured(experiment, lambda row, record: use(record, name), unit=unit)


def _command(experiment: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: f"attn run {PAPER} --experiment {experiment(row)} --profile cpu"


def _with(row: Row) -> str:
    return keys_id(row["n_keys"])


def _without(row: Row) -> str:
    return keys_id(row["n_keys"], batch_norm=False)


def _position(row: Row) -> str:
    return position_id(row["position"])


def _table1(row: Row) -> str | None:
    return None if row["test_ppl"] is None else table1_id(row)


def _table1_label(row: Row) -> str:
    """The printed model, and the sizes that stand for it at cpu."""
    printed = f"{row['model']}, width {row['dim']}"
    if _table1(row) is None:
        return printed
    return f"{printed} (at cpu {_SIZES['layers'][row['layers']]} of {_SIZES['dims'][row['dim']]})"


def _table2_label(row: Row) -> str:
    """The printed number of slots, and the one that stands for it at cpu."""
    return f"{row['row']} (at cpu {(row['n_keys'] // _SIZES['n_keys_over']) ** 2:,})"


TABLES = (
    TableView(
        id="table1",
        label=_table1_label,
        label_columns=("model",),
        settings=("layers", "dim", "memories"),
        cells={"test_ppl": _perplexity(_table1)},
        command=lambda row: None if _table1(row) is None else _command(_table1)(row),
    ),
    TableView(
        id="table2_batchnorm",
        label=_table2_label,
        label_columns=("row",),
        settings=("n_keys",),
        cells={
            "slots": Exact(lambda row: printed_memory(d_model=512, n_keys=row["n_keys"]).n_slots),
            "ppl_no_bn": _perplexity(_without),
            "ppl_bn": _perplexity(_with),
            "usage_no_bn": _use(_without, "usage", "percent"),
            "usage_bn": _use(_with, "usage", "percent"),
            "kl_no_bn": _use(_without, "kl", "nats"),
            "kl_bn": _use(_with, "kl", "nats"),
        },
        command=_command(_with),
    ),
    TableView(
        id="table3_position",
        label=lambda row: f"memory in layer {row['position']}",
        label_columns=("row",),
        settings=("position",),
        cells={
            "ppl": _perplexity(_position),
            "usage_percent": _use(_position, "usage", "percent"),
            "kl": _use(_position, "kl", "nats"),
        },
        command=_command(_position),
    ),
    # words on figures: there is no number to set beside them; the chapter's own figures do
    TableView(
        id="figures_in_words",
        label=lambda row: row["row"],
        label_columns=("row",),
        settings=("value",),
        cells={},
    ),
)
