"""What chapter 1 shows of sentences longer than those of training; figures are None where there are no records."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from attn.experiments.transformer.runs import POSITIONS
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import Paper
from attn.reproduction.figures import COLOURS, figure, legend_below
from attn.reproduction.records import Record
from attn.transformer import Transformer

Records = Mapping[str, Sequence[Record]]  # by kind of positions
_LOOKS = {
    "sinusoids": ("#0072B2", "-", "o"),
    "learned": ("#D55E00", "-", "s"),
    "sinusoids_shifted": ("#0072B2", "--", "o"),
    "learned_shifted": ("#D55E00", "--", "s"),
}


def task_words(paper: Paper, profile: str = BOOK_PROFILE) -> str:
    """The sizes of the task, and where positions begin where they are shifted, from the budget, in a sentence."""
    budgets = paper.budgets["lengths"]
    budget = budgets.get(profile) or budgets[BOOK_PROFILE]
    task, shift = budget["task"], max(model.get("max_shift", 0) for model in budget["models"].values())
    return (
        f"Training: {task['min_length']} to {task['max_length']} letters of an alphabet of {task['n_letters']}. Test: "
        f"up to {max(budget['test_lengths'])}. Shifted positions of a batch begin anywhere from 0 to {shift}. A learned "
        f"table has {table_rows():,} rows."
    )


def table_rows() -> int:
    """Rows of a learned table where a model is told of no other length: what the library's model has by itself."""
    return inspect.signature(Transformer).parameters["max_len"].default


def longest_trained(records: Sequence[Record]) -> int:
    """Letters of the longest source of training."""
    return records[0].data["config"]["task"]["max_length"]


def whole(records: Sequence[Record]) -> tuple[list[int], np.ndarray]:
    """Test lengths, and the share of targets with every token right [seeds, lengths]."""
    lengths = list(records[0].data["config"]["test_lengths"])
    return lengths, np.array([[record.metric(f"whole_{n}") for n in lengths] for record in records])


def beyond_training(records: Records) -> Figure | None:
    """Targets that are wholly right over their length, and tokens that are right over their place in the longest ones.

    Lines are medians over seeds, bands their range; dashed lines are models whose positions were shifted in training.
    """
    there = {kind: found for kind, found in records.items() if found}
    if not there:
        return None
    drawing, panels = figure(2, width=4.6, height=2.0)
    for kind, found in there.items():
        colour, line, marker = _LOOKS[kind]
        lengths, shares = whole(found)
        style = {"color": colour, "linestyle": line}
        panels[0].plot(
            lengths, np.median(shares, 0), marker=marker, markersize=3.5, label=POSITIONS[kind], **style
        )
        panels[0].fill_between(lengths, shares.min(0), shares.max(0), color=colour, alpha=0.12, linewidth=0)
        by_position = np.array([record.artifact()["right_by_position"][-1] for record in found])
        panels[1].plot(
            np.arange(1, by_position.shape[1] + 1), np.median(by_position, 0), linewidth=1.2, **style
        )
    trained = longest_trained(next(iter(there.values())))
    for panel in panels:
        panel.axvline(trained + 0.5, color=COLOURS["paper"], linestyle=":", linewidth=1)
        panel.set_ylim(-0.03, 1.03)
    panels[0].set(xlabel="letters of the source (dotted: end of training)", ylabel="targets right")
    longest = whole(next(iter(there.values())))[0][-1]
    panels[1].set(xlabel=f"token of a target of {longest} letters", ylabel="tokens right")
    legend_below(drawing, panels[0])
    return drawing


def beyond_words(records: Records) -> list[str]:
    """How many targets are right at the end of training's lengths and beyond, a sentence for each kind of positions."""
    lines = []
    for kind, found in records.items():
        if not found:
            continue
        lengths, shares = whole(found)
        inside = max(n for n in lengths if n <= longest_trained(found))
        said = ", ".join(
            f"{_share(middle)} of {n} letters"
            for n, middle in zip(lengths, np.median(shares, 0), strict=True)
            if n == inside or n in (inside + 1, inside + 2, lengths[-1])
        )
        lines.append(
            f"{POSITIONS[kind].capitalize()}: targets copied without an error are {said} (medians of "
            f"{len(found)} seed{'' if len(found) == 1 else 's'})."
        )
    return [*lines, *_comparison(records)] or ["No records yet."]


def _share(value: float) -> str:
    """In percent, to three digits, so that nearly all is not all."""
    return f"{100 * value:.3g}%"


def _comparison(records: Records) -> list[str]:
    """What the runs say of the paper's hope, and of shifted positions, in sentences, where all kinds are recorded."""
    if not all(records.get(kind) for kind in POSITIONS):
        return []
    lengths = whole(records["sinusoids"])[0]
    beyond = min(n for n in lengths if n > longest_trained(records["sinusoids"]) + 1)
    plain = [_middle(records[kind], beyond) for kind in ("sinusoids", "learned")]
    hope = "is not met" if plain[0] < 0.5 else "is met at this length"
    shifted = [records[f"{kind}_shifted"] for kind in ("sinusoids", "learned")]
    seeds = np.concatenate([whole(found)[1][:, -1] for found in shifted])
    first, second = (_share(_middle(found, lengths[-1])) for found in shifted)
    return [
        f"Without shifts, {_share(plain[0])} of targets of {beyond} letters are right with sinusoids and "
        f"{_share(plain[1])} with learned positions: on this task the paper's hope {hope}. With shifts, {first} and "
        f"{second} of targets of {lengths[-1]} letters are right (medians; single seeds "
        f"{_share(seeds.min())} to {_share(seeds.max())}). Shifted training meets every position of the tests, and also "
        "asks for the same copying at each. Which of the two helps is not told apart."
    ]


def _middle(found: Sequence[Record], length: int) -> float:
    """Median over seeds of the share of targets of one length that are wholly right."""
    lengths, shares = whole(found)
    return float(np.median(shares[:, lengths.index(length)]))
