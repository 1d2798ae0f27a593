"""What was asked of the Transformer on Multi30k, and how far its runs came: by score, and by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attn.reproduction.facts import Paper
from attn.reproduction.records import Record

_TASK = "captions_en_de"
Goal = Mapping[str, Any]  # of the facts' budget: bleu, test, minutes, cores


def goal_words(paper: Paper, runs: Sequence[Record], *, near: float = 0.05) -> list[str]:
    """The goals for English to German, and what each run at cpu made of them, a few sentences each.

    Args:
        paper: the facts, with the goals.
        runs: of profile cpu.
        near: a perplexity counts as near the lowest one if it is above it by at most this share.
    """
    budgets = paper.budgets[_TASK]
    goal, larger = (budgets[profile]["goal"] for profile in ("cpu", "gpu"))
    asked = (
        f"Asked of the Transformer, English to German: at cpu at least {goal['bleu']} BLEU on {goal['test']} within "
        f"{goal['minutes']} minutes on {goal['cores']} cores, at gpu at least {larger['bleu']}."
    )
    late = any(_minutes(run) > goal["minutes"] for run in runs)
    unknown = f"BLEU is scored at the end alone, so what {goal['minutes']} minutes give is not measured."
    return [asked, *(_of_run(run, goal, near) for run in runs), *[unknown] * late]


def _of_run(run: Record, goal: Goal, near: float) -> str:
    score, minutes = run.metric(f"bleu_{goal['test']}"), _minutes(run)
    threads = run.data["environment"]["threads"]
    said = [
        f"Seed {run.seed}: {score:.1f} BLEU after {run.data['run']['steps']:,} updates and {minutes:.0f} minutes on "
        f"{threads} thread{'' if threads == 1 else 's'}: the score is "
        f"{'reached' if score >= goal['bleu'] else 'missed'}, the time is "
        f"{'kept' if minutes <= goal['minutes'] else 'exceeded'}."
    ]
    if minutes > goal["minutes"]:
        fewer = f", with {threads} of the {goal['cores']} cores in use" if threads < goal["cores"] else ""
        said.append(
            f"At its fastest pace between two evaluations it would have taken {_at_best(run):.0f} minutes{fewer}."
        )
    return " ".join([*said, *_progress(run, goal, near)])


def _progress(run: Record, goal: Goal, near: float) -> list[str]:
    """When validation perplexity came near its lowest, and what it was when the goal's time was over."""
    evaluations = [entry for entry in run.history if entry["step"]]
    best = min(entry["perplexity"] for entry in evaluations)
    soon = next(entry for entry in evaluations if entry["perplexity"] <= (1 + near) * best)
    said = [
        f"The lowest validation perplexity is {best:.2f}; at most {near:.0%} above it, it was first at update "
        f"{soon['step']:,}, after {soon['seconds'] / 60:.0f} minutes."
    ]
    in_time = [entry for entry in evaluations if entry["seconds"] <= 60 * goal["minutes"]]
    if in_time and in_time != evaluations:
        last = in_time[-1]
        said.append(
            f"At the last evaluation within {goal['minutes']} minutes, update {last['step']:,}, it was "
            f"{last['perplexity']:.2f}, {last['perplexity'] / best - 1:.0%} above."
        )
    return said


def _minutes(run: Record) -> float:
    return run.data["run"]["seconds"] / 60


def _at_best(run: Record) -> float:
    """Minutes for all updates at the pace of the fastest stretch between two evaluations, the least disturbed one."""
    paces = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(run.history)]
    return min(paces) * run.data["run"]["steps"] / 60
