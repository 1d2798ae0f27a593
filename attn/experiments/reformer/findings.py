"""What chapter 2 finds on table 2: what breaks its first column and row, what departures do, and what stays open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from attn.experiments.reformer.convergence import converged_words, has_converged, span_of
from attn.experiments.reformer.runs import ATTENTIONS, CODE_MODELS, CODES, LABELS, PAPER, VARIANTS
from attn.experiments.reformer.table2 import (
    CONVENTIONS,
    EVALUATED,
    HASHED,
    NO_RECORDS,
    Records,
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
from attn.experiments.reformer.whole_grids import Apart, grids, ranked
from attn.experiments.reformer.words import came, listed, n_seeds, tenths
from attn.experiments.reformer.workloads import ROUNDS
from attn.reproduction.facts import load_papers

_MARGINS = {name: margin["value"] for name, margin in load_papers()[PAPER].margins.items()}
# Less than this share right, in percent, and an evaluation has broken what a model learned.
BREAKS = 100 * _MARGINS["convention_breaks"]
# What may differ between kinds of full attention, where it is not as in LSH attention.
_DEPARTURES = {
    "self_last": "a token may attend to itself",
    "unit_keys": "keys keep their lengths",
    "shared_qk": "queries and keys are apart",
}
_PARTS = {
    "column": "First column, trained with LSH and evaluated with full attention",
    "row": "First row, trained with full attention and evaluated with LSH",
}
Values = Mapping[str, Sequence[float]]  # percent right, by kind of full attention or by code


def answer(records: Records) -> list[str]:
    """What of table 2 reproduces, by which conventions, and what that rests on, in a few sentences."""
    found = [*_hashed_words(records), *_column_words(records), *_nearest_words(records)]
    if not found:
        return NO_RECORDS
    first, *others = found
    return [f"Table 2 (copying 0w0w; percent of symbols right): {first}", *others, rests_on(records)]


def _hashed_words(records: Records) -> list[str]:
    """How far models trained and evaluated with LSH are from the paper."""
    ours, printed = grids(records)[0].cells, printed_grids(load_papers()[PAPER])["the paper"]
    points = Apart.of(ours, printed).hashed
    if points is None:
        return []
    own = {name: EVALUATED.index(f"eval_{name}") for name in HASHED}
    return [
        f"trained and evaluated with LSH, models are {points:.1f} points from the paper on average over "
        f"{len(ROUNDS) * len(HASHED)} cells; {row_names(HASHED)} with the rounds of their training: "
        f"{tenths(ours[name][at] for name, at in own.items())} here, "
        f"{tenths(printed[name][at] for name, at in own.items())} in the paper."
    ]


def _column_words(records: Records) -> list[str]:
    found = _by_kind("column", records)
    return [f"{_head('column')}: {_breaking(found)}."] if found else []


def _nearest_words(records: Records) -> list[str]:
    """Which set of conventions is nearest to the whole of either print."""
    said, count = [], 0
    for who, points in ranked("whole", records).items():
        (near, least), *_ = points.items()
        count = len(points)
        said.append(f"nearest to {who} is {near} ({least:.1f} points away on average)")
    return [f"All cells together, of {count} sets of conventions: {'; '.join(said)}."] if said else []


# --- what breaks -------------------------------------------------------------------------------------------------


def broken_words(records: Records) -> list[str]:
    """Which kinds of full attention break the first column and the first row, and whether public code does."""
    lines = [f"{_head(part)}: {_breaking(found)}." for part in _PARTS if (found := _by_kind(part, records))]
    lines += _codes(records)
    return [*lines, f"Broken means less than {BREAKS:g} percent right."] if lines else []


def _head(part: str) -> str:
    printed = printed_parts(load_papers()[PAPER])["the paper"]
    return f"{_PARTS[part]}, {listed(getattr(printed, part))} percent in the paper"


def _by_kind(part: str, records: Records) -> Values:
    """The first row or column by kind of full attention, of those that are recorded."""
    return {kind: getattr(one, part) for kind, one in parts(records).items() if getattr(one, part)}


def _breaking(found: Values) -> str:
    """What breaks, as one departure if there is one that tells all kinds apart, else by name."""
    broken = [kind for kind, values in found.items() if max(values) < BREAKS]
    in_part = [kind for kind, values in found.items() if min(values) < BREAKS <= max(values)]
    others = [kind for kind in found if kind not in (*broken, *in_part)]
    if not broken and not in_part:
        return f"by the paper's hashing no kind of full attention breaks it ({_range(found, others)} percent right)"
    cause = None if in_part else _cause(broken, others)
    if cause is not None:
        where = f"it breaks where {cause}, and only there"
    else:
        where = f"it breaks under {_kinds(broken) or 'none'}"
        where += f", in part under {_kinds(in_part)}" if in_part else ""
    rest = f"; otherwise {_range(found, others)}" if others else ""
    return f"by the paper's hashing {where} ({_range(found, broken + in_part)} percent right{rest})"


def _cause(broken: Sequence[str], others: Sequence[str]) -> str | None:
    """The one departure that all broken kinds have and no other kind, in words; None if there is none, or several."""
    if not broken or not others:
        return None
    causes = [
        words
        for name, words in _DEPARTURES.items()
        if not any(getattr(ATTENTIONS[kind], name) for kind in broken)
        and all(getattr(ATTENTIONS[kind], name) for kind in others)
    ]
    return causes[0] if len(causes) == 1 else None


def _kinds(kinds: Sequence[str]) -> str:
    return "; ".join(map(short, kinds))


def _range(found: Values, kinds: Sequence[str]) -> str:
    values = [value for kind in kinds for value in found[kind]]
    low, high = (f"{value:.1f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _codes(records: Records) -> list[str]:
    """Of every public code with all rows: what it breaks."""
    lines = []
    for code, one in zip(CODES, grids(records)[-len(CODES) :], strict=True):
        if set(HASHED) | {"full"} <= one.cells.keys():
            found = {"row": one.cells["full"][1:], "column": [one.cells[row][0] for row in HASHED]}
            states = [
                f"first {part} {_state(values)} ({tenths(values)} percent)" for part, values in found.items()
            ]
            lines.append(f"By {CODES[code].label}: {', '.join(states)}.")
    return lines


def _state(values: Sequence[float]) -> str:
    if max(values) < BREAKS:
        return "broken"
    return "not broken" if min(values) >= BREAKS else "broken in part"


def rests_on(records: Records) -> str:
    """How many kinds and seeds the answer comes from, what is missing, and how many had not converged."""
    there, missing = recorded_or_not((*CONVENTIONS, *HASHED, *CODE_MODELS), records)
    counts = [len(records[name]) for name in there]
    kinds = sum(name in CONVENTIONS for name in there)
    codes = {CODE_MODELS[name][1] for name in there if name in CODE_MODELS}
    few = f"{span_of(counts)} seed{'s' * (max(counts) > 1)} of each model"
    line = (
        f"This rests on {kinds} of {len(CONVENTIONS)} kinds of full attention, {_both_codes(len(codes))}, "
        f"{few}"
    )
    late = [name for name in there if not all(map(has_converged, records[name]))]
    if min(counts) > 1 and not missing and not late:
        return f"{line}; all of them had converged."
    doubts = [f"Not recorded yet: {named(missing)}."] * bool(missing)
    doubts += [f"Of {len(there)} models {len(late)} had not converged with all seeds."] * bool(late)
    return " ".join([f"{line}, and may change.", *doubts])


def _both_codes(count: int) -> str:
    return "both public codes" if count == len(CODES) == 2 else f"{count} of {len(CODES)} public codes"


# --- single departures of the replication's code ------------------------------------------------------------------


def departures_words(records: Records) -> list[str]:
    """What of the replication's hashing breaks the first column, what fixed rotations do, and what was expected."""
    lines = [*_factor_or_buckets(records), *(line for name in _FIXED for line in _fixed(name, records))]
    missing = [name for name in VARIANTS if not records.get(name)]
    if missing:
        lines.append(f"Not recorded yet: {'; '.join(LABELS[name] for name in missing)}.")
    return lines


_FIXED = ("lsh1_fixed", "lsh2_fixed")
_ALONE = {
    "lsh2": "neither",
    "lsh2_scaled": "the factor alone",
    "lsh2_one_bucket": "one bucket for each chunk alone",
    "lsh2_replication": "both",
}


def _factor_or_buckets(records: Records) -> list[str]:
    """The first column's cell of the model of 2 rounds, with either departure, with both and with neither."""
    there = {name: percent_right(records[name], "full_raw_keys") for name in _ALONE if records.get(name)}
    if not {"lsh2_scaled", "lsh2_one_bucket"} & there.keys():
        return []
    said = [
        f"{_ALONE[name]} {value:.1f} ({_seeds_and_state(records[name])})" for name, value in there.items()
    ]
    line = (
        "Of what the replication's hashing does otherwise than the paper, a model of 2 rounds, evaluated with full "
        f"attention with raw keys, percent right: with {'; with '.join(said)}."
    )
    verdicts = {
        "lsh2_scaled": f"With the factor alone less than {BREAKS:g} was expected",
        "lsh2_one_bucket": f"With one bucket alone more than {BREAKS:g} was expected",
    }
    as_expected = {
        "lsh2_scaled": there.get("lsh2_scaled", 0) < BREAKS,
        "lsh2_one_bucket": there.get("lsh2_one_bucket", 0) > BREAKS,
    }
    return [
        line,
        *(f"{words}{came(as_expected[name])}." for name, words in verdicts.items() if name in there),
    ]


def _fixed(name: str, records: Records) -> list[str]:
    """A model whose calls and heads hash alike, beside the same model with new rotations and the replication's row."""
    row = VARIANTS[name].row
    anew, found = records.get(f"{row}_replication", ()), records.get(name, ())
    if not anew or not found:
        return []
    printed = printed_grids(load_papers()[PAPER])["the replication"][row][1:]
    ours, before = ([percent_right(some, f"lsh{rounds}") for rounds in ROUNDS] for some in (found, anew))
    lost = losses(anew, found, row)
    line = (
        f"{LABELS[name]}: with {listed(ROUNDS)} rounds {tenths(ours)} percent ({_seeds_and_state(found)}); with new "
        f"rotations {tenths(before)}; in the replication's print {tenths(printed)}, from which it is "
        f"{_distance(ours, printed):.1f} points away on average, with new rotations {_distance(before, printed):.1f}."
    )
    if not lost:
        return [line]
    loss = f"With the rounds of its training it loses {fmean(lost):.1f} points ({n_seeds(len(lost))} of both)"
    if name == "lsh1_fixed":
        least = 100 * _MARGINS["fixed_rotations"]
        loss += f"; at least {least:g} were expected{came(fmean(lost) >= least)}"
        nearer = _distance(ours, printed) < _distance(before, printed)
        loss += f"; a row nearer to the print was expected{came(nearer)}"
    return [line, f"{loss}."]


def losses(anew: Sequence, fixed: Sequence, row: str) -> list[float]:
    """Percentage points that fixed rotations lose under the attention of the training, for every seed of both."""
    before = {record.seed: share_right(record, row) for record in anew}
    return [100 * (before[r.seed] - share_right(r, row)) for r in fixed if r.seed in before]


def _distance(ours: Sequence[float], printed: Sequence[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(ours, printed, strict=True))


def _seeds_and_state(found: Sequence) -> str:
    return f"{n_seeds(len(found))}, {converged_words(found)}"


# --- what stays open ---------------------------------------------------------------------------------------------


def open_words(records: Records) -> list[str]:
    """Whether the replication's own conventions explain its hashed cells better than the paper's hashing does."""
    printed = printed_grids(load_papers()[PAPER])["the replication"]
    by_paper, (theirs, _) = grids(records)[0], grids(records)[-len(CODES) :]
    points = [Apart.of(one.cells, printed).hashed for one in (theirs, by_paper)]
    if None in points:
        return NO_RECORDS
    own, other = points
    count = len(ROUNDS) * len(HASHED)
    verdict = "do not explain these rows" if own >= other else "explain these rows better, not wholly"
    rows = {row: _distance(theirs.cells[row][1:], printed[row][1:]) for row in HASHED}
    far = max(rows, key=rows.__getitem__)
    return [
        f"Of the replication's {count} hashed cells, models by its own conventions are {own:.1f} percentage points away "
        f"on average, models by the paper's hashing {other:.1f}: its conventions {verdict}. Farthest is the row "
        f"{row_names([far])}, with {listed(ROUNDS)} rounds {tenths(theirs.cells[far][1:])} percent here and "
        f"{tenths(printed[far][1:])} in its print."
    ]
