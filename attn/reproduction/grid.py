"""A table before it is HTML or plain text.

Both renderings come from one grid of cells, so they cannot disagree.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import zip_longest
from math import inf
from textwrap import wrap
from typing import Any

BLANK = "–"
# Widest a cell gets in a terminal, in characters, before it goes on in the next line.
WRAP = 36
# Longest remark in its cell, in characters, where another cell has the same.
REPEATED = 60


class Html:
    """A rendered piece: HTML where the reader's program shows HTML, plain text elsewhere."""

    def __init__(self, html: str, text: str) -> None:
        self.html = html
        self.text = text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Cell:
    """The same content twice; `html` is already escaped."""

    text: str
    html: str


@dataclass
class Grid:
    """Rows of cells under columns. A None in a row means: the cell above goes on.

    Attributes:
        caption: stands above, and names the table to a screen reader.
        columns: headings; the first column names the row.
        rows: filled by `add`.
        row_classes: CSS classes of each row.
        notes: small print below; an empty text or HTML leaves it out there.
        css: further CSS classes of the table.
    """

    caption: Cell
    columns: Sequence[str]
    rows: list[list[Cell | None]] = field(default_factory=list)
    row_classes: list[str] = field(default_factory=list)
    notes: list[Cell] = field(default_factory=list)
    css: str = ""

    def add(self, cells: Sequence[Cell | None], css: str = "") -> None:
        """Append a row with its CSS classes."""
        self.rows.append(list(cells))
        self.row_classes.append(css)

    def render(self) -> Html:
        """Both renderings, each without the columns that say nothing in any row; one line if there is no row."""
        if not self.rows:
            none = plain(f"{self.caption.text.rstrip('.')}: none stated.")
            return Html(f'<p class="attn-note">{none.html}</p>', none.text)
        return Html(self._html(), self._text())

    def _columns(self, content: str) -> list[int]:
        return [
            j
            for j in range(len(self.columns))
            if j == 0 or any(row[j] and getattr(row[j], content).strip(BLANK) for row in self.rows)
        ]

    def _html(self) -> str:
        shown = self._columns("html")
        head = "".join(f'<th scope="col">{escape(self.columns[j])}</th>' for j in shown)
        body = "".join(
            f'<tr class="{css}">{"".join(self._html_cell(i, j) for j in shown)}</tr>'
            for i, css in enumerate(self.row_classes)
        )
        notes = "".join(f'<p class="attn-note">{note.html}</p>' for note in self.notes if note.html)
        # The wrapper scrolls, never the page; it takes the focus so that a keyboard can scroll it too. The caption
        # stands outside, where it does not scroll away.
        return (
            f'<p class="attn-caption">{self.caption.html}</p>'
            f'<div class="attn-scroll" style="overflow-x:auto" role="region" tabindex="0" '
            f'aria-label="{escape(self.caption.text, quote=True)}"><table class="attn-table {self.css}">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
        )

    def _html_cell(self, i: int, j: int) -> str:
        cell = self.rows[i][j]
        if cell is None:
            return ""
        span = 1
        while i + span < len(self.rows) and self.rows[i + span][j] is None:
            span += 1
        tag, scope = ("th", ' scope="row"') if j == 0 else ("td", "")
        rowspan = f' rowspan="{span}"' if span > 1 else ""
        return f"<{tag}{scope}{rowspan}>{cell.html}</{tag}>"

    def _text(self) -> str:
        shown = self._columns("text")
        rows = [[self.columns[j] for j in shown]]
        rows += [[row[j].text if row[j] else "" for j in shown] for row in self.rows]
        wrapped = [[wrap(text, WRAP) or [""] for text in row] for row in rows]
        widths = [max(len(line) for row in wrapped for line in row[j]) for j in range(len(shown))]
        lines = [self.caption.text]
        for i, row in enumerate(wrapped):
            for parts in zip_longest(*row, fillvalue=""):
                line = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
                lines.append(line.rstrip())
            if i == 0:
                lines.append("  ".join("-" * width for width in widths))
        return "\n".join(lines + [note.text for note in self.notes if note.text])


def plain(value: Any) -> Cell:
    """The same text in both."""
    text = str(value)
    return Cell(text, escape(text))


def linked(text: str) -> Cell:
    """Text whose web addresses are links."""
    parts = re.split(r"(https?://[^\s,;)]+)", text)
    html = "".join(
        f'<a href="{escape(part, quote=True)}">{escape(part)}</a>' if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )
    return Cell(text, html)


def below(cell: Cell, small: Cell | str | None, between: str = ", ") -> Cell:
    """A cell with a line in small print under it."""
    small = plain(small) if isinstance(small, str) else small
    if small is None or not small.html:
        return cell
    return Cell(f"{cell.text}{between}{small.text}", f'{cell.html}<div class="attn-small">{small.html}</div>')


class Footnotes:
    """Remarks on cells: each in its cell or, if it is long or said again and again, once under the table.

    Args:
        remarks: those of all cells, in their order; None where a cell has none.
        longest: longest remark in its cell, in characters, where no other cell has the same.
    """

    def __init__(self, remarks: Iterable[str | None], *, longest: float = inf) -> None:
        counts = Counter(remark for remark in remarks if remark)
        self._below = [text for text, n in counts.items() if len(text) > (longest if n == 1 else REPEATED)]

    def __call__(self, remark: str | None) -> str | None:
        """What stands in the cell: the remark, or the number of its note."""
        return f"note {self._below.index(remark) + 1}" if remark in self._below else remark

    def notes(self) -> list[Cell]:
        """What stands under the table."""
        return [linked(f"Note {i}: {remark}") for i, remark in enumerate(self._below, 1)]
