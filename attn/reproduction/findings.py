"""What came of each claim of a paper, its tests taken together: which hold, which do not, which stay open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from attn.reproduction.grid import Html
from attn.reproduction.tables import CLAIM_STATES, claim_state

# Kinds of outcome in the order they are shown, each with its heading; all that its claims share is said there.
HEADINGS = {
    "holds": "Holds in every test",
    "in part": "Holds in part, the rest open",
    "against": "Contradicted, wholly or in part",
    "open": "Open: no test decides",
    "untested": "Not tested at this scale",
}
_SYMBOLS = {"holds": "✓", "in part": "◐", "against": "✗", "open": "?", "untested": "○"}
_FOLDED = ("untested",)  # claims of which nothing is known yet
_WITHOUT_RUNS = ", printed or counted numbers alone"
_ONE = {"holds": "holds", "contradicted": "is contradicted", "undecided": "is undecided"}
_MORE = {"holds": "hold", "contradicted": "are contradicted", "undecided": "are undecided"}


@dataclass(frozen=True)
class Finding:
    """What came of one claim: its statement, the kind of outcome, and how its tests ended."""

    statement: str
    kind: str
    said: str


def findings(claims: Sequence[Mapping]) -> list[Finding]:
    """One for each claim, in the paper's order.

    Args:
        claims: a chapter's `claims`, a test each, as `attn status --json` prints them.
    """
    tests: dict[str, Counter] = {}
    trained = set()
    for claim in claims:
        tests.setdefault(claim["statement"], Counter())[claim_state(claim)] += 1
        if claim["kind"] != "arithmetic":
            trained.add(claim["statement"])
    return [
        Finding(statement, _kind(states), _said(states) + _WITHOUT_RUNS * (statement not in trained))
        for statement, states in tests.items()
    ]


def _kind(states: Counter) -> str:
    if states["contradicted"]:
        return "against"
    if states["holds"]:
        return "holds" if states["holds"] == states.total() else "in part"
    return "open" if states["undecided"] else "untested"


def _said(states: Counter) -> str:
    """As "3 of 5 tests hold, 2 are undecided"; of tests that all end alike their number alone."""
    total = states.total()
    if len(states) == 1:
        return f"{total} test{'' if total == 1 else 's'}"
    shown = [(state, states[state]) for state in CLAIM_STATES if states[state]]
    parts = []
    for i, (state, count) in enumerate(shown):
        words = (_ONE if count == 1 else _MORE).get(state, f"{'is' if count == 1 else 'are'} {state}")
        parts.append(f"{count} of {total} tests {words}" if i == 0 else f"{count} {words}")
    return ", ".join(parts)


def findings_list(chapters: Iterable[tuple[str, Sequence[Mapping]]]) -> Html:
    """The claims of one chapter or several under what came of them.

    Args:
        chapters: what stands before each claim, such as a chapter's name, or nothing; and the chapter's `claims`.
    """
    found = [(name, finding) for name, claims in chapters for finding in findings(claims)]
    html, text = [], []
    for kind, heading in HEADINGS.items():
        mine = [(name, finding) for name, finding in found if finding.kind == kind]
        if not mine:
            continue
        title = f"{heading} ({len(mine)} of {len(found)} claims)"
        html.append(_html(kind, title, mine))
        lines = [f"- {_named(name)}{each.statement.rstrip('.')} ({each.said})" for name, each in mine]
        text.append("\n".join([f"{_SYMBOLS[kind]} {title}:", *lines]))
    return Html("".join(html), "\n\n".join(text))


def _named(name: str) -> str:
    return f"{name}: " if name else ""


def _html(kind: str, title: str, found: Sequence[tuple[str, Finding]]) -> str:
    items = "".join(
        f"<li>{escape(_named(name))}{escape(each.statement.rstrip('.'))} "
        f'<span class="attn-small">({escape(each.said)})</span></li>'
        for name, each in found
    )
    head = f'<span aria-hidden="true">{_SYMBOLS[kind]}</span> {escape(title)}'
    if kind in _FOLDED:
        return f'<details class="attn-fold"><summary>{head}</summary><ul>{items}</ul></details>'
    return f"<p><strong>{head}</strong></p><ul>{items}</ul>"
