"""Claims of the chapter on adaptive spans, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log2
from typing import NamedTuple

import numpy as np

from attn.experiments.adaptive_span.runs import PAPER, model_label
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
Difference = Callable[[Runs], float]


class Family(NamedTuple):
    """Runs on one text that claims compare."""

    task: str
    text: str
    fixed: tuple[str, ...]  # models with fixed spans, by limit, whose adaptive twins there are
    adaptive: tuple[str, ...]
    from_max: tuple[str, str]  # fixed, and adaptive with spans that start at the same limit
    short: str  # the control's fixed span
    widest: str  # the adaptive model with the largest limit
    dynamic: str
    margin: str  # of equal bits, and of what more context has to be worth
    leads: bool = False  # whether the chapter's headline claims are judged on it
    first_from_max: str = ""  # adaptive, the smallest limit, from there; "" for none
    clipped: str = ""  # ends the names of runs whose tensors are clipped one by one, as in print; "" for none

    def experiment(self, name: str) -> str:
        return f"{self.task}/{name}"


FAMILIES = (
    Family(
        "limit", "27 characters", ("fixed_quarter", "fixed_half", "fixed_whole"),
        ("adaptive_quarter", "adaptive_half", "adaptive_whole"), ("fixed_whole", "adaptive_whole_from_max"),
        "fixed_short", "adaptive_fourfold", "dynamic_whole", "text_bits",
    ),
    Family(
        "copies", "text of known entropy", ("fixed_64", "fixed_128", "fixed_256", "fixed_512"),
        ("adaptive_64", "adaptive_128", "adaptive_256", "adaptive_512"), ("fixed_512", "adaptive_512_from_max"),
        "fixed_32", "adaptive_512", "dynamic_512", "copies_bits", leads=True, first_from_max="adaptive_64_from_max",
        clipped="_per_tensor",
    ),
)  # fmt: skip
_BITS = "bits per symbol"


def _margin(name: str) -> float:
    return load_papers()[PAPER].margins[name]["value"]


def _bits(record: Record) -> float:
    return record.metric("valid_bits")


def _less_bits(family: Family, larger: str, smaller: str) -> Difference:
    return lambda runs: _bits(runs[family.experiment(larger)]) - _bits(runs[family.experiment(smaller)])


def context_worth(family: Family) -> Difference:
    """Bits that the largest fixed span gains on the control's."""
    return _less_bits(family, family.short, family.fixed[-1])


def _more_context(family: Family) -> Control:
    """The text pays for context at this budget."""
    worth, difference = _margin(family.margin), context_worth(family)
    return Control(
        statement=f"{family.text.capitalize()}: the {model_label(family.fixed[-1])}, is better than a fixed span of 32 "
        f"tokens by more than {worth:g} bits",
        difference=lambda runs: difference(runs) - worth,
    )


def _uses_context(family: Family, *names: str) -> Control:
    """The text pays for context, and these models have found as much of it themselves.

    A model that looks no farther than it could before the first update has short spans for no reason that a claim could
    be about. Of a seed the least gain counts: where the mean of these is above 0, so is the mean of every gain.
    """
    more, worth = _more_context(family), _margin(family.margin)
    gains = [_less_bits(family, family.short, name) for name in names]
    found = " and ".join(model_label(name) for name in names)
    return Control(
        statement=f"{more.statement}; and so {'is' if len(names) == 1 else 'are'} what is judged, {found} (of each seed "
        "the least of these gains)",
        difference=lambda runs: min(more.difference(runs), *(gain(runs) - worth for gain in gains)),
    )


def _claim(
    family: Family, ending: str, fact: str, measure: str, names: tuple[str, ...], difference: Difference,
    *, unit: str = _BITS, margin: str | None = None, headline: bool = False, control: Control | None = None,
) -> Claim:  # fmt: skip
    """A claim on a family; its control is that the text pays for context, unless another is given."""
    compared = dict.fromkeys((*names, family.short, family.fixed[-1]))
    return Claim(
        id=f"{fact}{ending}_{family.task}", fact=fact, kind="order" if margin is None else "equality", unit=unit,
        measure=f"{family.text.capitalize()}: {measure}", margin=margin, difference=difference, headline=headline,
        experiments=tuple(map(family.experiment, compared)), control=control or _more_context(family),
    )  # fmt: skip


# --- spans stay short, at no loss ------------------------------------------------------------------------------


def _far_below(family: Family, name: str, ending: str, control: Control | None = None) -> Claim:
    experiment = family.experiment(name)

    def difference(runs: Runs) -> float:
        record = runs[experiment]
        return record.data["config"]["model"]["max_span"] / 4 - record.metric("mean_span")

    measure = f"a quarter of the limit minus the mean span: {model_label(name)}"
    return _claim(family, ending, "span_far_below_limit", measure, (name,), difference,
                  unit="tokens", headline=family.leads, control=control)  # fmt: skip


def _no_worse(
    family: Family, ending: str, fact: str, fixed: str, name: str, *, headline: bool = False
) -> Claim:
    margin, difference = _margin(family.margin), _less_bits(family, fixed, name)
    measure = f"bits of {model_label(fixed)}, minus {model_label(name)}, plus the margin of {margin:g}"
    if fact == "span_far_below_limit" and (fixed, name) in _shared(family):
        measure += "; it stands for the claim on each S, too"
    return _claim(family, ending, fact, measure, (fixed, name), lambda runs: difference(runs) + margin,
                  headline=headline)  # fmt: skip


def _shared(family: Family) -> tuple[tuple[str, str], ...]:
    """Fixed and adaptive models of one limit whose comparison the claim on short spans makes for that on each S, too."""
    widest = ((family.fixed[-1], family.widest),) if family.widest == family.adaptive[-1] else ()
    return (*widest, family.from_max)


def _at_each_limit_claims(family: Family) -> tuple[Claim, ...]:
    """But for the shared comparisons: one of them is one test."""
    return tuple(
        _no_worse(family, f"_{fixed.partition('_')[2]}", "adaptive_le_fixed", fixed, adaptive)
        for fixed, adaptive in zip(family.fixed, family.adaptive, strict=True)
        if (fixed, adaptive) not in _shared(family)
    )


def _far_below_claims(family: Family) -> tuple[Claim, ...]:
    return (
        _far_below(family, family.widest, "", _uses_context(family, family.widest)),
        _far_below(family, family.from_max[1], "_from_max"),
        _no_worse(family, "_no_loss", "span_far_below_limit", family.fixed[-1], family.widest, headline=family.leads),
        _no_worse(family, "_no_loss_from_max", "span_far_below_limit", *family.from_max, headline=family.leads),
        *_clipped_claims(family),
    )  # fmt: skip


def _clipped_claims(family: Family) -> tuple[Claim, ...]:
    """No loss once more, with every run's tensors clipped each by itself; the facts say when that was chosen."""
    if not family.clipped:
        return ()
    short, fixed, adaptive, from_max = (
        name + family.clipped for name in (family.short, family.fixed[-1], family.widest, family.from_max[1])
    )
    runs = family._replace(short=short, fixed=(fixed,))
    fact = "span_far_below_limit"
    return (
        _no_worse(runs, f"_no_loss{family.clipped}", fact, fixed, adaptive),
        _no_worse(runs, f"_no_loss_from_max{family.clipped}", fact, fixed, from_max),
    )


# --- over the limit ----------------------------------------------------------------------------------------------


def _gains_more(family: Family) -> Claim:
    """What a growing limit gives: the adaptive model's gain minus the fixed one's."""
    fixed = _less_bits(family, family.fixed[0], family.fixed[-1])
    adaptive = _less_bits(family, family.adaptive[0], family.adaptive[-1])
    names = (family.fixed[0], family.adaptive[0], family.adaptive[-1])
    measure = "bits that the largest limit gains on the smallest: adaptive minus fixed spans"
    return _claim(family, "_gains_more", "adaptive_le_fixed", measure, names,
                  lambda runs: adaptive(runs) - fixed(runs))  # fmt: skip


def _growth(runs: Runs, family: Family, names: tuple[str, ...]) -> float:
    first, last = (runs[family.experiment(name)].metric("flops") for name in (names[0], names[-1]))
    return last / first - 1


def _flat(family: Family, names: tuple[str, str], ending: str = "", start: str = "") -> Claim:
    """That fixed spans grow is arithmetic; spans that stay short are a finding only where the model uses context.

    Args:
        family: of the runs.
        names: adaptive, the smallest and the largest limit.
        ending: of the claim's id.
        start: where spans start, as the measure says it.
    """
    measure = f"growth of operations from the smallest to the largest limit, adaptive spans{start}"
    return _claim(family, ending, "flops_flat", measure, names, lambda runs: _growth(runs, family, names), unit="share",
                  margin="flops_growth", control=_uses_context(family, names[-1]))  # fmt: skip


def _flat_claims(family: Family) -> tuple[Claim, ...]:
    found = (_flat(family, (family.adaptive[0], family.adaptive[-1])),)
    if family.first_from_max:
        names = (family.first_from_max, family.from_max[1])
        found += (_flat(family, names, "_from_max", " from the maximum"),)
    return found


# --- layers, and dynamic spans -------------------------------------------------------------------------------------


def upper_minus_lower(spans: np.ndarray) -> float:
    """Mean span of the upper half of the layers minus that of the lower half [layers, H]; a middle layer is left out."""
    half = len(spans) // 2
    return float(spans[-half:].mean() - spans[:half].mean())


def _upper_longer(family: Family, name: str, ending: str) -> Claim:
    experiment = family.experiment(name)
    return _claim(
        family, ending, "low_layers_short",
        f"mean span of the upper half of the layers minus the lower half: {model_label(name)}", (name,),
        lambda runs: upper_minus_lower(runs[experiment].artifact()["spans"]), unit="tokens",
    )  # fmt: skip


def _dynamic(family: Family) -> tuple[Claim, ...]:
    adaptive, dynamic = family.adaptive[-1], family.dynamic

    def doublings(runs: Runs) -> float:
        spans = (runs[family.experiment(name)].metric("mean_span") for name in (dynamic, adaptive))
        return log2(next(spans) / next(spans))

    control = _uses_context(family, adaptive, dynamic)
    return (
        _claim(family, "_bits", "dynamic_equals_adaptive", "bits of adaptive minus dynamic spans",
               (adaptive, dynamic), _less_bits(family, adaptive, dynamic), margin=family.margin, control=control),
        _claim(family, "_span", "dynamic_equals_adaptive",
               "mean span, dynamic over adaptive, in doublings", (adaptive, dynamic), doublings, unit="doublings",
               margin="span_factor", control=control),
    )  # fmt: skip


# --- printed ---------------------------------------------------------------------------------------------------------


def _beats_transformer_xl(paper: Paper) -> bool:
    """Fewer bits, parameters and operations in the printed cells."""
    rows = paper.table("table2_enwik8").rows
    ours = next(row for row in rows if row["model"].endswith("small"))
    theirs = next(row for row in rows if row["model"] == "Transformer-XL" and row["layers"] == ours["layers"])
    sizes = [
        (float(row[column].removesuffix("M")) for row in (ours, theirs)) for column in ("params", "flops")
    ]
    return ours["test_bpb"] < theirs["test_bpb"] and all(next(pair) < next(pair) for pair in sizes)


def _of(family: Family) -> tuple[Claim, ...]:
    return (
        *_far_below_claims(family),
        *_at_each_limit_claims(family),
        _gains_more(family),
        *_flat_claims(family),
        _upper_longer(family, family.adaptive[-1], ""),
        _upper_longer(family, family.from_max[1], "_from_max"),
        *_dynamic(family),
    )  # fmt: skip


_BEATS = Claim(
    id="beats_txl_small_print",
    fact="beats_txl_small",
    kind="arithmetic",
    measure="Printed cells of table 2: fewer bits, parameters and operations than the 12-layer Transformer-XL",
    holds=_beats_transformer_xl,
)
# In the order of the facts.
_ORDER = tuple(claim.id for claim in load_papers()[PAPER].claims)
CLAIMS = tuple(
    sorted((*(claim for family in FAMILIES for claim in _of(family)), _BEATS), key=lambda c: _ORDER.index(c.fact))
)  # fmt: skip
