"""Chapter 6: the Neural Turing Machine. How its tables are filled, and its claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attn.evaluation.curves import curve_area, running_median
from attn.experiments.ntm.runs import EXPERIMENTS, LABELS, MODELS, PAPER, ModelConfig, build_model
from attn.ntm import parameter_count
from attn.reproduction.experiment import Chapter, Claim, Control, Exact, Measured, TableView
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Row = Mapping[str, Any]

# Inputs and outputs of each task, as the printed LSTM parameter counts imply (facts: lstm_baseline_params). For
# priority sort nothing fits the printed count; the text's vectors of 8 bits with one priority are taken.
CHANNELS = {
    "Copy": (10, 9),
    "Repeat Copy": (8, 7),
    "Associative": (8, 6),
    "N-Grams": (1, 1),
    "Priority Sort": (9, 8),
}


def _count(model: ModelConfig, task: str) -> int:
    n_inputs, n_outputs = CHANNELS[task]
    return parameter_count(build_model(model, n_inputs=n_inputs, n_outputs=n_outputs))


def _ntm_parameters(kind: str):
    def compute(row: Row) -> int:
        n_layers, size = _layers(row["controller_size"])
        n_slots, slot_dim = _layers(row["memory"])
        model = ModelConfig(
            kind=kind, size=size, n_layers=n_layers, n_heads=row["heads"], n_slots=n_slots, slot_dim=slot_dim
        )
        return _count(model, row["task"])

    return compute


def _lstm_parameters(row: Row) -> int:
    n_layers, size = _layers(row["network"])
    return _count(ModelConfig(kind="lstm", size=size, n_layers=n_layers), row["task"])


def _layers(text: str) -> tuple[int, int]:
    """ "2 x 100" as (2, 100), "100" as (1, 100)."""
    numbers = [int(part) for part in text.split("x")]
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _why(fact_id: str):
    return lambda row: load_papers()[PAPER].exact_fact(fact_id)["notes"]


def _why_lstm(row: Row) -> str | None:
    notes = load_papers()[PAPER].exact_fact("lstm_baseline_params")["notes"]
    return notes[notes.index("Priority Sort has") :] if row["task"] == "Priority Sort" else None


def _settings(table: str, cells: Mapping[str, Exact], settings: tuple[str, ...]) -> TableView:
    return TableView(
        id=table, label=lambda row: row["task"], label_columns=("task",), settings=settings, cells=cells
    )


def _bits_after(row: Row, record: Record) -> float | None:
    """Running median of the validation cost when `k` thousand sequences were seen.

    Evaluations come after whole updates, so the last one at most a hundredth earlier stands for it.
    """
    medians = running_median([entry["bits_per_sequence"] for entry in record.history])
    wanted = 1000 * row["k"]
    at = [
        m
        for entry, m in zip(record.history, medians, strict=True)
        if 0.99 * wanted <= entry["seen"] <= wanted
    ]
    return at[-1] if at else None


def _curves(
    table: str, task: str, columns: tuple[str, ...] = MODELS, label: str = "thousand sequences"
) -> TableView:
    """Learning curves read off a plot; a task without experiments yet leaves its cells pending."""
    known = {experiment.id for experiment in EXPERIMENTS}

    def cell(kind: str) -> Measured:
        name = f"{task}/{kind}"
        return Measured(
            experiment=lambda row: name if name in known else None,
            value=_bits_after,
            unit="bits per sequence",
            skewed=True,
        )

    return TableView(
        id=table,
        label=lambda row: f"{row['k']} {label}",
        label_columns=("k",),
        cells={kind: cell(kind) for kind in columns},
        command=lambda row: (
            f"attn run {PAPER} --task {task} --profile cpu" if f"{task}/lstm" in known else None
        ),
    )


_NTM_SETTINGS = ("heads", "controller_size", "memory", "learning_rate")
_PENDING_OPTIMUM = Exact(
    compute=lambda row: None, note=lambda row: "needs the validation sequences of the 6-gram task"
)

TABLES = (
    _settings(
        "table1_ntm_ff",
        {"parameters": Exact(_ntm_parameters("ntm_ff"), note=_why("ntm_ff_params"))},
        _NTM_SETTINGS,
    ),
    _settings(
        "table2_ntm_lstm",
        {"parameters": Exact(_ntm_parameters("ntm_lstm"), note=_why("ntm_lstm_params"))},
        _NTM_SETTINGS,
    ),
    _settings(
        "table3_lstm", {"parameters": Exact(_lstm_parameters, note=_why_lstm)}, ("network", "learning_rate")
    ),
    _curves("fig3_copy_curves", "copy"),
    _curves("fig7_repeat_copy_curves", "repeat_copy"),
    _curves("fig10_associative_curves", "associative"),
    _curves("fig11_associative_generalisation", "associative_generalisation", label="items"),
    TableView(
        id="fig13_ngram_curves",
        label=lambda row: f"{row['k']} thousand sequences",
        label_columns=("k",),
        cells={**_curves("fig13_ngram_curves", "ngrams").cells, "optimal": _PENDING_OPTIMUM},
    ),
    _curves("fig18_sort_curves", "priority_sort"),
)


# --- Claims ----------------------------------------------------------------------------------------------

Runs = Mapping[str, Record]
_NTM, _LSTM = "copy/ntm_lstm", "copy/lstm"
_UNHARMED = load_papers()[PAPER].margins["copy_length_30"]["value"]  # bits per output bit


def final_cost(record: Record) -> float:
    """Bits per sequence at the end: median of the last evaluations."""
    return running_median([entry["bits_per_sequence"] for entry in record.history])[-1]


_BASELINE_LEARNS = Control(
    statement="The LSTM's own cost falls between its first and last evaluation",
    difference=lambda runs: runs[_LSTM].history[0]["bits_per_sequence"] - final_cost(runs[_LSTM]),
)
_NTM_LEARNS = Control(
    statement="The NTM beats chance (1 bit per output bit) at the longest training length, 20",
    difference=lambda runs: 1 - runs[_NTM].metric("bits_per_bit_at_20"),
)


def _beyond(length: int) -> Claim:
    name = f"bits_per_bit_at_{length}"
    return Claim(
        id=f"copy_generalises_{length}",
        fact="copy_generalises",
        kind="order",
        headline=True,
        measure=f"Cost at length {length}, trained on 1 to 20: LSTM minus NTM with LSTM controller",
        unit="bits per output bit",
        experiments=(_NTM, _LSTM),
        difference=lambda runs: runs[_LSTM].metric(name) - runs[_NTM].metric(name),
        control=_NTM_LEARNS,
    )


CLAIMS = (
    Claim(
        id="copy_faster_area",
        fact="copy_faster",
        kind="order",
        headline=True,
        measure="Mean cost over the learning curve: LSTM minus NTM with LSTM controller",
        unit="bits per sequence",
        experiments=(_NTM, _LSTM),
        difference=lambda runs: curve_area(runs[_LSTM].history) - curve_area(runs[_NTM].history),
        control=_BASELINE_LEARNS,
    ),
    Claim(
        id="copy_faster_final",
        fact="copy_faster",
        kind="order",
        headline=True,
        measure="Cost at the end of the budget: LSTM minus NTM with LSTM controller",
        unit="bits per sequence",
        experiments=(_NTM, _LSTM),
        difference=lambda runs: final_cost(runs[_LSTM]) - final_cost(runs[_NTM]),
        control=_BASELINE_LEARNS,
    ),
    *(_beyond(length) for length in (30, 50, 120)),
    Claim(
        id="copy_generalises_unharmed",
        fact="copy_generalises",
        kind="equality",
        margin="copy_length_30",
        headline=True,
        measure="Cost of the NTM with LSTM controller at length 30 minus at length 20, its longest training length",
        unit="bits per output bit",
        experiments=(_NTM,),
        difference=lambda runs: (
            runs[_NTM].metric("bits_per_bit_at_30") - runs[_NTM].metric("bits_per_bit_at_20")
        ),
        control=_NTM_LEARNS,
    ),
    Claim(
        id="copy_generalises_lstm_breaks",
        fact="copy_generalises",
        kind="order",
        headline=True,
        measure="Cost of the LSTM at length 30 minus at length 20, its longest training length, and minus the margin "
        f"of {_UNHARMED:g} that counts as unharmed for the NTM",
        unit="bits per output bit",
        experiments=(_LSTM,),
        difference=lambda runs: (
            runs[_LSTM].metric("bits_per_bit_at_30") - runs[_LSTM].metric("bits_per_bit_at_20") - _UNHARMED
        ),
        control=Control(
            statement="The LSTM has learned length 20 to a tenth of chance, so that there is something to break",
            difference=lambda runs: 0.1 - runs[_LSTM].metric("bits_per_bit_at_20"),
        ),
    ),
    Claim(
        id="params_independent_of_n",
        fact="params_independent_of_n",
        kind="arithmetic",
        measure="Parameter count of the model of every row of tables 1 and 2 with 128 and with 256 memory locations",
        holds=lambda paper: all(
            _ntm_parameters(kind)(row)
            == _ntm_parameters(kind)({**row, "memory": row["memory"].replace("128", "256")})
            for table, kind in (("table1_ntm_ff", "ntm_ff"), ("table2_ntm_lstm", "ntm_lstm"))
            for row in paper.table(table).rows
        ),
    ),
)

CHAPTER = Chapter(
    paper=PAPER,
    number=6,
    short_title="Neural Turing Machine",
    notebook="06_ntm",
    experiments=EXPERIMENTS,
    tables=TABLES,
    claims=CLAIMS,
)

__all__ = ["CHAPTER", "LABELS", "final_cost"]
