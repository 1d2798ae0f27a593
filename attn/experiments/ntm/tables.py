"""How the tables of the Neural Turing Machine's chapter are filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attn.evaluation.curves import running_median
from attn.experiments.ntm.runs import LABELS, PAPER, TASKS, numbers, printed_model
from attn.experiments.ntm.workloads import MODELS, build_model
from attn.ntm import parameter_count
from attn.reproduction.experiment import Exact, Measured, TableView
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Row = Mapping[str, Any]
SOLVED = 0.1  # bits per sequence: where copy and associative recall count as solved
_ANSWER_BITS = 18  # of associative recall: three vectors of six bits

# Inputs and outputs of each task, as the printed LSTM parameter counts imply (facts: lstm_baseline_params). For
# priority sort nothing fits the printed count; the text's vectors of 8 bits with one priority are taken.
CHANNELS = {
    "Copy": (10, 9),
    "Repeat Copy": (8, 7),
    "Associative": (8, 6),
    "N-Grams": (1, 1),
    "Priority Sort": (9, 8),
}


def parameters(kind: str):
    """(row of table 1, 2 or 3) -> parameters of the model it describes."""

    def compute(row: Row) -> int:
        n_inputs, n_outputs = CHANNELS[row["task"]]
        return parameter_count(build_model(printed_model(kind, row), n_inputs=n_inputs, n_outputs=n_outputs))

    return compute


def _why(fact_id: str):
    return lambda row: load_papers()[PAPER].exact_fact(fact_id)["notes"]


def _why_ntm_lstm(row: Row) -> str:
    """For two layers also why our count is not that of the facts' formula."""
    fact = load_papers()[PAPER].exact_fact("ntm_lstm_params")
    (case,) = [case for case in fact["values"] if case["task"].startswith(row["task"])]
    ours = parameters("ntm_lstm")(row)
    if ours == case["result"]:
        return fact["notes"]
    return (
        f"{fact['notes']} In ours the second layer also sees the inputs and the reads: {ours:,} parameters, where the "
        f"formula has {case['result']:,}."
    )


def _why_lstm(row: Row) -> str | None:
    notes = load_papers()[PAPER].exact_fact("lstm_baseline_params")["notes"]
    return notes[notes.index("Priority Sort has") :] if row["task"] == "Priority Sort" else None


PATTERNS = (("table1_ntm_ff", "ntm_ff", "ntm_ff_params"), ("table2_ntm_lstm", "ntm_lstm", "ntm_lstm_params"))


def fitted_rows() -> list[dict[str, Any]]:
    """The rows of tables 1 and 2 that the facts' pattern meets: printed, by the standard build, by the pattern.

    The pattern is the standard build with three things changed: the width of what is read, how many values the heads
    emit, and some values more.
    """
    paper, found = load_papers()[PAPER], []
    for table, kind, fact in PATTERNS:
        rows, pattern = (
            {row["task"]: row for row in paper.table(table).rows},
            paper.exact_fact(fact)["fitted"],
        )
        for case in pattern["rows"]:
            row = rows[case["task"]]
            size = numbers(row["controller_size"])[1]
            count = by_pattern(kind, size, pattern, case)
            found.append(
                {
                    "table": table,
                    "kind": kind,
                    "size": size,
                    "printed": row["parameters"],
                    "standard": parameters(kind)(row),
                }
                | {"fitted": count, "read_width": pattern["read_width"], "more": pattern["more"]}
                | case
            )
    return found


def by_pattern(kind: str, size: int, pattern: Mapping[str, Any], case: Mapping[str, Any]) -> int:
    """Parameters by the pattern: its `read_width` and `more`, and a row's `n_in`, `n_out` and `head_outputs`."""
    sees = case["n_in"] + pattern["read_width"] + 1
    controller = size * sees if kind == "ntm_ff" else 4 * size * (sees + size)
    output = case["n_out"] * (size + pattern["read_width"] + 1)
    return controller + output + (size + 1) * case["head_outputs"] + pattern["more"]


def _settings(table: str, cells: Mapping[str, Exact], settings: tuple[str, ...]) -> TableView:
    return TableView(
        id=table, label=lambda row: row["task"], label_columns=("task",), settings=settings, cells=cells
    )


def bits_after(row: Row, record: Record) -> float | None:
    """Running median of the validation cost when `k` thousand sequences were seen.

    Evaluations come after whole updates, so the last one at most a hundredth earlier stands for it. Before training
    there is no spike to smooth: k = 0 is the cost of the untrained model.
    """
    if row["k"] == 0:
        return record.history[0]["bits_per_sequence"]
    medians = running_median([entry["bits_per_sequence"] for entry in record.history])
    wanted = 1000 * row["k"]
    at = [
        m
        for entry, m in zip(record.history, medians, strict=True)
        if 0.99 * wanted <= entry["seen"] <= wanted
    ]
    return at[-1] if at else None


def _curves(task: str, **more: Measured | Exact) -> TableView:
    """Learning curves read off a plot."""
    curves = next(t.tables[0] for t in TASKS if t.id == task)
    cells = {
        kind: Measured(_always(f"{task}/{kind}"), bits_after, unit="bits per sequence", skewed=True)
        for kind in MODELS
    }
    return TableView(
        id=curves,
        label=lambda row: f"{row['k']} thousand sequences",
        label_columns=("k",),
        cells=cells | more,
        command=lambda row: f"attn run {PAPER} --task {task} --profile cpu",
    )


def _always(experiment: str):
    return lambda row: experiment


def _optimal(row: Row, record: Record) -> float:
    return record.metric("optimal_bits_per_sequence")


def answer_cost(record: Record, items: int) -> float:
    """Bits per answer of associative recall with this many items."""
    return _ANSWER_BITS * record.metric(f"bits_per_bit_at_{items}")


def _at_items(row: Row, record: Record) -> float:
    return answer_cost(record, row["k"])


_NTM_SETTINGS = ("heads", "controller_size", "memory", "learning_rate")
TABLES = (
    _settings(
        "table1_ntm_ff",
        {"parameters": Exact(parameters("ntm_ff"), note=_why("ntm_ff_params"))},
        _NTM_SETTINGS,
    ),
    _settings(
        "table2_ntm_lstm",
        {"parameters": Exact(parameters("ntm_lstm"), note=_why_ntm_lstm)},
        _NTM_SETTINGS,
    ),
    _settings(
        "table3_lstm", {"parameters": Exact(parameters("lstm"), note=_why_lstm)}, ("network", "learning_rate")
    ),
    _curves("copy"),
    _curves("repeat_copy"),
    _curves("associative"),
    TableView(
        id="fig11_associative_generalisation",
        label=lambda row: f"{row['k']} items",
        label_columns=("k",),
        cells={
            kind: Measured(_always(f"associative/{kind}"), _at_items, unit="bits per sequence", skewed=True)
            for kind in MODELS
        },
        command=lambda row: f"attn run {PAPER} --task associative --profile cpu",
    ),
    _curves("ngrams", optimal=Measured(_always("ngrams/ntm_lstm"), _optimal, unit="bits per sequence")),
    _curves("priority_sort"),
)


# --- how runs end -----------------------------------------------------------------------------------------


def final_cost(record: Record) -> float:
    """Bits per sequence at the end: median of the last evaluations."""
    return running_median([entry["bits_per_sequence"] for entry in record.history])[-1]


def solves(record: Record, level: float) -> bool:
    """Whether the run ends below this cost; one that comes there and loses it again does not."""
    return final_cost(record) < level


def typical(records: Sequence[Record]) -> Record | None:
    """The run of median cost at the end, the better of the two in the middle; None without records."""
    ranked = sorted(records, key=lambda record: (final_cost(record), record.seed))
    return ranked[(len(ranked) - 1) // 2] if ranked else None


def solved_below(task: str) -> float | None:
    """Bits per sequence below which a task counts as solved; None where no model can come near 0."""
    repeats = load_papers()[PAPER].margins["repeat_copy_solved"]["value"]
    return {"copy": SOLVED, "associative": SOLVED, "repeat_copy": repeats}.get(task)


def endings(task: str, records: Mapping[str, Sequence[Record]]) -> str:
    """A line for each model: how many seeds solve the task, and what they cost at the end."""
    return "\n".join(f"{LABELS[kind]}: {_ending(task, rows)}" for kind, rows in records.items())


def _ending(task: str, rows: Sequence[Record]) -> str:
    if not rows:
        return "no records yet"
    costs = sorted(final_cost(record) for record in rows)
    span = f"{costs[0]:.3g} to {costs[-1]:.3g}" if len(costs) > 1 else f"{costs[0]:.3g}"
    at_the_end = f"{span} bits per sequence at the end"
    seeds = f"{len(rows)} seed" + "s" * (len(rows) > 1)
    if (level := solved_below(task)) is None:
        return f"{at_the_end} ({seeds})"
    solved = sum(solves(record, level) for record in rows)
    return f"{solved} of {seeds} below {level:g} bits; {at_the_end}"
