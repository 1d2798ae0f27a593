"""Tables as HTML and as text, from a made-up status that holds every state there is."""

import json
import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from attn.experiments import chapters
from attn.reproduction import tables
from attn.reproduction.grid import Footnotes, Grid, plain
from attn.reproduction.scoreboard import collect


@pytest.fixture
def status():
    return json.loads((Path(__file__).parents[1] / "book/status.json").read_text("utf-8"))


@pytest.fixture
def chapter(status):
    return status[0]


@pytest.fixture
def exact(chapter):
    return chapter["tables"][0]


@pytest.fixture
def measured(chapter):
    return chapter["tables"][1]


@pytest.fixture
def memory(chapter):
    return chapter["tables"][2]


class Text(HTMLParser):
    """The text of each table cell, in reading order."""

    def __init__(self, html):
        super().__init__()
        self.cells, self._open = [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "th"):
            self.cells.append("")
            self._open = True

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.cells[-1] += data


def every_piece(chapter):
    yield from (tables.paper_table(t, freshness=True, records=chapter["records"]) for t in chapter["tables"])
    yield tables.claims_table(chapter["claims"], freshness=True)
    yield tables.deviations_table(chapter["deviations"])
    yield tables.live_table([{"quantity": "<cost>", "value": "below 1", "verdict": True}])
    yield tables.chapters_table([chapter])
    yield tables.scoreboard_html([chapter])


# --- names and numbers of tables --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table_id", "name"),
    [("table3_lstm", "Table 3"), ("fig11_x", "Figure 11"), ("repo_wmt14_en_de", "Repo wmt14 en de")],
)
def test_tables_are_named_as_in_the_paper(table_id, name):
    assert tables.table_name(table_id) == name


def test_a_table_without_a_number_says_whose_it_is_apart(measured):
    measured["id"], measured["whose"] = "eight_layers", "the repository"
    assert tables.table_title(measured) == "Eight layers (the repository)"


def test_a_computed_number_that_equals_the_print_is_written_like_it(exact):
    cell = next(
        cell for row in exact["rows"] for cell in row["cells"] if cell["values"].get("exact") is not None
    )
    cell["paper"] = cell["values"]["exact"] = 2e-6
    assert Text(tables.paper_table(exact).html).cells.count("2e-6") == 2


# --- the two renderings ----------------------------------------------------------------------------------


def test_html_is_well_formed_and_escaped(chapter):
    for piece in every_piece(chapter):
        ElementTree.fromstring(f"<div>{piece._repr_html_()}</div>")
        assert (
            "<three stacked" not in piece.html and "<bias>" not in piece.html and "<cost>" not in piece.html
        )


def test_rows_have_as_many_cells_as_columns(chapter):
    """Row spans counted in: a grid with a hole would shift every cell after it."""
    for piece in every_piece(chapter):
        for table in ElementTree.fromstring(f"<div>{piece.html}</div>").iter("table"):
            columns, below = len(table.findall("thead/tr/th")), {}
            for row in table.findall("tbody/tr"):
                free = [column for column in range(columns) if below.get(column, 0) == 0]
                cells = list(row)
                assert len(cells) == len(free)
                below = {column: left - 1 for column, left in below.items() if left}
                below |= {c: int(cell.get("rowspan", 1)) - 1 for c, cell in zip(free, cells, strict=True)}
            assert not any(below.values())


def test_each_table_scrolls_by_itself_and_is_named(chapter):
    for piece in every_piece(chapter):
        wrappers = re.findall(r'<div class="attn-scroll" ([^>]*)>', piece.html)
        assert len(wrappers) == piece.html.count("<table") > 0
        assert all("overflow-x:auto" in w and 'tabindex="0"' in w for w in wrappers)
        assert all(re.search('aria-label="[^"]+"', w) for w in wrappers)


def test_repr_is_the_plain_text(exact):
    piece = tables.paper_table(exact)
    assert repr(piece) == piece.text
    assert "<td" not in repr(piece) and "1,352,969" in repr(piece)


def test_what_html_shows_text_shows_too(exact):
    piece = tables.paper_table(exact)
    words = " ".join(piece.text.split())
    for word in ("1,352,969", "−3,112 (−0.8%)", "≈ fitted", "✗ no", "○ pending", "two sources"):
        assert word in words
        assert word in " ".join("".join(ElementTree.fromstring(f"<p>{piece.html}</p>").itertext()).split())


def test_a_count_stays_whole_in_a_column_with_fractions(exact):
    columns = {
        cell["column"] for row in exact["rows"] for cell in row["cells"] if 1352969 in cell["values"].values()
    }
    assert columns, "the made-up table has such a count"
    exact["rows"][-1]["cells"] = [
        {**cell, "paper": 2e-6 if cell["column"] in columns else cell["paper"]}
        for cell in exact["rows"][-1]["cells"]
    ]
    shown = tables.paper_table(exact).text
    assert "1,352,969" in shown and "1,352,969.0" not in shown


def test_columns_that_say_nothing_are_left_out(memory, exact):
    assert "Settings" not in tables.paper_table(memory).html
    assert "Rerun" not in tables.paper_table(exact).html
    grid = Grid(plain("Empty"), ["A", "B"])
    grid.add([plain("x"), plain("–")])
    assert Text(grid.render().html).cells == ["A", "x"]


# --- a table of the paper --------------------------------------------------------------------------------


def test_states_are_a_symbol_and_a_word(chapter):
    equal = next(
        c for t in chapter["tables"] for r in t["rows"] for c in r["cells"] if c["state"] == "matches"
    )
    other = deepcopy(chapter["tables"][0])
    other["rows"][0]["cells"][-1] = equal | {"state": "unverified", "matches": None}
    other["rows"][1]["cells"][-1] = equal | {"kind": "own", "state": "own", "matches": None, "values": {}}
    chapter["tables"].append(other)
    cells = [c for table in chapter["tables"] for c in Text(tables.paper_table(table).html).cells]
    for symbol, word in tables.STATES.values():
        assert any(cell.startswith(f"{symbol} {word}") for cell in cells)


def test_recorded_value_has_spread_seeds_profile_and_scale(measured, chapter):
    cells = Text(tables.paper_table(measured, records=chapter["records"]).html).cells
    assert "0.031 ± 0.01bits per sequence, 3 seeds: 0 1 2" in cells
    assert "cpu10% of the paper's sequences" in cells and "gpu100% of the paper's sequences" in cells


def test_a_table_of_others_says_whose_it_is_and_is_counted_apart(measured, chapter):
    before = tables.tally(chapter)
    measured["whose"] = "the replication"
    piece = tables.paper_table(measured)
    assert piece.text.startswith("Figure 3 of the replication. Copy:")
    assert "<strong>Figure 3 of the replication.</strong>" in piece.html
    assert "Replication" in Text(piece.html).cells and "Paper" not in Text(piece.html).cells
    assert "The replication's numbers: one source" in piece.text and "The paper's" not in piece.text
    counts = tables.tally(chapter)
    assert counts["others"] == before["measured"] and not counts["measured"]
    assert "cells beside others' numbers: 1 recorded, 3 pending" in tables.summary(chapter)
    assert "Figure 3 of the replication: " in tables.scoreboard_text([chapter])


def test_profiles_stand_in_order_of_budget(measured):
    values = measured["rows"][0]["cells"][1]["values"]
    measured["rows"][0]["cells"][1]["values"] = {"paper": 0.1, **dict(reversed(values.items()))}
    cells = Text(tables.paper_table(measured).html).cells
    assert [cell[:3] for cell in cells if cell[:3] in ("cpu", "gpu", "pap")] == ["cpu", "gpu", "pap"]


def test_recorded_values_link_to_their_records(measured, chapter):
    html = tables.paper_table(measured, records=chapter["records"], root="../../").html
    paths = [record["path"] for record in chapter["records"]]
    assert re.findall(r'<a href="([^"]+)" title="results', html) == [f"../../{path}" for path in paths]
    without = tables.paper_table(measured, records=chapter["records"], root=None).html
    assert "<a href" not in without and all(f'title="{path}"' in without for path in paths)


def test_records_that_a_value_names_come_first(measured, chapter):
    detail = measured["rows"][0]["cells"][1]["detail"]["cpu"]
    detail["records"] = ["results/other/seed7.json"]
    html = tables.paper_table(measured, records=chapter["records"]).html
    assert 'href="../results/other/seed7.json"' in html and "cpu/seed0.json" not in html


def test_a_smaller_run_is_not_subtracted_from_the_papers_number(measured):
    assert "Difference" not in tables.paper_table(measured).html
    measured["rows"][0]["cells"][1]["values"] = {"paper": 0.3}
    assert "+0.2 (+200.0%)" in tables.paper_table(measured).html


def test_rows_offer_their_command(measured):
    piece = tables.paper_table(measured)
    command = "attn run graves2014ntm --experiment copy/ntm_lstm --profile cpu"
    assert piece.html.count(f"<pre>{command}</pre>") == 2
    assert piece.text.count(command) == 1


def test_freshness_only_when_asked_for(measured, chapter):
    assert "stale" not in tables.paper_table(measured, records=chapter["records"]).html
    assert "stale" not in tables.claims_table(chapter["claims"]).html
    assert "⚠ stale" in tables.paper_table(measured, freshness=True).text
    assert "⚠ stale" in " ".join(tables.claims_table(chapter["claims"], freshness=True).text.split())


def test_a_number_that_a_replay_spoke_for_says_so(measured, chapter):
    for cell in (cell for row in measured["rows"] for cell in row["cells"] if cell["freshness"]):
        cell["freshness"] = "revalidated"
    text = tables.paper_table(measured, freshness=True).text
    assert "↻ revalidated" in text and "✓ fresh" not in text
    assert "1 of 4 stale, 1 revalidated" in tables.summary(chapter)


def test_the_scale_of_the_runs_in_a_sentence(chapter):
    assert tables.scale_words([chapter]) == (
        "4 records: 3 at profile cpu, 1 at profile gpu; none at paper. Of 4 measured cells of the papers 3 are still pending."
    )
    assert tables.scale_words([chapter | {"records": []}]).startswith("No record yet. Of 4")


def test_memory_only_is_marked_at_every_number(memory, exact):
    html = tables.paper_table(memory).html
    assert html.count('class="attn-unverified"') == 3  # two cells and the note
    assert "12.5 (unverified)" in tables.paper_table(memory).text
    assert "unverified" not in tables.paper_table(exact).html


def test_single_cells_from_memory_are_marked(exact):
    exact["rows"][0]["cells"][-1]["verified"] = False
    assert tables.paper_table(exact).html.count('class="attn-unverified"') == 1


def test_what_was_read_off_a_plot_is_subtracted_from_nothing(measured):
    measured["rows"][0]["cells"][1]["values"] = {"paper": 0.3}
    assert "+0.2 (+200.0%)" in tables.paper_table(measured).text
    measured["read_off"] = True
    assert "+0.2" not in tables.paper_table(measured).text


def test_quoted_rows_are_set_apart(memory):
    assert tables.paper_table(memory).html.count("attn-row-quoted") == 1


def test_a_long_note_stands_once_below_the_table(exact):
    for row in exact["rows"][:2]:
        row["cells"][-1]["note"] = "because " + "of this and that " * 9
    html = tables.paper_table(exact).html
    assert html.count("because") == html.count("Note 1: because") == 1
    assert html.count(">note 1<") == 2


def test_a_scale_that_many_values_share_stands_once_below_the_table(measured):
    values = measured["rows"][0]["cells"][1]
    scale = "some of " + "the training " * 5
    values["detail"] = {profile: detail | {"scale": scale} for profile, detail in values["detail"].items()}
    piece = tables.paper_table(measured)
    cells = Text(piece.html).cells
    assert "cpunote 1" in cells and "gpunote 1" in cells
    assert piece.html.count(scale.strip()) == piece.text.count(f"Note 1: {scale.strip()}") == 1


def test_controls_and_reasons_that_several_tests_share_stand_once_below_the_table(chapter):
    claims = [deepcopy(claim) for claim in chapter["claims"] for _ in range(2)]
    control, reason = "a model of half the width " * 3, "a run had not stopped falling " * 3
    for claim in claims:
        claim["control"] = {"statement": control, "interval": [0.1, 0.2], "shown": True}
    claims[0]["reason"] = reason  # of one test alone: it stays where it is
    piece = tables.claims_table(claims)
    assert piece.html.count(control.strip()) == 1 and "Note 1: a model of half the width" in piece.text
    assert Text(piece.html).cells.count("✓ shown [0.1,\u00a00.2]note 1") == len(claims)
    assert "Note 2" not in piece.text and any(cell.endswith(reason) for cell in Text(piece.html).cells)
    claims[1]["reason"] = reason
    assert tables.claims_table(claims).html.count(reason.strip()) == 1


def test_footnotes_keep_the_order_in_which_they_are_met():
    long, longer, short = "x" * 61, "y" * 90, "z" * 60
    footnotes = Footnotes([short, longer, None, long, short, long, ""], longest=80)
    assert [footnotes(text) for text in (short, longer, long, None)] == [short, "note 1", "note 2", None]
    assert [note.text for note in footnotes.notes()] == [f"Note 1: {longer}", f"Note 2: {long}"]


def test_blank_cells_of_the_print_have_no_line(measured):
    measured["rows"][1]["cells"][0]["paper"] = None
    cells = Text(tables.paper_table(measured).html).cells
    assert cells.count("lstm") == 1


def test_a_row_of_blanks_still_stands(memory):
    memory["rows"][0]["cells"][0]["paper"] = None
    assert "Another system" in tables.paper_table(memory).text


# --- claims, deviations, live checks ----------------------------------------------------------------------


def test_claims_show_verdict_interval_seeds_margin_and_control(chapter):
    cells = Text(tables.claims_table(chapter["claims"]).html).cells
    assert {"✓ holds", "✗ fails, contradicted"} < set(cells)
    chapter["claims"][1]["contradicted"] = False
    assert "? fails, undecided" in Text(tables.claims_table(chapter["claims"]).html).cells
    assert "12.3 [10.1,\u00a014.6] bits per sequence5 seeds at cpu" in cells
    assert "−0.52 [−0.9,\u00a0−0.14] bits per sequence3 seeds at gpu, equal within ±0.05" in cells
    assert any(cell.startswith("✗ not shown [−2,\u00a01]") for cell in cells)
    assert any(cell.endswith("the positive control does not show at this budget") for cell in cells)


def test_failures_stand_by_how_they_fail(chapter):
    against = chapter["claims"][1]
    undecided = against | {"measure": "wide <interval>", "contradicted": False}
    found = tables.failures_list([undecided, against])
    first, second = found.text.split("\n\n")
    assert first.startswith("Contradicted") and against["measure"] in first
    assert second.startswith("Undecided") and "wide <interval>: −0.52 [−0.9,\u00a0−0.14]" in second
    assert "wide &lt;interval&gt;" in found.html and found.html.index("Contradicted") < found.html.index(
        "Undecided"
    )
    unmeasured = against | {"measure": "", "estimate": None}
    assert tables.failures_list([unmeasured]).text.endswith(f"- {against['statement']}")
    held = [claim for claim in chapter["claims"] if claim["verdict"] == "holds"]
    assert tables.failures_list(held).text == "No test of a claim fails; 0 of 2 are not tested at this scale."
    assert tables.failures_list(chapter["claims"]).text.count("\n- ") == 1, "only what fails is listed"


def test_margins_say_their_size_and_why():
    margins = {
        "copy_solved": {"value": 0.02, "unit": "bits", "why": "a fiftieth of <chance>"},
        "learned": {"value": 1.0e-5, "unit": "share", "why": "rounding"},
    }
    found = tables.margins_list(margins)
    assert "- copy solved: 0.02 bits; a fiftieth of <chance>\n- learned: " in found.text
    assert "&lt;chance&gt;" in found.html and found.html.count("<li>") == 2
    assert tables.margins_list({}).html == ""


def test_tests_of_one_claim_stand_together(chapter):
    chapter["claims"][1]["statement"] = chapter["claims"][0]["statement"]
    assert tables.claims_table(chapter["claims"]).text.count("NTM learns copy faster than LSTM.") == 1


def test_deviations_say_when_no_effect_was_measured(chapter):
    cells = Text(tables.deviations_table(chapter["deviations"]).html).cells
    assert "not measured" in cells and "batch_size=1" in cells and "learned initial memory <bias>" in cells


def test_live_table_takes_bools_words_and_nothing():
    rows = [
        {"quantity": "a", "value": "below 0.1", "baseline": "above 5", "verdict": True},
        {"quantity": "b", "value": "above 0.1", "baseline": None, "verdict": False},
        {"quantity": "c", "value": 3, "verdict": "not tested at this scale"},
        {"quantity": "d", "value": "equal"},
    ]
    cells = Text(tables.live_table(rows).html).cells[4:]
    assert cells[3::4] == ["✓ holds", "✗ fails", "○ not tested at this scale", "–"]
    assert cells[2::4] == ["above 5", "–", "–", "–"]


# --- scoreboard -------------------------------------------------------------------------------------------


def test_tally_counts_every_result_once(chapter):
    counts = tables.tally(chapter)
    assert counts["computed"] == {"matches": 1, "fitted": 1, "differs": 2, "pending": 1}
    assert counts["measured"] == {"recorded": 1, "pending": 3}
    assert counts["shown"] == {"quoted": 1} and not counts["others"]
    assert counts["records"] == {"fresh": 2, "revalidated": 1, "stale": 1}


def test_fitted_never_counts_as_equal(chapter):
    assert "1 equal, 2 not equal, 1 fitted" in tables.summary(chapter)


def test_scoreboard_text_names_stale_and_skipped_records(status):
    text = tables.scoreboard_text(status)
    assert "cpu/seed2.json: changed since: attn.ntm" in text
    assert "cpu/seed9.json: not readable as JSON" in text
    assert "of 4 claims tested here 2 hold" in text


def test_scoreboard_without_chapters():
    assert tables.scoreboard_text([]) == "No chapter yet."


def _form(value):
    """Keys of nested dicts; a list stands for its first entry."""
    if isinstance(value, dict):
        return {key: _form(v) for key, v in value.items() if key not in ("values", "detail", "control")}
    return _form(value[0]) if isinstance(value, list) and value else None


def test_the_made_up_status_has_the_form_of_the_real_one(status, tmp_path):
    real = collect(chapters(), tmp_path)
    for ours in (status[0], *real):
        ours["records"], ours["skipped"] = [], []
        ours["deviations"] = ours["deviations"][:0]
    for chapter in real:
        assert _form(status[0]) == _form(chapter), chapter["id"]
    n_tables = sum(len(chapter["tables"]) for chapter in real)
    assert tables.scoreboard_html(real).html.count("attn-fold") == n_tables
