"""Tables of the book, as HTML for notebooks and pages and as plain text for the terminal.

Every function here is pure: it takes what `attn.reproduction.scoreboard.collect` returns, or a part of it,
and returns an `Html`, which shows itself as HTML in a notebook and as plain text everywhere else. Freshness
is left out unless asked for: it changes whenever the code does, and must not be frozen into the outputs of a
notebook.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from math import log10
from typing import Any

from attn.reproduction.experiment import PROFILES
from attn.reproduction.facts import THE_PAPER
from attn.reproduction.grid import BLANK, Cell, Footnotes, Grid, Html, below, linked, plain
from attn.reproduction.number_text import (
    format_difference,
    format_number,
    format_spread,
    is_number,
    plain_exponent,
    printed_decimals,
)

# Longest remark on a printed number that is shown in its cell, in characters; a longer one stands under the table.
NOTE = 80
# Every state is a symbol and a word, so that nothing hangs on colour. The word is also the CSS class.
STATES = {
    "matches": ("✓", "yes"),
    "differs": ("✗", "no"),
    "fitted": ("≈", "fitted"),
    "unverified": ("□", "unverified print"),
    "recorded": ("●", "recorded"),
    "pending": ("○", "pending"),
    "quoted": ("·", "quoted"),
    "own": ("–", "not rerun"),
}
VERDICTS = {
    "holds": ("✓", "holds"),
    "fails": ("✗", "fails"),
    "not tested at this scale": ("○", "not tested at this scale"),
}
# A claim that fails on records does so in two ways.
CLAIM_STATES = {
    "holds": VERDICTS["holds"],
    "contradicted": ("✗", "fails, contradicted"),
    "undecided": ("?", "fails, undecided"),
    "not tested at this scale": VERDICTS["not tested at this scale"],
}
FRESHNESS = {"fresh": ("✓", "fresh"), "revalidated": ("↻", "revalidated"), "stale": ("⚠", "stale")}
PROFILE_ORDER = ("exact", "recomputed", *PROFILES)
# Only these stand at the paper's own size, so only these may be subtracted from the paper's number.
PAPER_SIZE = ("exact", "recomputed", "paper")


_NUMBERED = re.compile(r"(table|tab|figure|fig)_?(\d+)")


def table_name(table_id: str) -> str:
    """`table3_lstm` -> `Table 3`, `fig11_x` -> `Figure 11`, anything else in words, as `Numbers in text`."""
    found = _NUMBERED.match(table_id)
    if found is None:
        return table_id[:1].upper() + _words(table_id[1:])
    return f"{'Table' if found[1].startswith('tab') else 'Figure'} {found[2]}"


def tally(chapter: dict) -> dict[str, Counter]:
    """How many of the paper's cells are in each state, claims have each verdict, and records are fresh.

    Cells of tables that are not the paper's are counted apart, as "others".
    """
    cells, others = (
        [
            cell
            for table in chapter["tables"]
            if (table["whose"] == THE_PAPER) == ours
            for cell in _cells(table)
        ]
        for ours in (True, False)
    )
    return {
        "computed": Counter(cell["state"] for cell in cells if cell["kind"] in ("exact", "recomputed")),
        "measured": Counter(cell["state"] for cell in cells if cell["kind"] == "measured"),
        "shown": Counter(cell["state"] for cell in cells if cell["kind"] in ("quoted", "own")),
        "others": Counter(cell["state"] for cell in others),
        "claims": Counter(map(claim_state, chapter["claims"])),
        "records": Counter(record["freshness"] for record in chapter["records"]),
    }


def claim_state(claim: dict) -> str:
    """Key of `CLAIM_STATES`: the verdict, and of a claim that fails whether the runs decide against it."""
    if claim["verdict"] != "fails":
        return claim["verdict"]
    return "contradicted" if claim["contradicted"] else "undecided"


def is_result(cell: dict) -> bool:
    """Whether a cell is a result of the paper: not one of its inputs, and not blank in print."""
    return cell["kind"] != "setting" and (cell["paper"] is not None or bool(cell["values"]))


def _cells(table: dict) -> list[dict]:
    return [cell for row in table["rows"] for cell in row["cells"] if is_result(cell)]


def _badge(pair: tuple[str, str]) -> Cell:
    symbol, word = pair
    css = word.split()[0].rstrip(",")
    return Cell(
        f"{symbol} {word}",
        f'<span class="attn-state attn-{css}"><span aria-hidden="true">{symbol}</span> {escape(word)}</span>',
    )


def marked(cell: Cell, verified: bool) -> Cell:
    """A cell, with a mark if it was taken from memory alone and never seen in print."""
    if verified:
        return cell
    return Cell(f"{cell.text} (unverified)", f'{cell.html} <span class="attn-unverified">unverified</span>')


# --- a table of the paper --------------------------------------------------------------------------------


def paper_table(
    table: dict, *, freshness: bool = False, records: Sequence[dict] = (), root: str | None = "../"
) -> Html:
    """A table of printed numbers beside what was computed or recorded here, one line a value and profile.

    Args:
        table: one entry of a chapter's `tables`.
        freshness: adds a column that says whether the recorded numbers are of today's code.
        records: the chapter's `records`; each recorded value links to those it comes from.
        root: way from the page to the folder that holds `results/`; None names the records without a link.
    """
    columns = ["Row", "Settings", "Quantity", _owner(table), "Recorded", "Difference", "Result"]
    grid = Grid(_caption(table), [*columns, "Profile", "Freshness", "Rerun"])
    footnotes = _footnotes(table)
    lines_of = _Lines(table, footnotes, freshness, records, root)
    for row in table["rows"]:
        lines = [line for cell in row["cells"] if is_result(cell) for line in lines_of(cell, row)]
        for i, line in enumerate(lines or [[plain(BLANK)] * 7]):
            first = i == 0
            head = [plain(row["label"]), _settings(row)] if first else [None, None]
            css = " ".join(["attn-first"] * first + ["attn-row-quoted"] * row["quoted"])
            grid.add([*head, *line, _command(row) if first else None], css)
    grid.notes = _notes(table, footnotes)
    return grid.render()


def table_title(table: dict) -> str:
    """As "Table 2 of the paper": the book numbers its own tables, so it is said whose this is."""
    name, whose = table_name(table["id"]), table["whose"]
    return f"{name} of {whose}" if _NUMBERED.match(table["id"]) else f"{name} ({whose})"


def _owner(table: dict) -> str:
    """Heading of the printed numbers, as "Paper" or "Replication"."""
    return table["whose"].removeprefix("the ").capitalize()


def _caption(table: dict) -> Cell:
    name, caption = f"{table_title(table)}.", table["caption"]
    return Cell(f"{name} {caption}", f"<strong>{escape(name)}</strong> {escape(caption)}")


def _notes(table: dict, footnotes: Footnotes) -> list[Cell]:
    source = table["source"] or "no source at hand"
    checked = linked(f"The {table['whose'].removeprefix('the ')}'s numbers: {table['checked']} ({source}).")
    notes = [marked(checked, table["checked"] != "memory only")]
    if table.get("notes"):
        notes.append(linked(table["notes"]))
    notes += footnotes.notes()
    details = [_detail(cell, profile) for cell in _cells(table) for profile in cell["values"]]
    if any(detail.get("std") is not None for detail in details):
        notes.append(plain("Recorded values with ± are means over seeds and their standard deviation."))
    if any(detail.get("quartiles") for detail in details):
        skewed = "Recorded values with brackets are medians over seeds and their quartiles: some seeds never learn."
        notes.append(plain(skewed))
    # The folded commands have no place in the columns of a terminal.
    commands: dict[str, list[str]] = {}
    for row in table["rows"]:
        if row.get("command"):
            commands.setdefault(row["command"], []).append(row["label"])
    return notes + [Cell(f"{command}  # {', '.join(labels)}", "") for command, labels in commands.items()]


def _footnotes(table: dict) -> Footnotes:
    """Remarks on a table's cells, and the scales of their recorded values."""
    remarks = (
        remark
        for cell in _cells(table)
        for remark in [cell.get("note"), *(_detail(cell, profile).get("scale") for profile in cell["values"])]
    )
    return Footnotes(remarks, longest=NOTE)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _settings(row: dict) -> Cell:
    pairs = [
        (_words(cell["column"]), format_number(cell["paper"]))
        for cell in row["cells"]
        if cell["kind"] == "setting" and cell["paper"] is not None
    ]
    html = "".join(
        f'<div class="attn-setting"><span class="attn-small">{escape(name)}</span> {escape(value)}</div>'
        for name, value in pairs
    )
    return Cell("; ".join(f"{name} {value}" for name, value in pairs), html)


def _detail(cell: dict, profile: str) -> dict:
    return (cell.get("detail") or {}).get(profile) or {}


@dataclass(frozen=True)
class _Lines:
    """Turns a cell of the paper into its lines, one a profile: quantity, paper, recorded, difference, result,
    profile and scale, freshness."""

    table: dict
    footnotes: Footnotes
    freshness: bool
    records: Sequence[dict]
    root: str | None

    def __call__(self, cell: dict, row: dict) -> list[list[Cell | None]]:
        several = sum(column["role"] == "value" for column in self.table["columns"]) > 1
        quantity = plain(_words(cell["column"]) if several else "")
        paper = marked(plain(format_number(cell["paper"])), cell["verified"] or cell["paper"] is None)
        state = below(_badge(STATES[cell["state"]]), self.footnotes(cell.get("note")))
        fresh = _fresh(cell["freshness"], self.freshness)
        lines = []
        for profile in sorted(cell["values"], key=_profile_place) or [None]:
            value, difference, where = self._profile(cell, row, profile) if profile else [plain(BLANK)] * 3
            once = [None] * 4 if lines else [quantity, paper, state, fresh]
            lines.append([*once[:2], value, difference, once[2], where, once[3]])
        return lines

    def _profile(self, cell: dict, row: dict, profile: str) -> list[Cell]:
        """Recorded value, difference, and profile with scale."""
        value, detail = cell["values"][profile], _detail(cell, profile)
        comparable = profile in PAPER_SIZE and not self.table["read_off"]
        as_printed = value == cell["paper"] and detail.get("std") is None
        decimals = None if as_printed else _decimals(value, cell, self.table)
        recorded = _recorded(value, detail, decimals, _paths(detail, row, profile, self.records), self.root)
        difference = format_difference(value, cell["paper"], decimals) if comparable else BLANK
        return [recorded, plain(difference), below(plain(profile), self.footnotes(detail.get("scale")))]


def _fresh(state: str | None, shown: bool) -> Cell:
    return _badge(FRESHNESS[state]) if shown and state is not None else plain("")


def _decimals(value: Any, cell: dict, table: dict) -> int:
    """A count stays one in a column that holds fractions, too; beside printed words a number has four digits in all."""
    if type(value) is int:
        return 0
    if is_number(value) and isinstance(cell["paper"], str):
        return max(0, 3 - int(log10(max(abs(value), 1))))
    return _column_decimals(table, cell["column"])


def _column_decimals(table: dict, name: str) -> int:
    cells = chain.from_iterable(row["cells"] for row in table["rows"])
    return printed_decimals(cell["paper"] for cell in cells if cell["column"] == name)


def _profile_place(profile: str) -> tuple[int, str]:
    known = PROFILE_ORDER.index(profile) if profile in PROFILE_ORDER else len(PROFILE_ORDER)
    return known, profile


def _recorded(value: Any, detail: dict, decimals: int, paths: Sequence[str], root: str | None) -> Cell:
    text = format_number(value, decimals if is_number(value) else None)
    if is_number(value) and detail.get("std") is not None:
        text += f" ± {format_spread(detail['std'], decimals)}"
    if is_number(value) and detail.get("quartiles"):
        low, high = (format_number(quartile, decimals) for quartile in detail["quartiles"])
        text += f" [{low}, {high}]"
    seeds, links = detail.get("seeds"), " ".join(_record_link(path, root) for path in paths)
    counted = f"{seeds} seed{'' if seeds == 1 else 's'}" if seeds else ""
    small = ", ".join(filter(None, [detail.get("unit"), counted]))
    shown = f"{escape(small)}{': ' if small and links else ''}{links}"
    return below(plain(text), Cell(small, shown) if shown else None)


def _record_link(path: str, root: str | None) -> str:
    """A short link: the seed is enough to tell the records of one value apart."""
    seed = re.search(r"(\d+)\.json$", path)
    shown, title = escape(seed[1] if seed else "record"), escape(path, quote=True)
    if root is None:
        return f'<span title="{title}">{shown}</span>'
    href = escape(root, quote=True) + title
    return f'<a href="{href}" title="{title}" aria-label="record {title}">{shown}</a>'


def _paths(detail: dict, row: dict, profile: str, records: Sequence[dict]) -> list[str]:
    """Records a value comes from: those it names itself, or those of its experiment and profile."""
    if detail.get("records"):
        return list(detail["records"])
    in_command = re.search(r"--experiment\s+(\S+)", row.get("command") or "")
    experiment = detail.get("experiment") or (in_command and in_command[1])
    return [r["path"] for r in records if r["experiment"] == experiment and r["profile"] == profile]


def _command(row: dict) -> Cell:
    """The row's command, folded; `div.highlight pre` is what the book's copy button looks for."""
    command = row.get("command")
    if not command:
        return plain("")
    return Cell(
        "",
        '<details class="attn-command"><summary>command</summary>'
        f'<div class="highlight"><pre>{escape(command)}</pre></div></details>',
    )


# --- claims, deviations, live checks ----------------------------------------------------------------------


def claims_table(claims: Sequence[dict], *, freshness: bool = False) -> Html:
    """What the paper concludes, with verdict, estimate and 95% interval.

    Args:
        claims: a chapter's `claims`.
        freshness: adds to each verdict whether the records behind it are of today's code.
    """
    columns = ["Claim", "Tested as", "Verdict", "Estimate", "Positive control"]
    caption = "Claims of the paper. Estimates are means over seeds, with their 95% interval."
    grid = Grid(plain(caption), columns, css="attn-statements")
    controls = (claim["control"]["statement"] for claim in claims if claim.get("control"))
    footnotes = Footnotes(chain(controls, (claim.get("reason") for claim in claims)))
    above = None
    for claim in claims:
        same = claim["statement"] == above
        above = claim["statement"]
        statement = None if same else below(plain(above), table_name(claim["table"]), " ")
        verdict = below(_badge(CLAIM_STATES[claim_state(claim)]), footnotes(claim.get("reason")), ": ")
        verdict = below(verdict, _fresh(claim["freshness"], freshness and claim.get("estimate") is not None))
        measure = plain(claim.get("measure") or BLANK)
        cells = [statement, measure, verdict, _estimate(claim), _control(claim, footnotes)]
        grid.add(cells, "" if same else "attn-first")
    grid.notes = footnotes.notes()
    return grid.render()


def margins_list(margins: Mapping[str, Mapping[str, Any]]) -> Html:
    """The sizes that tests of claims compare with, and why each is as it is; empty where there are none.

    Args:
        margins: a paper's `margins`, each with `value`, `unit` and `why`.
    """
    if not margins:
        return Html("", "")
    lines = [
        f"{_words(name)}: {_short(margin['value'])} {margin['unit']}; {margin['why']}"
        for name, margin in margins.items()
    ]
    title = "Margins and thresholds of these tests"
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    html = f'<details class="attn-fold"><summary>{title}</summary><ul>{items}</ul></details>'
    return Html(html, "\n".join([f"{title}:", *(f"- {line}" for line in lines)]))


def failures_list(claims: Sequence[dict]) -> Html:
    """The tests that fail, contradicted ones first, each with its estimate; where there are none, how many decide.

    Args:
        claims: a chapter's `claims`.
    """
    if all(claim["verdict"] != "fails" for claim in claims):
        untested = sum(claim["verdict"] != "holds" for claim in claims)
        none = f"No test of a claim fails; {untested} of {len(claims)} are not tested at this scale."
        return Html(f"<p>{none}</p>", none)
    html, text = [], []
    for state, why in _FAILURES.items():
        mine = [claim for claim in claims if claim_state(claim) == state]
        if not mine:
            continue
        lines = [_failure(claim) for claim in mine]
        html.append(f"<p>{why}</p><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")
        text.append("\n".join([why, *(f"- {line}" for line in lines)]))
    return Html("".join(html), "\n\n".join(text))


_FAILURES = {
    "contradicted": "Contradicted: the whole interval of the difference lies on the other side.",
    "undecided": "Undecided: the interval is too wide for its seeds to tell.",
}


def _failure(claim: dict) -> str:
    """A failing test in one line: what was compared, and what came out."""
    tested = claim.get("measure") or claim["statement"]
    found = _estimate(claim).text
    return tested if found == BLANK else f"{tested}: {found}"


def _interval(interval: Sequence[float] | None) -> str:
    ends = ",\u00a0".join(_short(end) for end in interval or ())  # the no-break space keeps it on one line
    return f"[{ends}]" if ends else ""


def _short(value: float) -> str:
    return plain_exponent(f"{value:.3g}").replace("-", "−")


def _estimate(claim: dict) -> Cell:
    if claim.get("estimate") is None:
        return plain(BLANK)
    parts = [_short(claim["estimate"]), _interval(claim.get("interval")), claim.get("unit")]
    margin = f"equal within ±{_short(claim['margin'])}" if claim.get("margin") is not None else None
    runs = f"{claim['seeds']} seeds at {claim['profile']}"
    return below(plain(" ".join(filter(None, parts))), ", ".join(filter(None, [runs, margin])))


def _control(claim: dict, footnotes: Footnotes) -> Cell:
    control = claim.get("control")
    if control is None:
        return plain(BLANK)
    shown = "✓ shown" if control["shown"] else "✗ not shown"
    shown = plain(f"{shown} {_interval(control.get('interval'))}".strip())
    return below(shown, footnotes(control["statement"]), ": ")


def deviations_table(deviations: Sequence[dict]) -> Html:
    """Where this reproduction departs from the paper, and what that changes.

    Args:
        deviations: a chapter's `deviations`.
    """
    columns = ["Where", "The paper", "Here", "Switch", "Measured effect"]
    grid = Grid(plain("Deviations from the paper"), columns, css="attn-statements")
    for item in deviations:
        where = below(plain(item["place"]), item["id"])
        switch, effect = item.get("switch") or "", item.get("effect") or "not measured"
        switch = Cell(switch, f"<code>{escape(switch)}</code>" if switch else "")
        grid.add([where, plain(item["paper"]), plain(item["ours"]), switch, plain(effect)])
    return grid.render()


def live_table(rows: Sequence[dict], *, caption: str = "Live check: trained afresh in this run") -> Html:
    """What a fresh, small run showed, in bands that do not change from one machine to the next.

    Args:
        rows: dicts with `quantity`, `value` (a band such as "below 0.1 bits", not a measured number),
            `baseline` (the same at the same budget, or None) and `verdict` (bool, a word, or None).
        caption: the table's caption.
    """
    grid = Grid(plain(caption), ["Quantity", "Here", "Baseline at the same budget", "Verdict"])
    for row in rows:
        verdict = row.get("verdict")
        if isinstance(verdict, bool):
            verdict = "holds" if verdict else "fails"
        badge = _badge(VERDICTS[verdict]) if verdict in VERDICTS else plain(format_number(verdict))
        value, baseline = format_number(row["value"]), format_number(row.get("baseline"))
        grid.add([plain(row["quantity"]), plain(value), plain(baseline), badge])
    return grid.render()


# --- scoreboard -------------------------------------------------------------------------------------------


_ONE = {"matches": "equal", "differs": "not equal"}
_SEVERAL = _ONE | {"holds": "hold"}


def _counts(counter: Counter, states: Mapping[str, tuple[str, str]]) -> str:
    """How often each state occurs, in the words that stand beside its mark or, of the commonest, shorter ones."""
    short = {key: word.removeprefix("fails, ") for key, (_, word) in states.items()}
    words = {
        key: (_ONE if counter[key] == 1 else _SEVERAL).get(key, word)
        for key, word in short.items()
        if counter[key]
    }
    return ", ".join(f"{counter[key]} {word}" for key, word in words.items()) or BLANK


def summary(chapter: dict) -> str:
    """One line on a chapter: cells by state, tests of claims by verdict, stale records."""
    counts = tally(chapter)
    kinds = {"computed": "computed cells", "measured": "measured cells", "shown": "cells that are only shown"}
    parts = [f"{words}: {_counts(counts[kind], STATES)}" for kind, words in kinds.items()]
    if counts["others"]:
        parts.append(f"cells beside others' numbers: {_counts(counts['others'], STATES)}")
    parts += [f"tests of claims: {_counts(counts['claims'], CLAIM_STATES)}", f"records: {_stale(counts)}"]
    return "; ".join(parts)


def _stale(counts: dict[str, Counter]) -> str:
    total = sum(counts["records"].values())
    if not total:
        return "none yet"
    again = counts["records"]["revalidated"]
    return f"{counts['records']['stale']} of {total} stale" + f", {again} revalidated" * bool(again)


def scale_words(status: Sequence[dict]) -> str:
    """At which profiles the records were made, and how many measured cells of the papers wait for one."""
    profiles = Counter(record["profile"] for chapter in status for record in chapter["records"])
    at = [f"{profiles[name]} at profile {name}" for name in PROFILES if profiles[name]]
    none = [name for name in PROFILES if not profiles[name] and name != "ci"]
    counts = Counter()
    for chapter in status:
        counts += tally(chapter)["measured"]
    said = f"{profiles.total():,} records: {', '.join(at)}" if at else "No record yet"
    said += f"; none at {' or '.join(none)}" * bool(at and none)
    return f"{said}. Of {counts.total()} measured cells of the papers {counts['pending']} are still pending."


def chapters_table(status: Sequence[dict]) -> Html:
    """All chapters, one line each."""
    columns = ["Chapter", "Computed cells", "Measured cells", "Only shown", "Tests of claims", "Records"]
    grid = Grid(plain("All chapters"), columns)
    for chapter in status:
        counts = tally(chapter)
        cells = [_counts(counts[group], STATES) for group in ("computed", "measured", "shown")]
        row = [f"{chapter['number']} {chapter['short_title']}", *cells]
        grid.add([plain(text) for text in [*row, _counts(counts["claims"], CLAIM_STATES), _stale(counts)]])
    return grid.render()


def _table_counts(table: dict) -> str:
    """How many of a table's cells are in each state, and how its printed numbers were checked."""
    counted = _counts(Counter(cell["state"] for cell in _cells(table)), STATES)
    return f"{counted}; printed numbers checked: {_checked(table).text}"


def _checked(table: dict) -> Cell:
    return marked(plain(table["checked"]), table["checked"] != "memory only")


def skipped_list(chapter: dict) -> Html:
    """Record files that could not be used, each with the reason; empty where there are none."""
    skipped = chapter.get("skipped") or []
    if not skipped:
        return Html("", "")
    items = "".join(f"<li><code>{escape(s['path'])}</code>: {escape(s['reason'])}</li>" for s in skipped)
    lines = [f"  {s['path']}: {s['reason']}" for s in skipped]
    return Html(
        f'<p class="attn-note">Record files that were skipped:</p><ul class="attn-note">{items}</ul>',
        "\n".join(["Record files that were skipped:", *lines]),
    )


def chapter_scoreboard(chapter: dict, *, root: str | None = "../") -> Html:
    """Everything about one chapter, freshness included; in HTML also every row of every table, folded."""
    folded = "".join(
        f'<details class="attn-fold"><summary>{_caption(table).html}'
        f'<div class="attn-small">{escape(_table_counts(table))}</div></summary>'
        f"{paper_table(table, freshness=True, records=chapter['records'], root=root).html}</details>"
        for table in chapter["tables"]
    )
    claims, skipped = claims_table(chapter["claims"], freshness=True), skipped_list(chapter)
    html = f"<p>{escape(chapter['headline'])}</p>{claims.html}{folded}{skipped.html}"
    counted = [f"  {table_title(table)}: {_table_counts(table)}" for table in chapter["tables"]]
    text = [chapter["headline"], claims.text, "\n".join(["Tables", *counted]), *_stale_lines(chapter)]
    return Html(html, "\n\n".join(filter(None, [*text, skipped.text])))


def _stale_lines(chapter: dict) -> list[str]:
    stale = [record for record in chapter["records"] if record["freshness"] == "stale"]
    lines = [f"  {record['path']}: {record['why']}" for record in stale]
    return ["\n".join(["Stale records:", *lines])] if stale else []


def scoreboard_html(status: Sequence[dict], *, root: str | None = "../") -> Html:
    """The whole scoreboard as one piece."""
    parts = [chapters_table(status).html]
    for chapter in status:
        parts.append(f"<h3>{chapter['number']} {escape(chapter['title'])}</h3>")
        parts.append(chapter_scoreboard(chapter, root=root).html)
    return Html("".join(parts), scoreboard_text(status))


def scoreboard_text(status: Sequence[dict]) -> str:
    """The whole scoreboard for a terminal."""
    if not status:
        return "No chapter yet."
    parts = [chapters_table(status).text]
    for chapter in status:
        title = f"{chapter['number']} {chapter['title']} ({chapter['id']})"
        parts += [f"{title}\n{'=' * len(title)}", chapter_scoreboard(chapter, root=None).text]
    return "\n\n".join(parts)
