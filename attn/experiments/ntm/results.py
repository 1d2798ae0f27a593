"""What the Neural Turing Machine's chapter says of its records, and the tables that are its own.

Every sentence is made from records or facts, so that it is right for whatever the records hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from attn.data.priority_sort import PrioritySortTask
from attn.evaluation.curves import curve_area, running_median, solved_at
from attn.experiments.ntm.answers import off_optimal
from attn.experiments.ntm.figures import Records, bits_at, there
from attn.experiments.ntm.runs import LABELS, PAPER, TASKS
from attn.experiments.ntm.tables import answer_cost, final_cost, fitted_rows, solved_below, solves, typical
from attn.reproduction.claims import Verdict
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import BLANK, Grid, Html, plain
from attn.reproduction.records import Record

NONE = "No records yet."
_RIGHT = 1e-4  # bits per output bit; prose says "below" this


def seeds(rows: Sequence[Record]) -> str:
    """As "3 seeds"."""
    return "1 seed" if len(rows) == 1 else f"{len(rows)} seeds"


def _medians(rows: Sequence[Record]) -> str:
    """As "medians of 3 seeds", where that is more than one."""
    return f"medians of {seeds(rows)}" if len(rows) > 1 else seeds(rows)


def _median(rows: Sequence[Record], value: Callable[[Record], float]) -> float:
    return median(value(record) for record in rows)


def setting(record: Record) -> str:
    """Model, heads and training of a run: "NTM, LSTM controller, 5 read and 5 write heads, 1 sequence an update"."""
    config = record.data["config"]
    heads, size = config["model"]["n_heads"], config["training"]["batch_size"]
    kind = record.data["experiment"].rpartition("/")[2]
    pairs = f"{heads} read and {heads} write head{'s' * (heads > 1)}"
    return f"{LABELS[kind]}, {pairs}, {_sequences(size)} an update"


def _sequences(size: int) -> str:
    return f"{size} sequence{'s' * (size > 1)}"


def _bits(value: float) -> str:
    return f"{value:.3g}" if value >= _RIGHT else f"below {_RIGHT:g}"


# --- parameter counts ----------------------------------------------------------------------------------------


def count_words(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of how many rows of each table the parameters are found as printed, and whether the others are above the print.

    Args:
        tables: as a chapter's state gives them, with exact cells.
    """
    return [_counts(table) for table in tables]


def _counts(table: Mapping[str, Any]) -> str:
    cells = {
        row["label"]: cell for row in table["rows"] for cell in row["cells"] if cell["column"] == "parameters"
    }
    missed = {label: cell for label, cell in cells.items() if cell["matches"] != "yes"}
    said = f"{len(cells) - len(missed)} of {len(cells)} rows of {_number(table['id'])}"
    if not missed:
        return f"Equal to the print: {said}."
    larger = sum(cell["paper"] > cell["values"]["exact"] for cell in missed.values())
    return (
        f"Equal to the print: {said}. Not equal: {', '.join(missed)}; there the printed number is the larger in "
        f"{larger} of {len(missed)}."
    )


def _number(table: str) -> str:
    """As "table 3"."""
    return table.partition("_")[0].replace("table", "table ")


def fitted_table() -> Html:
    """Tables 1 and 2 three times: printed, by the standard build, and by the pattern that was fitted to the print."""
    rows = fitted_rows()
    grid = Grid(
        plain("Parameters of tables 1 and 2: printed, as built, and by a pattern fitted to the print"),
        ["Model", "Task", "Printed", "Standard build", "Fitted pattern", "Inputs, outputs", "Values a head pair emits"],
    )  # fmt: skip
    for kind, group in groupby(rows, key=lambda row: row["kind"]):
        for index, row in enumerate(group):
            shown = [f"{row[name]:,} ({'equal' if row[name] == row['printed'] else 'not equal'})"
                     for name in ("standard", "fitted")]  # fmt: skip
            cells = [
                row["task"],
                f"{row['printed']:,}",
                *shown,
                f"{row['n_in']}, {row['n_out']}",
                row["head_outputs"],
            ]
            grid.add([None if index else plain(LABELS[kind]), *map(plain, cells)])
    return grid.render()


def fitted_words() -> list[str]:
    """What the pattern changes, and how many numbers were chosen for how many counts."""
    rows, paper = fitted_rows(), load_papers()[PAPER]
    width, more = rows[0]["read_width"], rows[0]["more"]
    built = int(paper.table("table1_ntm_ff").rows[0]["memory"].split(" x ")[1])
    emitted = (
        4 * built + 12
    )  # key, strength, gate, three shifts, exponent, for two heads; erase and add for one
    table_3 = {case["task"]: case["n_in"] for case in paper.exact_fact("lstm_baseline_params")["values"]}
    moved = [row for row in rows if row["n_in"] != table_3[row["task"]]]
    chosen = 2 + len({(row["kind"], row["head_outputs"]) for row in rows}) + len(moved)
    other = "; ".join(
        f"{row['task']} needs {row['n_in']} inputs here, {table_3[row['task']]} in table 3" for row in moved
    )
    met = {
        table: [row["printed"] == row["fitted"] for row in rows if row["table"] == table]
        for table in ("table1_ntm_ff", "table2_ntm_lstm")
    }
    said = " and ".join(
        f"{sum(found)} of {len(paper.table(table).rows)} rows of {_number(table)}"
        for table, found in met.items()
    )
    return [
        f"The pattern meets {said}.",
        f"The pattern is the standard build with a read vector of {width} values where it has {built}, a head pair that "
        f"emits the number of values in the last column where it emits {emitted}, and {more} values more. So each "
        f"output costs {width - built} weights more than it should.",
        f"Not the same constants everywhere: {other}. In all, {chosen} numbers were chosen for {len(rows)} counts.",
    ]


# --- budgets -------------------------------------------------------------------------------------------------


def batch_words(profile: str = BOOK_PROFILE) -> str:
    """How many sequences an update has, task by task."""
    paper = load_papers()[PAPER]
    sizes = {task.label: paper.budgets[task.id][profile]["batch_size"] for task in TASKS}
    said = ", ".join(f"{label.lower()} {size}" for label, size in sizes.items())
    return f"Sequences of an update at profile {profile}: {said}. The profile paper has {_paper_batches()}."


def _paper_batches() -> str:
    found = {
        budgets["paper"]["batch_size"]
        for budgets in load_papers()[PAPER].budgets.values()
        if "paper" in budgets
    }
    return ", ".join(map(str, sorted(found)))


def update_words(task: str, *groups: Sequence[Record]) -> list[str]:
    """When the task was first solved with one sequence an update and with several, in sequences and in updates.

    Args:
        task: one that has a level below which it counts as solved.
        groups: runs of one setting each.
    """
    return [line for rows in groups if rows for line in _solving(task, rows)] or [NONE]


def _solving(task: str, rows: Sequence[Record]) -> list[str]:
    level, training = solved_below(task), rows[0].data["config"]["training"]
    size, rate = training["batch_size"], training["lr"]
    how = f"{_sequences(size)} an update, learning rate {rate:g}"
    at = [solved_at(record.history, level) for record in rows]
    found = [seen for seen in at if seen is not None]
    if not found:
        return [f"{how}: not below {level:g} bits in any of {seeds(rows)}."]
    middle = median(math.inf if seen is None else seen for seen in at)
    if math.isinf(middle):
        return [
            f"{how}: below {level:g} bits in {len(found)} of {seeds(rows)}, {_after(median(found), size)}."
        ]
    which = f"median of {seeds(rows)}" if len(rows) > 1 else seeds(rows)
    never = f", of which {len(rows) - len(found)} never is" if len(found) < len(rows) else ""
    return [f"{how}: first below {level:g} bits {_after(middle, size)} ({which}{never})."]


def _after(seen: float, size: int) -> str:
    return f"after {seen:,.0f} sequences, which are {seen / size:,.0f} updates"


def endurance_words(task: str, rows: Sequence[Record]) -> list[str]:
    """How long each run went on, and whether it kept what it had learned.

    A record tells that all updates were finite: a loss or a gradient norm that is not ends a run without one.

    Args:
        task: one that has a level below which it counts as solved.
        rows: runs of one model.
    """
    return [_endurance(record, solved_below(task)) for record in rows] or [NONE]


def _endurance(record: Record, level: float) -> str:
    said = (
        f"Seed {record.seed}: {record.history[-1]['step']:,} updates, loss and gradient finite in all of them"
    )
    first = solved_at(record.history, level)
    if first is None:
        return f"{said}; never below {level:g} bits, {final_cost(record):.3g} at the end."
    after = [entry for entry in record.history if entry["seen"] > first]
    above = [entry for entry in after if entry["bits_per_sequence"] >= level]
    worst = ""
    if above:
        most = max(entry["bits_per_sequence"] for entry in above)
        worst = f", at most {most:.3g} bits, the last after {above[-1]['seen']:,} sequences"
    return (
        f"{said}. Of the {len(after)} evaluations after it first came below {level:g} bits, {len(above)} are not "
        f"below{worst}; {_bits(final_cost(record))} bits at the end."
    )


# --- learning curves -----------------------------------------------------------------------------------------


def failure_words(task: str, records: Records) -> list[str]:
    """Of the seeds that do not end below the task's level: which came down and lost it again, and where others are."""
    level, lines = solved_below(task), []
    for kind, rows in there(records).items():
        failed = [record for record in rows if not solves(record, level)]
        lost = [record for record in failed if final_cost(record) > 2 * _least(record)[0]]
        lines += [f"{LABELS[kind]}, {_collapse(record)}." for record in lost]
        if still := [final_cost(record) for record in failed if record not in lost]:
            lines.append(
                f"{LABELS[kind]}: {len(still)} of {seeds(rows)} not below {level:g} bits yet: {_span(still)} at the end."
            )
    return lines or ([f"Every seed ends below {level:g} bits."] if there(records) else [NONE])


def _least(record: Record) -> tuple[float, float]:
    """Least running median of the cost, and the sequences seen then."""
    medians = running_median([entry["bits_per_sequence"] for entry in record.history])
    return min(zip(medians, (entry["seen"] for entry in record.history), strict=True))


def _collapse(record: Record) -> str:
    least, seen = _least(record)
    return (
        f"seed {record.seed}: down to {least:.3g} bits at {seen / 1000:.0f} thousand sequences, but "
        f"{final_cost(record):.3g} at the end"
    )


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if len(values) == 1 else f"{low:.3g} to {high:.3g}"


def order_words(records: Records, claim: str) -> list[str]:
    """In which order the models learn, by two measures, below what the paper says of it.

    Args:
        records: runs of each model.
        claim: id of the paper's claim.
    """
    found = there(records)
    if not found:
        return [NONE]
    lines = [f"The paper: {load_papers()[PAPER].claim(claim).statement}"]
    for name, value in (
        ("Mean cost over the curve", lambda r: curve_area(r.history)),
        ("Cost at the end", final_cost),
    ):
        middle = {kind: _median(rows, value) for kind, rows in found.items()}
        ranked = sorted(middle, key=middle.get)
        lines.append(
            f"{name}, least first: {'; '.join(f'{LABELS[kind]} {middle[kind]:.3g}' for kind in ranked)} bits."
        )
    counts = ", ".join(f"{LABELS[kind]} {len(rows)}" for kind, rows in found.items())
    missing = [LABELS[kind] for kind in records if kind not in found]
    lines.append(f"Medians over seeds ({counts}).{f' No records yet of {_and(missing)}.' if missing else ''}")
    return lines


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


# --- beyond the training sizes -------------------------------------------------------------------------------


def length_words(records: Records, lengths: Sequence[int], longest: int) -> list[str]:
    """What copying costs within and beyond the training lengths, and whether there was something to lose.

    Args:
        records: runs of each model.
        lengths: of the final test.
        longest: of training.
    """
    margins = load_papers()[PAPER].margins
    learned, unharmed = margins["learned"]["value"], margins["copy_length_30"]["value"]
    lines = []
    for kind, rows in there(records).items():
        able = [record for record in rows if bits_at(record, longest) < learned]
        if not able:
            least = min(bits_at(record, longest) for record in rows)
            lines.append(
                f"{LABELS[kind]}: no seed has learned length {longest} (least cost {least:.2g} bits per output bit, "
                "chance is 1), so these runs cannot show whether it breaks beyond."
            )
            continue
        beyond = [length for length in lengths if length > longest]
        kept = {n: sum(bits_at(r, n) - bits_at(r, longest) < unharmed for r in able) for n in beyond}
        said = ", ".join(f"{count} at {length}" for length, count in kept.items())
        lines.append(
            f"{LABELS[kind]}: {len(able)} of {seeds(rows)} learned length {longest}. Of these, so many cost less than "
            f"{unharmed:g} bits per output bit more beyond it: {said}."
        )
    return lines or [NONE]


def repeat_words(records: Records, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Vectors and end markers of repeat copy, at the largest training size and beyond (medians over seeds)."""
    lines = []
    for kind, rows in there(records).items():
        said = []
        for length, repeats in sizes:
            size = f"{length}x{repeats}"
            cost = _bits(_median(rows, lambda r, size=size: bits_at(r, size)))
            ends = _median(rows, lambda r, size=size: r.metric(f"right_ends_at_{size}"))
            said.append(
                f"{length} vectors {repeats} times, {cost} bits per output bit and {ends:.0%} of the ends right"
            )
        lines.append(f"{LABELS[kind]} ({_medians(rows)}): {'; '.join(said)}.")
    return lines or [NONE]


def items_words(records: Records, items: Sequence[int]) -> list[str]:
    """How many items each model recalls at less than the facts' level (medians over seeds)."""
    level = load_papers()[PAPER].margins["associative_recalled"]["value"]
    lines = []
    for kind, rows in there(records).items():
        costs = {n: _median(rows, lambda r, n=n: answer_cost(r, n)) for n in items}
        good = [n for n, cost in costs.items() if cost < level]
        upto = (
            f"below {level:g} bit an answer at {', '.join(map(str, good))} items"
            if good
            else f"nowhere below {level:g} bit an answer"
        )
        able = sum(answer_cost(r, items[0]) < level for r in rows)
        lines.append(
            f"{LABELS[kind]}: {able} of {seeds(rows)} below {level:g} bit at {items[0]} items; the median is {upto}, "
            f"and {costs[items[-1]]:.3g} bits at {items[-1]}."
        )
    return lines or [NONE]


# --- dynamic n-grams -----------------------------------------------------------------------------------------


def ngram_words(records: Records) -> list[str]:
    """How far each model is from the optimal estimator, what contexts are worth to it, and how the models rank."""
    lines = []
    for kind, rows in there(records).items():
        above = _median(rows, lambda r: r.metric("bits_above_optimal"))
        share = _median(rows, _found_of_context)
        lines.append(
            f"{LABELS[kind]}: {above:.3g} bits above the optimal estimator; {share:.0%} of what contexts are worth "
            f"({_medians(rows)})."
        )
    return (lines + _beside_lstm(there(records))) or [NONE]


def _beside_lstm(records: Records) -> list[str]:
    """Whether the NTMs lie between the optimal estimator and the LSTM, as in the paper; nothing without all of them."""
    machines = [kind for kind in records if kind != "lstm"]
    if "lstm" not in records or not machines:
        return []
    costs = {kind: _median(rows, lambda r: r.metric("bits_per_sequence")) for kind, rows in records.items()}
    optimal = _median(records["lstm"], lambda r: r.metric("optimal_bits_per_sequence"))
    ranked = ", ".join(f"{LABELS[kind]} {costs[kind]:.3g}" for kind in sorted(costs, key=costs.get))
    between = sum(optimal <= costs[kind] < costs["lstm"] for kind in machines)
    said = (
        f"In the paper's figure 13 the NTMs lie between the optimal estimator and the LSTM; here {between} of "
        f"{len(machines)} do."
    )
    if all(costs[kind] > costs["lstm"] for kind in machines):
        said += " It is the reverse: the LSTM, which has no memory matrix, is the nearest to the optimum."
    return [
        f"After the last update, medians, least first: optimal estimator {optimal:.3g}, {ranked} bits. {said}"
    ]


def _found_of_context(record: Record) -> float:
    """0 for the best predictor without contexts, 1 for the optimal one."""
    blind = record.metric("context_free_bits_per_sequence")
    return (blind - record.metric("bits_per_sequence")) / (blind - record.metric("optimal_bits_per_sequence"))


_ERRORS = 4  # standard errors of the paired difference by which chance may put a cost below the optimal one


def bound_words(records: Records) -> list[str]:
    """How many runs cost at least as much as the optimal estimator, which no predictor beats in expectation.

    Raises:
        AssertionError: naming a run that costs less by more than chance allows: data, loss or evaluation are wrong then.
    """
    runs = [record for rows in records.values() for record in rows]
    if not runs:
        return [NONE]
    above = [record.metric("bits_above_optimal") for record in runs]
    for record, bits in zip(runs, above, strict=True):
        if bits < -_ERRORS * record.metric("bits_above_optimal_error"):
            raise AssertionError(
                f"{record.data['experiment']}, seed {record.seed}, costs {-bits:.3g} bits less than the best estimator"
            )
    count = sum(bits >= 0 for bits in above)
    return [
        f"Recorded runs that cost at least as much as the optimal estimator on the same sequences: {count} of "
        f"{len(runs)}. Less by up to {_ERRORS} standard errors of the difference would pass as chance; more would stop "
        "this page."
    ]


def prediction_words(records: Records) -> list[str]:
    """How near each model's predictions of the shown sequence are to the optimal ones, beside not predicting."""
    lines = []
    for kind, rows in there(records).items():
        arrays = typical(rows).artifact()
        half = abs(0.5 - arrays["optimal_trace"].astype(float)).mean()
        off = _median(rows, lambda r: off_optimal(r.artifact()).mean())
        lines.append(
            f"{LABELS[kind]}: {off:.2f} from the optimal prediction on average; always saying one half would be "
            f"{half:.2f} from it ({_medians(rows)})."
        )
    return lines or [NONE]


# --- priority sort -------------------------------------------------------------------------------------------

_CHANCE = PrioritySortTask().n_answered * PrioritySortTask().n_bits  # bits of an answer known by chance


def head_words(groups: Sequence[Sequence[Record]]) -> list[str]:
    """What each of several settings of heads and training costs at the end, seed by seed, and which are at chance.

    Args:
        groups: runs of one setting each.
    """
    lines = []
    for rows in filter(None, groups):
        costs = {record.seed: final_cost(record) for record in rows}
        said = ", ".join(f"seed {seed} {cost:.3g}" for seed, cost in costs.items())
        chance = [str(seed) for seed, cost in costs.items() if cost >= _CHANCE]
        rate = rows[0].data["config"]["training"]["lr"]
        lines.append(
            f"{setting(rows[0])}, learning rate {rate:g}: {said} bits."
            + (f" Not below chance, {_CHANCE} bits: seed {_and(chance)}." if chance else "")
        )
    return lines or [NONE]


def claim_words(verdicts: Sequence[Verdict], claim: str) -> list[str]:
    """What became of a test: its verdict with the interval, and its control where this does not show."""
    found = next(verdict for verdict in verdicts if verdict.id == claim)
    if found.interval is None:
        return [f"{found.measure}: {found.verdict} ({found.reason})."]
    said = f"{found.measure}: {_between(found.interval)} {found.unit}, {found.verdict}."
    if found.control["shown"]:
        return [said]
    return [
        f'{said} The control, "{found.control["statement"]}", does not show: {_between(found.control["interval"])}, '
        "which is not all above 0."
    ]


def _between(interval: Sequence[float]) -> str:
    return "{:.3g} to {:.3g}".format(*interval)


# --- what came after -----------------------------------------------------------------------------------------


def after_table() -> Html:
    """One result of each of the later papers, as printed, beside what it was compared with on the same task."""
    grid = Grid(plain("Printed results of later papers; none is rerun here"),
                ["Paper", "Task", "Result", "Beside it", "Checked", "Note"])  # fmt: skip
    for paper, task, table, ours, theirs, unit, note in _later():
        cells = [
            load_papers()[paper].title,
            task,
            f"{ours[0]}: {ours[1]}{unit}",
            f"{theirs[0]}: {theirs[1]}{unit}" if theirs else BLANK,
        ]
        grid.add([*map(plain, cells), plain(table.checked), plain(note)])
    return grid.render()


def _later():
    """Paper, task, table of the facts, result, result beside it or None, unit, and what must be known of these."""
    papers = load_papers()
    graph = papers["graves2016dnc"].table("graph")
    row = graph.rows[0]
    # the LSTM's number of that row is of another lesson, as its note says
    yield "graves2016dnc", row["task"], graph, ("DNC", row["dnc"]), None, "% right", graph.notes
    omniglot = papers["santoro2016mann"].table("table1_omniglot")
    rows = {row["model"]: row["second"] for row in omniglot.rows}
    pair = (("MANN", rows["MANN"]), ("LSTM", rows["LSTM"]))
    # its note is of the first time a class is seen
    yield (
        "santoro2016mann",
        "Omniglot, 5 classes, second time a class is seen",
        omniglot,
        *pair,
        "% right",
        BLANK,
    )
    cifar = papers["zoph2017nasnet"].table("table1_cifar10")
    best = {
        kind: min((r["error_percent"], r["model"]) for r in cifar.rows if r["kind"] == kind)
        for kind in ("own", "quoted")
    }
    pair = tuple(best[kind][::-1] for kind in ("own", "quoted"))
    yield "zoph2017nasnet", "CIFAR-10", cifar, *pair, "% error", cifar.notes
