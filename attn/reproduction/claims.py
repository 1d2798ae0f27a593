"""Verdicts: what the paper concludes, judged on records.

An order claim holds when the 95% t-interval of the seed-paired difference lies above 0; an equality claim when
it lies inside a margin of the facts, whose reason says when it was set. Both need their positive control first. A
claim that fails is contradicted if the whole interval lies on the other side of 0, or outside the margin; else it is
undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import RECORDED_PROFILES, Claim
from attn.reproduction.facts import FactClaim, Paper
from attn.reproduction.records import Record
from attn.reproduction.staleness import least

HOLDS, FAILS, NOT_TESTED = "holds", "fails", "not tested at this scale"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """One claim judged; `asdict` of it is what `attn status --json` prints."""

    id: str
    fact: str
    statement: str
    table: str
    kind: str
    measure: str
    unit: str
    verdict: str
    contradicted: bool | None = None  # of a claim that fails: whether the runs decide against it
    profile: str | None = None
    seeds: int = 0
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    control: dict[str, Any] | None = None
    freshness: str | None = None  # the least that is said of a record behind it
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        data = asdict(self)
        data["interval"] = list(self.interval) if self.interval is not None else None
        return data


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's t-interval of the mean.

    Raises:
        ValueError: for fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"values must hold at least 2 numbers for an interval; got {n}")
    from scipy.stats import t

    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * math.sqrt(variance / n)
    return mean - half, mean + half


def judge(
    claim: Claim, paper: Paper, records: Sequence[Record], freshness: Callable[[Record], str]
) -> Verdict:
    """Judge one claim.

    Args:
        claim: what to judge.
        paper: its facts.
        records: all valid records of the chapter.
        freshness: of a record, as `staleness.Freshness.state`; stale records still count, and mark the verdict.
    """
    fact = paper.claim(claim.fact)
    common = dict(
        id=claim.id, fact=claim.fact, statement=fact.statement, table=fact.table, kind=claim.kind,
        measure=claim.measure, unit=claim.unit,
    )  # fmt: skip
    if claim.kind == "arithmetic":
        if not (claim.counted or paper.table(fact.table).verified):
            return Verdict(
                **common, verdict=NOT_TESTED, reason="the printed cells are unverified (memory only)"
            )
        if claim.holds(paper):
            return Verdict(**common, verdict=HOLDS)
        return Verdict(**common, verdict=FAILS, contradicted=True)
    best = None
    for profile in reversed(RECORDED_PROFILES):
        by_seed = _paired(claim, records, profile)
        if len(by_seed) >= claim.seeds_needed:
            return _judge_pairs(claim, common, profile, by_seed, paper, freshness)
        if best is None or len(by_seed) > best[1]:
            best = (profile, len(by_seed))
    there = f"at most {best[1]} are recorded" if best[1] else "no seed has all of them recorded yet"
    reason = f"needs {claim.seeds_needed} seeds of {' and '.join(claim.experiments)}; {there}"
    return Verdict(**common, verdict=NOT_TESTED, seeds=best[1], reason=reason)


def untested(fact: FactClaim) -> Verdict:
    """A claim of the paper that no experiment of the book tests yet."""
    return Verdict(
        id=fact.id,
        fact=fact.id,
        statement=fact.statement,
        table=fact.table,
        kind="order",
        measure="",
        unit="",
        verdict=NOT_TESTED,
        reason="no experiment of the book tests it yet",
    )


def _paired(claim: Claim, records: Sequence[Record], profile: str) -> dict[int, Mapping[str, Record]]:
    """Records of the claim's experiments by seed, for seeds that have them all."""
    found: dict[int, dict[str, Record]] = {}
    for record in records:
        _, experiment, its_profile, seed = record.key
        if experiment in claim.experiments and its_profile == profile:
            found.setdefault(seed, {})[experiment] = record
    return {seed: found[seed] for seed in sorted(found) if len(found[seed]) == len(claim.experiments)}


def _finite(difference: Callable, by_seed: Mapping[int, Mapping[str, Record]]) -> list[float]:
    """The difference of each seed; ValueError names the seed where it is no finite number."""
    values = [float(difference(group)) for group in by_seed.values()]
    for seed, value in zip(by_seed, values, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"seed {seed} gives {value}")
    return values


def _judge_pairs(
    claim: Claim,
    common: dict[str, Any],
    profile: str,
    by_seed: Mapping[int, Mapping[str, Record]],
    paper: Paper,
    freshness: Callable[[Record], str],
) -> Verdict:
    try:
        differences = _finite(claim.difference, by_seed)
        controls = _finite(claim.control.difference, by_seed)
    except (UsageError, KeyError, ValueError) as error:
        reason = f"the records at {profile} do not hold what the claim needs: {error}"
        return Verdict(**common, verdict=NOT_TESTED, profile=profile, seeds=len(by_seed), reason=reason)
    interval, control_interval = t_interval(differences), t_interval(controls)
    shown = control_interval[0] > 0
    margin = paper.margins[claim.margin]["value"] if claim.margin is not None else None
    verdict, contradicted = _ruling(interval, margin) if shown else (NOT_TESTED, None)
    return Verdict(
        **common,
        verdict=verdict,
        contradicted=contradicted,
        profile=profile,
        seeds=len(by_seed),
        estimate=math.fsum(differences) / len(differences),
        interval=interval,
        margin=margin,
        control={"statement": claim.control.statement, "interval": list(control_interval), "shown": shown},
        freshness=least(freshness(record) for group in by_seed.values() for record in group.values()),
        reason=None if shown else "the positive control does not show at this budget",
    )


def _ruling(interval: tuple[float, float], margin: float | None) -> tuple[str, bool | None]:
    """Verdict, and of a failing one whether the interval contradicts the claim, from the interval of its difference."""
    low, high = interval
    if margin is None:
        return (HOLDS, None) if low > 0 else (FAILS, high < 0)
    if -margin < low and high < margin:
        return HOLDS, None
    return FAILS, low >= margin or high <= -margin
