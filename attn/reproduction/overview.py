"""What reproduced, in one picture: a mark for every cell and every claim, chapter by chapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attn.reproduction.facts import THE_PAPER
from attn.reproduction.tables import CLAIM_STATES, STATES, claim_state, is_result, summary, table_name

MARKS_PER_LINE = 18
LINE, STEP, LABEL = 0.24, 0.19, 1.7  # inches: height of a line, distance of two marks, width of the labels


@dataclass(frozen=True)
class Mark:
    """Shape and colours of one state: the shape alone tells the states apart, colour only helps.

    The colours are of the Okabe-Ito palette, lightened for the dark ground.
    """

    shape: str
    light: str
    dark: str
    filled: bool = True


CELL_MARKS = {
    "matches": Mark("o", "#0072b2", "#56b4e9"),
    "differs": Mark("X", "#c24f00", "#f0a04b"),
    "fitted": Mark("D", "#a3508a", "#dc9bc4", filled=False),
    "unverified": Mark("s", "#6b6b6b", "#a9a9a9", filled=False),
    "recorded": Mark("s", "#00795a", "#2fc79b"),
    "pending": Mark("o", "#6b6b6b", "#a9a9a9", filled=False),
    "quoted": Mark("_", "#6b6b6b", "#a9a9a9"),
    "own": Mark("|", "#6b6b6b", "#a9a9a9"),
}
CLAIM_MARKS = {
    "holds": Mark("^", "#0072b2", "#56b4e9"),
    "contradicted": Mark("v", "#c24f00", "#f0a04b"),
    "undecided": Mark("v", "#c24f00", "#f0a04b", filled=False),
    "not tested at this scale": Mark("^", "#6b6b6b", "#a9a9a9", filled=False),
}


def alt_text(status: Sequence[dict]) -> str:
    """The picture in words, for those who do not see it."""
    parts = [f"Chapter {c['number']}, {c['short_title']}: {summary(c)}." for c in status]
    return " ".join(["One mark for every cell of a paper's table and for every test of a claim.", *parts])


def overview_figure(status: Sequence[dict], *, dark: bool = False) -> Any:
    """A matplotlib figure on a transparent ground.

    Args:
        status: what `attn.reproduction.scoreboard.collect` returns, at least one chapter.
        dark: for a dark ground, else for a light one.
    """
    from matplotlib.figure import Figure

    lines = [line for chapter in status for line in _lines(chapter)] + _legend()
    width, height = LABEL + MARKS_PER_LINE * STEP + 0.3, LINE * len(lines) + 0.1
    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    ink = "#e8e8e8" if dark else "#222222"
    for i, (label, heading, items) in enumerate(lines):
        y = LINE * (i + 0.65)
        weight, size = ("bold", 10.5) if heading else ("normal", 9)
        axes.text(0.05, y, label, color=ink, va="center", fontsize=size, fontweight=weight)
        for x, mark, word in items:
            color = mark.dark if dark else mark.light
            face = color if mark.filled else "none"
            axes.plot(LABEL + x, y, mark.shape, color=color, mfc=face, ms=7.5, mew=1.4)
            axes.text(LABEL + x + 0.12, y, word, color=ink, va="center", fontsize=9)
    return figure


def _lines(chapter: dict) -> list[tuple[str, bool, list[tuple[float, Mark, str]]]]:
    """Heading, a line or more for each table, the claims, and an empty line."""
    lines = [(f"{chapter['number']}  {chapter['short_title']}", True, [])]
    for table in chapter["tables"]:
        cells = [cell for row in table["rows"] for cell in row["cells"] if is_result(cell)]
        lines += _rows(_label(table, chapter["tables"]), [CELL_MARKS[cell["state"]] for cell in cells])
    lines += _rows("Tests of claims", [CLAIM_MARKS[claim_state(claim)] for claim in chapter["claims"]])
    return [*lines, ("", False, [])]


def _label(table: dict, tables: Sequence[dict]) -> str:
    """A table's name; with whose it is if that is not the paper, or numbered where two of the paper's share one."""
    name = table_name(table["id"])
    if table["whose"] != THE_PAPER:
        return f"{name}, {table['whose'].removeprefix('the ')}"
    alike = [t["id"] for t in tables if t["whose"] == THE_PAPER and table_name(t["id"]) == name]
    return name if len(alike) == 1 else f"{name}, part {alike.index(table['id']) + 1}"


def _rows(label: str, marks: list[Mark]) -> list[tuple[str, bool, list[tuple[float, Mark, str]]]]:
    rows = [marks[i : i + MARKS_PER_LINE] for i in range(0, len(marks), MARKS_PER_LINE)]
    placed = [[((i + 0.5) * STEP, mark, "") for i, mark in enumerate(row)] for row in rows]
    return [(label if i == 0 else "", False, row) for i, row in enumerate(placed)]


def _legend() -> list[tuple[str, bool, list[tuple[float, Mark, str]]]]:
    cells = [(mark, STATES[key][1]) for key, mark in CELL_MARKS.items()]
    claims = [(mark, CLAIM_STATES[key][1]) for key, mark in CLAIM_MARKS.items()]
    lines = []
    for label, step, entries in (
        ("Computed, equal?", 0.8, cells[:4]),
        ("Trained, quoted", 0.8, cells[4:]),
        ("Test of a claim", 1.5, claims[:2]),
        ("", 1.5, claims[2:]),
    ):
        placed = [(0.1 + step * i, mark, word) for i, (mark, word) in enumerate(entries)]
        lines.append((label, False, placed))
    return lines
