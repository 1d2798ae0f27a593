"""What chapter 2 says of memory, of the task, and of what full attention may mean, from facts and records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from attn.experiments.reformer.concepts import BATCH, LARGEST_LAYER, LENGTH, memory_amounts, stated
from attn.experiments.reformer.convergence import CHANCE, converged_words, has_converged, span_of
from attn.experiments.reformer.runs import ATTENTIONS, EXPERIMENTS, LABELS, PAPER, own_evaluation
from attn.experiments.reformer.table2 import (
    CONVENTIONS,
    EVALUATED,
    HASHED,
    NO_RECORDS,
    Parts,
    Records,
    in_a_row,
    named,
    parts,
    percent_right,
    printed_grids,
    printed_parts,
    recorded_or_not,
    row_names,
    share_right,
    short,
)
from attn.experiments.reformer.words import listed, n_seeds
from attn.experiments.reformer.workloads import ROUNDS, SOLVED
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.grid import BLANK, Grid, Html, plain
from attn.reproduction.records import Record

# A convention meets printed numbers where it comes within so many percentage points, on average.
_MEETS = 5.0


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
    columns = dict(zip(("full", *(f"lsh{rounds}" for rounds in ROUNDS)), range(len(EVALUATED)), strict=True))
    own, full = (
        {name: theirs[name][columns[column or name]] for name in HASHED} for column in (None, "full")
    )
    above = [name for name in HASHED if full[name] > own[name]]
    lines = [
        "Trained and evaluated with the same rounds, "
        f"{row_names(HASHED)}: {listed(own.values())} percent in the replication, "
        f"{listed(printed[name][columns[name]] for name in HASHED)} in the paper.",
        f"Trained with full attention, evaluated with LSH of {listed(ROUNDS)} rounds: "
        f"{listed(theirs['full'][1:])} percent in the replication, {listed(printed['full'][1:])} in the paper.",
        f"Trained as {row_names(HASHED)}, evaluated with full attention: {listed(full.values())} percent in the "
        f"replication, {listed(printed[name][0] for name in HASHED)} in the paper.",
    ]
    if above:
        lines.append(f"With full attention {row_names(above)} does better there than with its own rounds.")
    return lines


# --- who learned ---------------------------------------------------------------------------------------------------


def learned(records: Records) -> list[str]:
    """What each model gets right as it was trained, and whether it had converged, in sentences."""
    lines = []
    for name, found in records.items():
        if not found:
            continue
        mean = 100 * fmean(share_right(record, own_evaluation(name)) for record in found)
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
    full, hashed = (
        percent_right(found, "full"),
        {rounds: percent_right(found, f"lsh{rounds}") for rounds in ROUNDS},
    )
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
    there, missing = recorded_or_not(CONVENTIONS, records)
    if not there:
        return [f"Trained so far is none of the {len(CONVENTIONS)} kinds of full attention."]
    seeds = span_of([len(records[name]) for name in there])
    counted = f"{seeds} seed{'s' * (seeds != '1')}{' each' * (len(there) > 1)}"
    line = f"Trained so far: {len(there)} of {len(CONVENTIONS)} kinds, {counted}: {named(there)}."
    if missing:
        line += f" Not yet: {named(missing)}."
    return [
        line,
        "Each trained model is evaluated with keys of unit length or raw, with itself last or allowed, and with "
        "hashing; queries and keys that were trained apart stay apart, but for hashing, which takes the queries for "
        "both.",
    ]


# --- what the conventions decide ---------------------------------------------------------------------------------


def conventions_table(records: Records) -> Html:
    """First row and first column by every meaning of full attention, beside the printed ones."""
    columns = [
        "Full attention",
        f"First row: {listed(ROUNDS)} rounds",
        f"First column: {row_names(HASHED)}",
    ]
    printed = printed_parts(load_papers()[PAPER])
    columns += [f"Points from {who}: row, column" for who in printed]
    grid = Grid(plain("First row and column of table 2, in percent"), columns)
    for who, theirs in printed.items():
        grid.add(
            [
                plain(f"in print, {who}"),
                *(plain(in_a_row(part)) for part in theirs),
                plain(BLANK),
                plain(BLANK),
            ]
        )
    for name, ours in parts(records).items():
        apart = [ours.distances(theirs) for theirs in printed.values()]
        shown = [", ".join(f"{fmean(part):.1f}" if part else BLANK for part in one) for one in apart]
        grid.add([plain(short(name)), *(plain(in_a_row(part)) for part in ours), *map(plain, shown)])
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
    said = [f"{short(name)} ({apart[name]:.2g} points away on average)" for name in met or near[:1]]
    head = f"First {part} of {who}, {listed(printed)}:"
    if met:
        return f"{head} full attention of this kind gives it: {'; '.join(said)}."
    return f"{head} no kind of full attention here comes within {_MEETS:g} percentage points; nearest is {said[0]}."


def _together(who: str, apart: Mapping[str, float], records: Records) -> str:
    near = sorted(apart, key=apart.__getitem__)
    ranked = [
        f"{short(name)} ({apart[name]:.2g} percentage points away on average; {_state(records[name])})"
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
    missing = [name for name in (*CONVENTIONS, *HASHED) if not records.get(name)]
    if missing:
        lines.append(f"Not recorded yet, so that the answer may change: {listed(map(short, missing))}.")
    ours = {name: records.get(name, ()) for name in ATTENTIONS}  # those of public code are compared apart
    late = {name: found for name, found in ours.items() if found and not all(map(has_converged, found))}
    if late:
        said = [f"{short(name)}, {converged_words(found)}" for name, found in late.items()]
        lines.append(f"Counted as they are: {'; '.join(said)}.")
    return lines
