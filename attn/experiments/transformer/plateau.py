"""How long runs of table 3 stay where a model has the frames of the generated sentences and not yet their words.

There a subword costs about 1 nat, a perplexity of e.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log

from matplotlib.figure import Figure

from attn.experiments.transformer import claims
from attn.reproduction.figures import COLOURS, figure, legend_below
from attn.reproduction.records import Record

Rows = Mapping[str, Sequence[Record]]  # runs by id of table 3's row
NEAR = 0.2  # nats: how far from 1 nat still counts as there
SHARE = 1 / 3  # of a run's updates
_TITLES = {"shorter": "the first, shorter runs", "longer": "the longer runs that are judged"}
_COLOURS = {"shorter": "#D55E00", "longer": COLOURS["transformer"]}


def longest_stay(record: Record, *, near: float = NEAR) -> float:
    """Share of a run's updates between the first and the last of its longest row of evaluations near 1 nat.

    Args:
        record: a run with validation perplexities.
        near: nats.
    """
    longest, begin = 0, None
    for entry in record.history:
        inside = abs(log(entry["perplexity"]) - 1) <= near
        begin = (entry["step"] if begin is None else begin) if inside else None
        longest = max(longest, entry["step"] - begin if inside else 0)
    return longest / record.history[-1]["step"]


def words(shorter: Rows, longer: Rows, *, near: float = NEAR, share: float = SHARE) -> str:
    """How many runs of each training stayed near 1 nat, in sentences.

    Args:
        shorter: the first runs.
        longer: those that the tests are judged on.
        near: nats.
        share: of a run's updates that counts as staying.
    """
    sides = [[run for runs in rows.values() for run in runs] for rows in (shorter, longer)]
    if not all(sides):
        return "No records yet."
    stays = [[longest_stay(run, near=near) for run in runs] for runs in sides]
    first, now = (sum(stay >= share for stay in found) for found in stays)
    most = max(stays[1])
    ended = (
        f"the longest stay there is {most:.0%} of the updates."
        if most
        else "none has two evaluations in a row there."
    )
    return (
        f"Of the first, shorter runs, {first} of {len(sides[0])} stayed within {near:g} nats of 1 nat a subword, a "
        f"perplexity of {exp(1 - near):.1f} to {exp(1 + near):.1f}, for {share:.0%} of their updates or more. Of the "
        f"longer ones that are judged, {now or 'none'} of {len(sides[1])} did; {ended}"
    )


def draw(shorter: Rows, longer: Rows) -> Figure | None:
    """Validation perplexity over updates of every run: the first runs above, the longer ones below.

    Dashed is the limit of the plateau's rule, dotted a perplexity of e.
    """
    sides = {"shorter": shorter, "longer": longer}
    sides = {name: [run for runs in rows.values() for run in runs] for name, rows in sides.items()}
    if not all(sides.values()):
        return None
    drawing, panels = figure(2, width=4.6, height=1.9, sharex=True, sharey=True)
    limit = claims.plateau(sides["longer"][0])
    for panel, (name, runs) in zip(panels, sides.items(), strict=True):
        for run in runs:
            points = [(entry["step"], entry["perplexity"]) for entry in run.history if entry["step"]]
            panel.plot(*zip(*points, strict=True), color=_COLOURS[name], linewidth=0.7, alpha=0.5)
        panel.axhline(exp(1), color="black", linestyle=":", linewidth=1, label="perplexity of e")
        if limit is not None:
            panel.axhline(
                exp(limit), color=COLOURS["paper"], linestyle="--", linewidth=1, label="limit of the rule"
            )
        panel.set(title=_TITLES[name], yscale="log", ylim=(1, 20), ylabel="perplexity")
        panel.set_yticks([1, 2, 5, 10, 20], [1, 2, 5, 10, 20])
        panel.minorticks_off()
    panels[1].set_xlabel("updates")
    legend_below(drawing, panels[0])
    return drawing
