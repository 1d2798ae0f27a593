"""What was asked of the Transformer on Multi30k, how far its runs came, and how fast models train there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attn.experiments.transformer.flops import model_flops
from attn.experiments.transformer.runs import LABELS
from attn.experiments.transformer.workloads import RecurrentConfig, TransformerConfig
from attn.reproduction.facts import Paper
from attn.reproduction.records import Record

_TASK, _LONGER = "captions_en_de", "multi30k_en_de"
_OURS = "transformer"
Goal = Mapping[str, Any]  # of the facts' budget: bleu, test, minutes, cores


def budget_words(paper: Paper) -> str:
    """The two trainings to German at cpu, in a sentence."""
    longer, shorter = (paper.budgets[task]["cpu"]["training"]["steps"] for task in (_LONGER, _TASK))
    goal = paper.budgets[_TASK]["cpu"]["goal"]
    return (
        f"Two budgets: {longer:,} updates, and {shorter:,} updates, chosen afterwards, on the validation split and with "
        f"a seed that is none of these, to fit {goal['minutes']} minutes."
    )


def goal_words(paper: Paper, runs: Sequence[Record], *, near: float = 0.05) -> list[str]:
    """The goals for English to German, what the runs at cpu made of them, and more of those that missed one.

    Args:
        paper: the facts, with the goals.
        runs: of profile cpu.
        near: a perplexity counts as near the lowest one if it is above it by at most this share.
    """
    budgets = paper.budgets[_TASK]
    goal, larger = (budgets[profile]["goal"] for profile in ("cpu", "gpu"))
    asked = (
        f"Goal of the Transformer, English to German: at least {goal['bleu']} BLEU on {goal['test']} within "
        f"{goal['minutes']} minutes on {goal['cores']} cores at cpu, and at least {larger['bleu']} BLEU at gpu"
    )
    if not runs:
        return [f"{asked}. No records yet."]
    missed = [run for run in runs if not _reached(run, goal)]
    late = any(_minutes(run) > goal["minutes"] for run in runs)
    unknown = f"BLEU is scored at the end alone, so what {goal['minutes']} minutes give is not measured."
    done = (
        f"{asked}; at cpu reached in {len(runs) - len(missed)} of {_seeds(len(runs))}. {minutes_words(runs)}"
    )
    return [done, *(_of_run(run, goal, near) for run in missed), *[unknown] * late]


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _reached(run: Record, goal: Goal) -> bool:
    return run.metric(f"bleu_{goal['test']}") >= goal["bleu"] and _minutes(run) <= goal["minutes"]


def minutes_words(runs: Sequence[Record]) -> str:
    """How long runs took, in a sentence."""
    if not runs:
        return "No records yet."
    minutes = sorted({round(_minutes(run)) for run in runs})
    span = f"{minutes[0]} to {minutes[-1]}" if len(minutes) > 1 else f"{minutes[0]}"
    return f"A run took {span} minutes, on {_threads(runs)}."


def _threads(runs: Sequence[Record]) -> str:
    threads = sorted({run.data["environment"]["threads"] for run in runs})
    return f"{' or '.join(map(str, threads))} thread{'' if threads == [1] else 's'}"


def pace_words(records: Mapping[str, Sequence[Record]]) -> str:
    """How many tokens a second recurrent models train beside the Transformer, and at how much arithmetic, in sentences.

    The fastest run of each counts: other work on the machine only ever slows a run.

    Args:
        records: runs by kind of model, "transformer" and others, at one budget.
    """
    kinds = [kind for kind, runs in records.items() if runs and kind != _OURS]
    if not kinds or not records.get(_OURS):
        return "No records of both yet."
    ours = records[_OURS]
    said = []
    for kind in kinds:
        pace = _pace(records[kind])
        said.append(
            f"{LABELS[kind]} {pace / _pace(ours):.1f} times as many ({pace:,.0f}, {_fastest(records[kind])}), at "
            f"{_flops(records[kind][0]) / _flops(ours[0]):.2f} of the FLOPs a token"
        )
    faster = all(_pace(records[kind]) > _pace(ours) for kind in kinds)
    why = (
        " With nothing to run side by side, fewer operations win. The paper's advantage needs parallel hardware, and "
        "its cost column is time of hardware."
    )
    runs = [run for kind in (_OURS, *kinds) for run in records[kind]]
    return (
        f"On {_threads(runs)} of a CPU the Transformer trains {_pace(ours):,.0f} tokens a second "
        f"({_fastest(ours)}), and {'; '.join(said)}.{why if faster else ''}"
    )


def _pace(runs: Sequence[Record]) -> float:
    return max(run.data["run"]["units_per_second"] for run in runs)


def _fastest(runs: Sequence[Record]) -> str:
    return "1 seed" if len(runs) == 1 else f"the fastest of {len(runs)} seeds"


def _flops(run: Record) -> float:
    """Arithmetic of training on one token of each side."""
    model, corpus = run.data["config"]["model"], run.data["config"]["corpus"]
    config = (RecurrentConfig if "cell" in model else TransformerConfig)(**model)
    return model_flops(config, vocab_size=corpus["vocab_size"], source_tokens=1, target_tokens=1)


def _of_run(run: Record, goal: Goal, near: float) -> str:
    score, minutes = run.metric(f"bleu_{goal['test']}"), _minutes(run)
    threads = run.data["environment"]["threads"]
    said = [
        f"Seed {run.seed}: {score:.1f} BLEU after {run.data['run']['steps']:,} updates and {minutes:.0f} minutes on "
        f"{_threads([run])}: the score is "
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
