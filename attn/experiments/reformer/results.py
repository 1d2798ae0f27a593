"""What chapter 2 shows as tables and words: memory arithmetic, printed grids, and what the conventions decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import NamedTuple

from attn.experiments.reformer.concepts import BATCH, LARGEST_LAYER, LENGTH, memory_amounts, stated
from attn.experiments.reformer.convergence import CHANCE, converged_words, has_converged, span_of
from attn.experiments.reformer.runs import (
    ATTENTIONS,
    CODE_MODELS,
    CODES,
    EXPERIMENTS,
    LABELS,
    PAPER,
    TABLE2_ROWS,
    own_evaluation,
)
from attn.experiments.reformer.words import listed, n_seeds
from attn.experiments.reformer.workloads import ROUNDS, SOLVED
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.grid import BLANK, Grid, Html, plain
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by model
NO_RECORDS = ["No records yet."]
_EVALUATED = ("eval_full", "eval_lsh8", "eval_lsh4", "eval_lsh2", "eval_lsh1")
_HASHED = tuple(name for name in TABLE2_ROWS.values() if name != "full")
# A convention meets printed numbers where it comes within so many percentage points, on average.
_MEETS = 5.0
# What "full attention" may mean; the first is what LSH attention itself does.
CONVENTIONS = ("full", "full_with_self", "full_raw_keys", "full_plain", "separate")
_PRINTED = {"the paper": "table2", "the replication": "table2_reproduction"}


def estimate_words() -> list[str]:
    """What the introduction reckons with, in the numbers of its text."""
    both = {
        stated(name)
        for name in (
            "these parameters, fp32",
            "activations of a layer, 64K tokens, width 1024, batch 8, fp32",
        )
    }
    return [
        f"The longest text in one example that is cited has {stated('longest text in one example that is cited'):,} "
        f"tokens. The largest layer that was reported has {stated(LARGEST_LAYER):g} billion parameters, and activations "
        f"of a layer for {BATCH} texts of {LENGTH:,} tokens are about as many numbers again: "
        f"{listed(sorted(both))} GB each in float32. The whole text that BERT was trained on takes "
        f"{stated('text that BERT was trained on')} GB."
    ]


def memory_table() -> Html:
    """The estimates of the paper and of lectures on it, in GiB."""
    grid = Grid(plain("Memory of a long text, float32"), ["What", "Values", "GiB"])
    for amount in memory_amounts():
        grid.add([plain(amount.what), plain(f"{amount.values:,}"), plain(f"{amount.gib:.3g}")])
    return grid.render()


# --- what is printed ---------------------------------------------------------------------------------------------


def printed_grids(paper: Paper) -> dict[str, dict[str, list[float]]]:
    """Table 2 as the paper and as the replication print it, by row, in the order full, 8, 4, 2, 1 rounds."""
    return {
        who: {TABLE2_ROWS[row["train"]]: [row[column] for column in _EVALUATED] for row in paper.table(table).rows}
        for who, table in _PRINTED.items()
    }  # fmt: skip


def task_words(profile: str = BOOK_PROFILE) -> str:
    """The task's sizes, and chance."""
    config = EXPERIMENTS[0].config(profile)
    symbols = config.vocab_size - 1
    return (
        f"Sequences of {config.seq_len:,} symbols, each of w one of {symbols}: chance is 1 in {symbols}, "
        f"{100 / symbols:.2g} percent. {config.n_layers} layer, chunks of {config.chunk_len}."
    )


def replication_words(paper: Paper) -> list[str]:
    """Where the replication comes out as the paper and where it does not, in printed numbers."""
    theirs, printed = (printed_grids(paper)[who] for who in ("the replication", "the paper"))
    columns = dict(zip(("full", *(f"lsh{rounds}" for rounds in ROUNDS)), range(len(_EVALUATED)), strict=True))
    own, full = (
        {name: theirs[name][columns[column or name]] for name in _HASHED} for column in (None, "full")
    )
    above = [name for name in _HASHED if full[name] > own[name]]
    lines = [
        "Trained and evaluated with the same rounds, "
        f"{_row_names(_HASHED)}: {listed(own.values())} percent in the replication, "
        f"{listed(printed[name][columns[name]] for name in _HASHED)} in the paper.",
        f"Trained with full attention, evaluated with LSH of {listed(ROUNDS)} rounds: "
        f"{listed(theirs['full'][1:])} percent in the replication, {listed(printed['full'][1:])} in the paper.",
        f"Trained as {_row_names(_HASHED)}, evaluated with full attention: {listed(full.values())} percent in the "
        f"replication, {listed(printed[name][0] for name in _HASHED)} in the paper.",
    ]
    if above:
        lines.append(f"With full attention {_row_names(above)} does better there than with its own rounds.")
    return lines


def _row_names(attentions: Iterable[str]) -> str:
    names = {attention: row for row, attention in TABLE2_ROWS.items()}
    return listed(names[attention] for attention in attentions)


# --- who learned ---------------------------------------------------------------------------------------------------


def learned(records: Records) -> list[str]:
    """What each model gets right as it was trained, and whether it had converged, in sentences."""
    lines = []
    for name, found in records.items():
        if not found:
            continue
        mean = 100 * fmean(_accuracy(record, own_evaluation(name)) for record in found)
        line = f"{LABELS[name]}: {mean:.4g} percent right, as it was trained; {converged_words(found)}"
        steps = [r.metric("steps_to_solve") for r in found if "steps_to_solve" in r.data["metrics"]]
        if steps:
            line += (
                f"; {len(steps)} of {len(found)} seeds met {100 * SOLVED:g} percent in validation, first after "
                f"{span_of(steps)} updates"
            )
        lines.append(line + ".")
    return lines or NO_RECORDS


def ceiling(records: Records) -> list[str]:
    """Where a model trained with full attention loses nothing that could be seen: it stays at the top under hashing."""
    found = records.get("full", ())
    if not found:
        return NO_RECORDS
    full, hashed = _percent(found, "full"), {rounds: _percent(found, f"lsh{rounds}") for rounds in ROUNDS}
    top = [rounds for rounds, percent in hashed.items() if min(full, percent) >= 100 * SOLVED]
    if not top:
        return [
            "With no number of rounds is the model that was trained with full attention at the top under hashing."
        ]
    said = listed(f"{hashed[rounds]:.2f} with {rounds}" for rounds in top)
    return [
        f"Trained with full attention, {full:.2f} percent are right with full attention, and under hashing {said} "
        "rounds: at this ceiling no loss is left to be seen, whatever hashing costs."
    ]


def trained_words(records: Records) -> list[str]:
    """Which kinds of full attention are trained so far, and what each model is evaluated with."""
    there, missing = _split(CONVENTIONS, records)
    if not there:
        return [f"Trained so far is none of the {len(CONVENTIONS)} kinds of full attention."]
    seeds = span_of([len(records[name]) for name in there])
    counted = f"{seeds} seed{'s' * (seeds != '1')}{' each' * (len(there) > 1)}"
    line = f"Trained so far: {len(there)} of {len(CONVENTIONS)} kinds, {counted}: {_names(there)}."
    if missing:
        line += f" Not yet: {_names(missing)}."
    return [
        line,
        "Each trained model is evaluated with keys of unit length or raw, with itself last or allowed, and with "
        "hashing; queries and keys that were trained apart stay apart, but for hashing, which takes the queries for "
        "both.",
    ]


def _split(names: Iterable[str], records: Records) -> tuple[list[str], list[str]]:
    """Those with records, and those without."""
    names = list(names)
    return [n for n in names if records.get(n)], [n for n in names if not records.get(n)]


def _names(names: Sequence[str]) -> str:
    """Models by their labels; a code of which all rows are meant by its own."""
    whole = {code for code in CODES if {n for n, (_, c) in CODE_MODELS.items() if c == code} <= set(names)}
    said = [
        CODES[CODE_MODELS[name][1]].label
        if name in CODE_MODELS and CODE_MODELS[name][1] in whole
        else _short(name)
        for name in names
    ]
    return "; ".join(dict.fromkeys(said))


# --- what the conventions decide ---------------------------------------------------------------------------------


class Parts(NamedTuple):
    """The first row and the first column of table 2 in percent; empty where they cannot be, or are not recorded."""

    row: tuple[float, ...]  # trained with full attention, evaluated with LSH of 8, 4, 2, 1 rounds
    column: tuple[float, ...]  # trained with LSH of 4, 2, 1 rounds, evaluated with full attention

    def distances(self, printed: Parts) -> Parts:
        """From printed numbers, cell by cell."""
        return Parts(*(_distances(ours, theirs) for ours, theirs in zip(self, printed, strict=True)))

    @property
    def is_whole(self) -> bool:
        """Whether both are there."""
        return bool(self.row and self.column)


def _distances(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    return tuple(abs(a - b) for a, b in zip(ours, theirs, strict=True)) if ours else ()


def printed_parts(paper: Paper) -> dict[str, Parts]:
    """As the paper and as the replication print them."""
    return {
        who: Parts(tuple(grid["full"][1:]), tuple(grid[name][0] for name in _HASHED))
        for who, grid in printed_grids(paper).items()
    }


def parts(records: Records) -> dict[str, Parts]:
    """Ours, by what "full attention" means, means over seeds; a model trained with LSH has no separate keys."""
    found = {}
    for name in CONVENTIONS:
        trained, hashed = records.get(name, ()), [records.get(rounds, ()) for rounds in _HASHED]
        can_be = name != "separate" and all(hashed)
        found[name] = Parts(
            tuple(_percent(trained, f"lsh{rounds}") for rounds in ROUNDS) if trained else (),
            tuple(_percent(some, name) for some in hashed) if can_be else (),
        )
    return found


def conventions_table(records: Records) -> Html:
    """First row and first column by every meaning of full attention, beside the printed ones."""
    columns = [
        "Full attention",
        f"First row: {listed(ROUNDS)} rounds",
        f"First column: {_row_names(_HASHED)}",
    ]
    printed = printed_parts(load_papers()[PAPER])
    columns += [f"Points from {who}: row, column" for who in printed]
    grid = Grid(plain("First row and column of table 2, in percent"), columns)
    for who, theirs in printed.items():
        grid.add(
            [plain(f"in print, {who}"), *(plain(_cells(part)) for part in theirs), plain(BLANK), plain(BLANK)]
        )
    for name, ours in parts(records).items():
        apart = [ours.distances(theirs) for theirs in printed.values()]
        shown = [", ".join(f"{fmean(part):.1f}" if part else BLANK for part in one) for one in apart]
        grid.add([plain(_short(name)), *(plain(_cells(part)) for part in ours), *map(plain, shown)])
    grid.notes = [
        plain(
            "Rows: trained with this attention, evaluated with LSH, which takes queries for keys where they were "
            "trained apart. Columns: trained with LSH, evaluated with this attention. Points are means over cells; a "
            f"kind is said to give printed numbers where it comes within {_MEETS:g} points of them."
        )
    ]
    return grid.render()


def conclusion(records: Records) -> list[str]:
    """Which meaning of full attention gives which printed numbers, in sentences."""
    said = _sentences(records)
    if not said:
        return NO_RECORDS
    return [*said.values(), *_apart(parts(records)["separate"]), *_open(records)]


def answer(records: Records) -> list[str]:
    """The conclusion in short: what is nearest to the paper and to the replication, and what that rests on."""
    said = _sentences(records)
    wanted = ("together, the paper", "column, the replication")
    found = _nearest("whole", "Whole grid", records) or [said[key] for key in wanted if key in said]
    return [*found, _rests_on(records)] if found else NO_RECORDS


def _rests_on(records: Records) -> str:
    """How many kinds and seeds the answer comes from, what is missing, and what had not converged."""
    there, missing = _split((*CONVENTIONS, *_HASHED, *CODE_MODELS), records)
    counts = [len(records[name]) for name in there]
    kinds = sum(name in CONVENTIONS for name in there)
    codes = {CODE_MODELS[name][1] for name in there if name in CODE_MODELS}
    few = f"{span_of(counts)} seed{'s' * (max(counts) > 1)} of each model"
    line = (
        f"This rests on {kinds} of {len(CONVENTIONS)} kinds of full attention, {len(codes)} of {len(CODES)} public "
        f"codes, {few}"
    )
    late = [name for name in there if not all(map(has_converged, records[name]))]
    if min(counts) > 1 and not missing and not late:
        return f"{line}; all of them had converged."
    doubts = [f"Not recorded yet: {_names(missing)}."] * bool(missing)
    doubts += [f"Not converged: {_names(late)}."] * bool(late)
    return " ".join([f"{line}, and may change.", *doubts])


def _sentences(records: Records) -> dict[str, str]:
    """By part and by who printed it; those without records are left out."""
    ours, said = parts(records), {}
    for who, theirs in printed_parts(load_papers()[PAPER]).items():
        apart = {name: one.distances(theirs) for name, one in ours.items()}
        for part in Parts._fields:
            points = {n: fmean(getattr(one, part)) for n, one in apart.items() if getattr(one, part)}
            if points:
                said[f"{part}, {who}"] = _met(who, part, getattr(theirs, part), points)
        whole = {n: fmean([*one.row, *one.column]) for n, one in apart.items() if one.is_whole}
        if len(whole) > 1:
            said[f"together, {who}"] = _together(who, whole, records)
    return said


def _met(who: str, part: str, printed: Sequence[float], apart: Mapping[str, float]) -> str:
    near = sorted(apart, key=apart.__getitem__)
    met = [name for name in near if apart[name] < _MEETS]
    said = [f"{_short(name)} ({apart[name]:.2g} points away on average)" for name in met or near[:1]]
    head = f"First {part} of {who}, {listed(printed)}:"
    if met:
        return f"{head} full attention of this kind gives it: {'; '.join(said)}."
    return f"{head} no kind of full attention here comes within {_MEETS:g} percentage points; nearest is {said[0]}."


def _together(who: str, apart: Mapping[str, float], records: Records) -> str:
    near = sorted(apart, key=apart.__getitem__)
    ranked = [
        f"{_short(name)} ({apart[name]:.2g} percentage points away on average; {_state(records[name])})"
        for name in near
    ]
    among = f"of {len(ranked)} kinds of full attention recorded for both, nearest is {ranked[0]}"
    return f"First row and column of {who} together: {among}; then {'; '.join(ranked[1:])}."


def _state(found: Sequence[Record]) -> str:
    """How many seeds, and whether they had converged."""
    late = sum(not has_converged(record) for record in found)
    some = f"{late} not converged" if late < len(found) else "not converged"
    return f"{n_seeds(len(found))}, {some if late else 'converged'}"


def _apart(ours: Parts) -> list[str]:
    if not ours.row:
        return []
    falls = max(ours.row) < 100 * CHANCE
    end = (
        "falls to chance under hashing, as theirs does; but by its code theirs shares them"
        if falls
        else "does not fall to chance under hashing; theirs does"
    )
    return [f"With separate queries and keys our model {end}."]


def _open(records: Records) -> list[str]:
    """What could still change the answer."""
    lines = []
    missing = [name for name in (*CONVENTIONS, *_HASHED) if not records.get(name)]
    if missing:
        lines.append(f"Not recorded yet, so that the answer may change: {listed(map(_short, missing))}.")
    ours = {name: records.get(name, ()) for name in ATTENTIONS}  # those of public code are compared apart
    late = {name: found for name, found in ours.items() if found and not all(map(has_converged, found))}
    if late:
        said = [f"{_short(name)}, {converged_words(found)}" for name, found in late.items()]
        lines.append(f"Counted as they are: {'; '.join(said)}.")
    return lines


# --- whole grids ---------------------------------------------------------------------------------------------------

Cells = Mapping[str, Sequence[float]]  # of table 2 in percent, by row; full attention, then 8, 4, 2, 1 rounds


class Conventions(NamedTuple):
    """What full attention and hashing mean, and the grid that comes of it."""

    label: str
    models: Mapping[str, str]  # of each row of table 2
    cells: Cells  # means over seeds, of those rows that are recorded

    @property
    def hashing(self) -> str:
        """What hashing means in it, which several kinds of full attention share."""
        return self.label.partition("; full: ")[0]


def grids(records: Records) -> list[Conventions]:
    """Table 2 by every set of conventions: hashing by the paper with four kinds of full attention, and by two codes.

    A model that was trained with LSH has no separate keys, so that kind of full attention has no column.
    """
    found = [
        _grid(f"the paper's hashing; full: {_short(kind)}", {"full": kind}, kind, records)
        for kind in CONVENTIONS
        if kind != "separate"
    ]
    for code, (label, *_) in CODES.items():
        models = {row: model for model, (row, name) in CODE_MODELS.items() if name == code}
        found.append(_grid(label, models, "full", records))
    return found


def _grid(label: str, models: Mapping[str, str], full: str, records: Records) -> Conventions:
    """The grid whose column of full attention is the evaluation `full`; `models` of the rows that are not their own."""
    models = {row: models.get(row, row) for row in TABLE2_ROWS.values()}
    columns = (full, *(f"lsh{rounds}" for rounds in ROUNDS))
    cells = {
        row: [_percent(records[model], column) for column in columns]
        for row, model in models.items()
        if records.get(model)
    }
    return Conventions(label, models, cells)


class Apart(NamedTuple):
    """Mean distance of a grid from a printed one in percentage points; None where a row is not recorded."""

    whole: float | None
    hashed: float | None  # of the cells that are hashed in training and in evaluation

    @classmethod
    def of(cls, ours: Cells, printed: Cells) -> Apart:
        """From the cells of both."""
        rows = {row: _distances(cells, printed[row]) for row, cells in ours.items()}
        hashed = [points for row, cells in rows.items() if row != "full" for points in cells[1:]]
        return cls(
            fmean(chain(*rows.values())) if len(rows) == len(printed) else None,
            fmean(hashed) if set(_HASHED) <= rows.keys() else None,
        )


def grids_table(records: Records) -> Html:
    """How far every set of conventions is from what is printed."""
    printed = printed_grids(load_papers()[PAPER])
    heads = [
        f"{who.removeprefix('the ').capitalize()}: {part}" for who in printed for part in ("all", "hashed")
    ]
    grid = Grid(
        plain("Whole grids of table 2: mean distance from either print, in percentage points"),
        ["Conventions", "Seeds", *heads],
    )
    for one in grids(records):
        apart = [Apart.of(one.cells, theirs) for theirs in printed.values()]
        shown = [BLANK if points is None else f"{points:.1f}" for pair in apart for points in pair]
        counts = [len(records.get(model, ())) for model in one.models.values()]
        seeds = span_of(counts) if any(counts) else BLANK
        grid.add([plain(one.label), plain(seeds), *map(plain, shown)])
    n_cells, n_hashed = len(_EVALUATED) * len(TABLE2_ROWS), len(ROUNDS) * len(_HASHED)
    grid.notes = [
        plain(
            f"All cells are {n_cells}; hashed are the {n_hashed} of models that were trained with LSH and are evaluated "
            "with it. Nothing is said of a part of which a row is not recorded."
        ),
        *(plain(f"{CODES[code].label.capitalize()}: {code_words(code)}.") for code in CODES),
    ]
    return grid.render()


def code_words(code: str) -> str:
    """What a code takes hashing and full attention for."""
    _, full, hashed = CODES[code]
    seen = {
        "paper": "among keys of one bucket, each pair counted once",
        "public": "among all keys of the window, a pair counted as often as it meets",
    }
    keys = "keys of unit length, and the same factor" if full.unit_keys else "keys at their lengths"
    return (
        f"hashing into one bucket for each chunk, {seen[hashed.convention]}, keys of unit length, and products times "
        f"1/sqrt(d_k) all the same; full attention with {keys}"
    )


def grids_words(records: Records) -> list[str]:
    """Which set of conventions is nearest to either print; what is missing, and what had not converged."""
    models = list(dict.fromkeys(model for one in grids(records) for model in one.models.values()))
    there, missing = _split(models, records)
    late = [name for name in there if not all(map(has_converged, records[name]))]
    lines = [*_nearest("whole", "Whole grid", records), *_nearest("hashed", "Hashed cells alone", records)]
    if missing:
        lines.append(f"Not recorded yet, so that this may change: {_names(missing)}.")
    if late:
        lines.append(f"Not converged: {_names(late)}.")
    return lines if there else NO_RECORDS


def expectations(records: Records) -> list[str]:
    """What the facts expected of models by public code beside what came; of words without a number nothing is judged."""
    theirs = printed_parts(load_papers()[PAPER])["the replication"]
    *_, replication, public = grids(records)
    lines = []
    if "full" in replication.cells:
        row = replication.cells["full"][1:]
        lines.append(
            f"By the replication's code, trained with full attention and evaluated with {listed(ROUNDS)} rounds: "
            f"{listed(_tenths(row))} percent, {listed(theirs.row)} in its print; {_by_chance(records, replication)}. "
            f"Expected was less with more rounds{_came(list(row) == sorted(row))}, and near chance: how near was not "
            "said beforehand, so it is not judged."
        )
    if set(_HASHED) <= replication.cells.keys():
        column = [replication.cells[row][0] for row in _HASHED]
        lines.append(
            f"By the replication's code, trained as {_row_names(_HASHED)} and evaluated with full attention: "
            f"{listed(_tenths(column))} percent, {listed(theirs.column)} in its print; "
            f"{_by_chance(records, replication)}. Expected was more than chance, here more than {100 * CHANCE:g} percent"
            f"{_came(min(column) > 100 * CHANCE)}, and well more: how much was not said beforehand, so it is not judged."
        )
    if len(public.cells) == len(TABLE2_ROWS):
        least = min(*public.cells["full"][1:], *(public.cells[row][0] for row in _HASHED))
        lines.append(
            f"By public code, first row and first column: {least:.1f} percent and more; {_by_chance(records, public)}. "
            f"Expected was that neither breaks, as less than half would{_came(least > 50)}."
        )
    return lines or NO_RECORDS


def _by_chance(records: Records, one: Conventions) -> str:
    """What a model that knows nothing gets right, and on how many seeds this rests."""
    counts = [len(records.get(model, ())) for model in one.models.values() if records.get(model)]
    symbols = EXPERIMENTS[0].config("cpu").vocab_size - 1  # one stands for the zeros
    return f"chance is {100 / symbols:.1f}; seeds of each model: {span_of(counts)}"


def _came(came: bool) -> str:
    """What became of an expectation, a clause."""
    return ", and so it came" if came else "; it did not come so"


def _tenths(values: Iterable[float]) -> list[str]:
    return [f"{value:.1f}" for value in values]


def _nearest(part: str, what: str, records: Records) -> list[str]:
    """For both who printed it the nearest set of conventions and the farthest, where there are several."""
    lines, found = [], grids(records)
    for who, theirs in printed_grids(load_papers()[PAPER]).items():
        apart = {
            one.label if part == "whole" else one.hashing: getattr(Apart.of(one.cells, theirs), part)
            for one in found
        }
        points = {label: value for label, value in apart.items() if value is not None}
        near = sorted(points, key=points.__getitem__)
        if near and points[near[0]] < points[near[-1]]:
            lines.append(
                f"{what}, {who}: of {len(near)} sets of conventions, nearest is {near[0]} ({points[near[0]]:.1f} "
                f"percentage points away on average); farthest is {near[-1]} ({points[near[-1]]:.1f})."
            )
    return lines


def _short(name: str) -> str:
    return LABELS[name].removeprefix("full attention: ")


def _cells(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values) or BLANK


def _percent(found: Sequence[Record], evaluation: str) -> float:
    return 100 * fmean(_accuracy(record, evaluation) for record in found)


def _accuracy(record: Record, evaluation: str) -> float:
    return record.metric(f"accuracy_{evaluation}")
