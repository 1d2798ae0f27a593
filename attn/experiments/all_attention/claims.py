"""Claims of the all-attention chapter, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from attn.experiments.all_attention.runs import FROM_MAXIMUM, LABELS, LONG, SWEEP, VARIANTS
from attn.experiments.all_attention.sizes import paper_sizes, span_sizes
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
_BITS = "bits per symbol"
_PAPER = "sukhbaatar2019allattn"
_UNVERIFIED = "; the paper's figure is from memory, unverified"


def bits(runs: Runs, model: str, task: str = "letters") -> float:
    """Cost of the validation text."""
    return runs[f"{task}/{model}"].metric("valid_bits")


def _ids(*models: str, task: str = "letters") -> tuple[str, ...]:
    return tuple(f"{task}/{model}" for model in dict.fromkeys(models))


def _learns(model: str, task: str = "letters") -> Control:
    experiment = f"{task}/{model}"
    return Control(
        statement="The model costs less than counts of pairs of symbols, so that it has learned from more context",
        difference=lambda runs: runs[experiment].metric("order1_bits") - bits(runs, model, task),
    )


def _margin() -> float:
    return load_papers()[_PAPER].margins["at_least_as_good"]["value"]


# --- a feed-forward layer replaced -----------------------------------------------------------------------------


def _removal_shows(task: str, end: str) -> Control:
    return Control(
        statement="Attention alone costs more than attention and feed-forward layers, and by more than the margin",
        difference=lambda runs: bits(runs, f"none{end}", task) - bits(runs, f"ff{end}", task) - _margin(),
    )


def _replaced(
    claim: str, model: str, *, base: str = "ff", task: str = "letters", end: str = "", headline: bool = False
) -> Claim:
    """`end` ends the names of the control's models."""
    text = "Bytes, validation bits" if task == "bytes" else "Validation bits"
    return Claim(
        id=f"ff_replaced_{claim}", fact="ff_replaced", kind="order", unit=_BITS, headline=headline,
        measure=f"{text}: {LABELS[base]} minus {LABELS[model]}, plus the margin of {_margin():g}",
        experiments=_ids(base, model, f"ff{end}", f"none{end}", task=task), control=_removal_shows(task, end),
        difference=lambda runs: bits(runs, base, task) - bits(runs, model, task) + _margin(),
    )  # fmt: skip


# --- how many vectors ------------------------------------------------------------------------------------------


def _costs_more(
    claim: str, fact: str, measure: str, dear: str, cheap: str, control: Control, *extra: str
) -> Claim:
    """Of figure 3, which is known from memory."""
    return Claim(
        id=claim, fact=fact, kind="order", unit=_BITS, measure=f"Validation bits: {measure}{_UNVERIFIED}",
        experiments=_ids(dear, cheap, *extra), control=control,
        difference=lambda runs: bits(runs, dear) - bits(runs, cheap),
    )  # fmt: skip


def falling(values: list[float]) -> float:
    """Rank correlation of costs with their place, with the sign turned: 1 where each is below the one before."""
    ranks = np.argsort(np.argsort(values))
    return -float(np.corrcoef(np.arange(len(values)), ranks)[0, 1])


_CAPACITY_SHOWS = Control(
    statement="Feed-forward layers are worth something at this budget: attention alone costs more than with them",
    difference=lambda runs: bits(runs, "none") - bits(runs, "ff"),
)
_NUMBER_SHOWS = Control(
    statement="The most vectors cost less than none",
    difference=lambda runs: bits(runs, "none") - bits(runs, "fourfold"),
)
_MONOTONE = (
    Claim(
        id="n_monotone_ranks",
        fact="n_monotone",
        kind="order",
        unit="rank correlation",
        measure=f"Validation bits over N, five values: rank correlation with the sign turned{_UNVERIFIED}",
        experiments=_ids(*SWEEP),
        difference=lambda runs: falling([bits(runs, model) for model in SWEEP]),
        control=_NUMBER_SHOWS,
    ),
    Claim(
        id="n_monotone_flattens",
        fact="n_monotone",
        kind="order",
        unit=_BITS,
        measure="Validation bits: what the first half of the vectors gain minus what eight times as many gain more"
        + _UNVERIFIED,
        experiments=_ids("none", "half", "fourfold"),
        difference=lambda runs: bits(runs, "none") - 2 * bits(runs, "half") + bits(runs, "fourfold"),
        control=_NUMBER_SHOWS,
    ),
)


# --- how they join -----------------------------------------------------------------------------------------------

_SMALL_SHOWS = Control(
    statement="Half as many vectors cost more, so that differences as small show at this budget",
    difference=lambda runs: bits(runs, "half") - bits(runs, "all"),
)
_JOINT = tuple(
    _costs_more(
        f"joint_beats_split_{variant}", "joint_beats_split", f"{LABELS[variant]} minus one softmax", variant, "all",
        _SMALL_SHOWS, "half",
    )
    for variant in VARIANTS
)  # fmt: skip


# --- arithmetic --------------------------------------------------------------------------------------------------


def _half_the_parameters(paper: Paper) -> bool:
    """On enwik8 the large models print the same cost, and ours of these sizes differ by almost a half."""
    rows = {row["model"]: row for row in paper.table("table1_enwik8").rows}
    own, other = (
        rows["All-attention network + adaptive span (36 layers)"],
        rows["Transformer + adaptive span (large)"],
    )
    share = paper_sizes("bytes", "large").total / span_sizes("bytes").total
    return own["test_bpb"] == other["test_bpb"] and 0.5 < share < 0.6


CLAIMS = (
    _replaced("deeper", "all", headline=True),
    _replaced("same_depth", "same_depth"),
    _replaced("equal_operations", "equal_flops"),
    _replaced("from_max", f"all{FROM_MAXIMUM}", base=f"ff{FROM_MAXIMUM}", end=FROM_MAXIMUM),
    _replaced("longer", f"all{LONG}", base=f"ff{LONG}", end=LONG),
    _replaced("bytes", "all", task="bytes"),
    _costs_more(
        "n_zero_poor_removed", "n_zero_poor", f"{LABELS['none']} minus {LABELS['ff']}", "none", "ff", _learns("ff"),
    ),
    _costs_more(
        "n_zero_poor_depth", "n_zero_poor", "no persistent vectors minus all of them, same depth", "none", "all",
        _CAPACITY_SHOWS, "ff",
    ),
    _costs_more(
        "n_zero_poor_parameters", "n_zero_poor", "a deeper model without vectors minus one with, equal parameters",
        "deep_none", "all", _CAPACITY_SHOWS, "ff", "none",
    ),
    *_MONOTONE,
    *_JOINT,
    Claim(
        id="half_the_params", fact="half_the_params", kind="arithmetic", holds=_half_the_parameters,
        measure="Printed bits of the two large models are equal, and parameters counted on ours are 0.5 to 0.6 as many",
    ),
)  # fmt: skip
