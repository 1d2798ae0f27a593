"""Claims of the Neural Turing Machine's chapter, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Mapping

from attn.evaluation.curves import curve_area
from attn.experiments.ntm.runs import LABELS, PAPER
from attn.experiments.ntm.tables import answer_cost, final_cost, parameters
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
_NTM, _FF, _LSTM = "copy/ntm_lstm", "copy/ntm_ff", "copy/lstm"
_MARGINS = {name: margin["value"] for name, margin in load_papers()[PAPER].margins.items()}
_UNHARMED = _MARGINS["copy_length_30"]  # bits per output bit
_COPIED_BEYOND = _MARGINS["copy_beyond"]  # bits per output bit
_LEARNED = _MARGINS["learned"]  # bits per output bit


# One rule: the model that is said to be better must itself have learned something; where a task is to be solved, the
# budget must go as far as the paper's curve takes. Controls that did not follow it were changed when runs were known.
_CHANGED = " (a control changed after the runs)"


def _learns(experiment: str, remark: str = "") -> Control:
    label = LABELS[experiment.rpartition("/")[2]]
    return Control(
        statement=f"The cost of the {label} falls between its first and last evaluation{remark}",
        difference=lambda runs: (
            runs[experiment].history[0]["bits_per_sequence"] - final_cost(runs[experiment])
        ),
    )


def _less(
    claim: str, measure: str, unit: str, larger: str | float, smaller: str, cost, control: Control, fact: str,
    *, headline: bool = False,
) -> Claim:  # fmt: skip
    """An order claim: `cost` of the records of `larger`, or `larger` itself if a level, minus that of `smaller`."""
    is_level = not isinstance(larger, str)
    return Claim(
        id=claim,
        fact=fact,
        kind="order",
        headline=headline,
        measure=measure,
        unit=unit,
        experiments=(smaller,) if is_level else (smaller, larger),
        difference=lambda runs: (larger if is_level else cost(runs[larger])) - cost(runs[smaller]),
        control=control,
    )


def _area(record: Record) -> float:
    return curve_area(record.history)


def _metric(name: str):
    return lambda record: record.metric(name)


# --- copy: headline claims, five seeds -----------------------------------------------------------------------


def _learned(experiment: str, who: str, size: str, what: str) -> Control:
    return Control(
        statement=f"The {who} has learned {what} to {_LEARNED:g} bits per output bit, a tenth of chance",
        difference=lambda runs: _LEARNED - runs[experiment].metric(f"bits_per_bit_at_{size}"),
    )


_NTM_LEARNED = _learned(_NTM, "NTM", "20", "the longest training length, 20,")


def _faster(claim: str, what: str, cost, ntm: str = _NTM, who: str = "NTM with LSTM controller") -> Claim:
    measure = f"{what}: LSTM minus {who}"
    control = _learns(ntm, _CHANGED)
    return _less(claim, measure, "bits per sequence", _LSTM, ntm, cost, control, "copy_faster", headline=True)


def _beyond(length: int) -> Claim:
    return _less(
        f"copy_generalises_{length}",
        f"Cost at length {length}, trained on 1 to 20: LSTM minus NTM with LSTM controller",
        "bits per output bit",
        _LSTM,
        _NTM,
        _metric(f"bits_per_bit_at_{length}"),
        _NTM_LEARNED,
        "copy_generalises",
        headline=True,
    )


def _copied_beyond(length: int) -> Claim:
    """Below the LSTM says little where the LSTM is no better than chance: what it costs in itself."""
    return _less(
        f"copy_generalises_{length}_kept",
        f"How far the NTM with LSTM controller stays below {_COPIED_BEYOND:g} bits per output bit at length {length} (a "
        "level written after the runs)",
        "bits per output bit",
        _COPIED_BEYOND,
        _NTM,
        _metric(f"bits_per_bit_at_{length}"),
        _NTM_LEARNED,
        "copy_generalises",
        headline=True,
    )


_AFTER = " (a test written after the runs)"
_FF_AFTER = f"NTM with feed-forward controller{_AFTER}"
_COPY = (
    _faster("copy_faster_area", "Mean cost over the learning curve", _area),
    _faster("copy_faster_final", "Cost at the end of the budget", final_cost),
    _faster("copy_faster_area_ff", "Mean cost over the learning curve", _area, _FF, _FF_AFTER),
    _faster("copy_faster_final_ff", "Cost at the end of the budget", final_cost, _FF, _FF_AFTER),
    *(_beyond(length) for length in (30, 50, 120)),
    *(_copied_beyond(length) for length in (50, 120)),
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
        control=_NTM_LEARNED,
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
        control=_learned(_LSTM, "LSTM", "20", "length 20, so that there is something to break,"),
    ),
)


# --- the other tasks: three seeds each ---------------------------------------------------------------------

_REPEAT_SOLVED = _MARGINS["repeat_copy_solved"]  # bits per sequence
_REPEATS_BEYOND = _MARGINS["repeat_copy_beyond"]  # bits per output bit
_RIGHT_ENDS = _MARGINS["repeat_copy_ends"]  # share of sequences
_RECALLED = _MARGINS["associative_recalled"]  # bits per answer


def _solves_repeat_copy(kind: str) -> Claim:
    return _less(
        f"repeat_both_solve_{kind}",
        f"How far the {LABELS[kind]} ends below {_REPEAT_SOLVED:g} bit per sequence, which counts as solved",
        "bits per sequence",
        _REPEAT_SOLVED,
        f"repeat_copy/{kind}",
        final_cost,
        _as_long_as_the_paper(kind),
        "repeat_both_solve",
    )


def _as_long_as_the_paper(kind: str) -> Control:
    """How many readings of the paper's curve lie at its floor, which is the least of them, within the run's budget."""
    readings = [
        (1000 * row["k"], row[kind]) for row in load_papers()[PAPER].table("fig7_repeat_copy_curves").rows
    ]
    floor = min(cost for _, cost in readings)
    return Control(
        statement=f"Within the budget the paper's curve of the {LABELS[kind]} comes to its floor; counted are its "
        f"readings there{_CHANGED}",
        difference=lambda runs: sum(
            cost <= floor and seen <= runs[f"repeat_copy/{kind}"].history[-1]["seen"]
            for seen, cost in readings
        ),
    )


def _repeats_faster(kind: str) -> Claim:
    return _less(
        f"repeat_both_solve_faster_{kind}",
        f"Mean cost over the learning curve: LSTM minus {LABELS[kind]}{_AFTER}",
        "bits per sequence",
        "repeat_copy/lstm",
        f"repeat_copy/{kind}",
        _area,
        _learns(f"repeat_copy/{kind}"),
        "repeat_both_solve",
    )


_REPEAT_LEARNED = _learned("repeat_copy/ntm_lstm", "NTM", "10x10", "the largest training size, 10x10,")


def _repeats_beyond(claim: str, size: str, what: str) -> tuple[Claim, Claim]:
    """The NTM at a size beyond training: it costs less than the LSTM, and little in itself."""
    name = f"bits_per_bit_at_{size}"
    less = _less(
        f"repeat_both_solve_{claim}",
        f"Cost at twice the longest training {what} ({size}): LSTM minus NTM with LSTM controller",
        "bits per output bit",
        "repeat_copy/lstm",
        "repeat_copy/ntm_lstm",
        _metric(name),
        _REPEAT_LEARNED,
        "repeat_both_solve",
    )
    little = _less(
        f"repeat_both_solve_{claim}_kept",
        f"How far the NTM with LSTM controller stays below {_REPEATS_BEYOND:g} bits per output bit at twice the longest "
        f"training {what} ({size})",
        "bits per output bit",
        _REPEATS_BEYOND,
        "repeat_copy/ntm_lstm",
        _metric(name),
        _REPEAT_LEARNED,
        "repeat_both_solve",
    )
    return less, little


_REPEAT = (
    *(_repeats_faster(kind) for kind in ("ntm_lstm", "ntm_ff")),
    *(_solves_repeat_copy(kind) for kind in ("ntm_lstm", "ntm_ff", "lstm")),
    *_repeats_beyond("length", "20x10", "length"),
    *_repeats_beyond("repeats", "10x20", "number of repeats"),
    Claim(
        id="repeat_both_solve_no_end",
        fact="repeat_both_solve",
        kind="order",
        measure="Share of sequences whose end the NTM with LSTM controller marks rightly: at 10 repeats, its largest "
        "training number, minus at 20",
        unit="share of sequences",
        experiments=("repeat_copy/ntm_lstm",),
        difference=lambda runs: (
            runs["repeat_copy/ntm_lstm"].metric("right_ends_at_10x10")
            - runs["repeat_copy/ntm_lstm"].metric("right_ends_at_10x20")
        ),
        control=Control(
            statement=f"At 10 repeats it marks more than {_RIGHT_ENDS:.0%} of the ends rightly",
            difference=lambda runs: runs["repeat_copy/ntm_lstm"].metric("right_ends_at_10x10") - _RIGHT_ENDS,
        ),
    ),
)

_ASSOCIATIVE = (
    _less(
        "assoc_order_controllers",
        "Mean cost over the learning curve: NTM with LSTM controller minus NTM with feed-forward controller",
        "bits per sequence",
        "associative/ntm_lstm",
        "associative/ntm_ff",
        _area,
        _learns("associative/ntm_ff"),
        "assoc_order",
    ),
    _less(
        "assoc_order_lstm",
        "Mean cost over the learning curve: LSTM minus NTM with LSTM controller",
        "bits per sequence",
        "associative/lstm",
        "associative/ntm_lstm",
        _area,
        _learns("associative/ntm_lstm"),
        "assoc_order",
    ),
    _less(
        "assoc_order_12_items",
        "How far the NTM with feed-forward controller stays below "
        f"{_RECALLED:g} bit per answer at 12 items, twice the most in training",
        "bits per answer",
        _RECALLED,
        "associative/ntm_ff",
        lambda record: answer_cost(record, 12),
        Control(
            statement=f"It stays below {_RECALLED:g} bit at 6 items, the most in training",
            difference=lambda runs: _RECALLED - answer_cost(runs["associative/ntm_ff"], 6),
        ),
        "assoc_order",
    ),
)


def _gain_from_context(record: Record) -> float:
    return record.metric("context_free_bits_per_sequence") - record.metric("bits_per_sequence")


def _uses_context(who: str, *kinds: str, remark: str = "") -> Control:
    return Control(
        statement=f"The {who} costs less than the best estimator that ignores the context{remark}",
        difference=lambda runs: max(_gain_from_context(runs[f"ngrams/{kind}"]) for kind in kinds),
    )


def _between(kind: str) -> Claim:
    return _less(
        f"ngram_between_{kind}",
        f"Cost after the last update, on the same validation sequences: LSTM minus {LABELS[kind]}",
        "bits per sequence",
        "ngrams/lstm",
        f"ngrams/{kind}",
        _metric("bits_per_sequence"),
        _uses_context(LABELS[kind], kind, remark=_CHANGED),
        "ngram_between",
    )


_NGRAMS = (
    _between("ntm_lstm"),
    _between("ntm_ff"),
    Claim(
        id="ngram_between_not_optimal",
        fact="ngram_between",
        kind="order",
        measure="Cost above that of the optimal estimator on the same validation sequences, of the better NTM",
        unit="bits per sequence",
        experiments=("ngrams/ntm_lstm", "ngrams/ntm_ff"),
        difference=lambda runs: min(
            runs[f"ngrams/{kind}"].metric("bits_above_optimal") for kind in ("ntm_lstm", "ntm_ff")
        ),
        control=_uses_context("better NTM", "ntm_lstm", "ntm_ff"),
    ),
)


def _sorts(kind: str, task: str = "priority_sort", how: str = "") -> Claim:
    return _less(
        f"sort_order{task.removeprefix('priority_sort')}_{kind}",
        f"Cost at the end of the budget{how}: LSTM minus {LABELS[kind]}",
        "bits per sequence",
        f"{task}/lstm",
        f"{task}/{kind}",
        final_cost,
        _learns(f"{task}/{kind}", _CHANGED),
        "sort_order",
    )


_ONE = ", one sequence an update"
# What must be known of these tests beside their numbers; the page says more.
_AFTER_16 = f"{_ONE} (added when runs with 16 were known; the LSTM's learning rate rests on one seed)"
_SORT = (
    _sorts("ntm_lstm"),
    _sorts("ntm_ff"),
    _sorts("ntm_lstm", "priority_sort_batch1", _AFTER_16),
    _sorts("ntm_ff", "priority_sort_batch1", _AFTER_16),
    _less(
        "sort_order_heads",
        f"Cost at the end of the budget{_ONE}, feed-forward controller: one read and one write head minus eight of each",
        "bits per sequence",
        "priority_sort_one_head/ntm_ff",
        "priority_sort_batch1/ntm_ff",
        final_cost,
        _learns("priority_sort_batch1/ntm_ff"),
        "sort_order",
    ),
)

_SIZES = (
    Claim(
        id="params_independent_of_n",
        fact="params_independent_of_n",
        kind="arithmetic",
        measure="Parameter count of the model of every row of tables 1 and 2 with 128 and with 256 memory locations",
        holds=lambda paper: all(
            parameters(kind)(row) == parameters(kind)({**row, "memory": row["memory"].replace("128", "256")})
            for table, kind in (("table1_ntm_ff", "ntm_ff"), ("table2_ntm_lstm", "ntm_lstm"))
            for row in paper.table(table).rows
        ),
    ),
)


CLAIMS = (*_COPY, *_REPEAT, *_ASSOCIATIVE, *_NGRAMS, *_SORT, *_SIZES)
