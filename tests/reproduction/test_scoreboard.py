"""What `attn status --json` says: its shape, the cells, and what it makes of files that are no record."""

import json
import math

import pytest
from jsonschema import Draft202012Validator

from attn.experiments import chapters
from attn.reproduction.experiment import Recomputed
from attn.reproduction.facts import FactTable
from attn.reproduction.paths import results_dir
from attn.reproduction.scoreboard import ChapterState, agrees, collect, compared, headline
from tests.reproduction.status_schema import STATUS


@pytest.fixture(scope="module")
def real():
    return collect(chapters(), results_dir())


@pytest.fixture
def status(toy, monkeypatch):
    """A function that gives the toy's state."""
    toy.use(monkeypatch)
    return lambda: collect([toy.chapter], toy.results)[0]


def cells(chapter, table):
    """Cells of a table by row and column."""
    (found,) = [t for t in chapter["tables"] if t["id"] == table]
    return {row["label"]: {cell["column"]: cell for cell in row["cells"]} for row in found["rows"]}


def strict(value):
    """Through JSON without NaN and infinity, as programs read it."""
    return json.loads(json.dumps(value, allow_nan=False))


# --- shape -------------------------------------------------------------------------------------------------


def test_the_real_status_has_the_promised_shape(real):
    errors = [
        f"{list(e.absolute_path)}: {e.message[:200]}"
        for e in Draft202012Validator(STATUS).iter_errors(strict(real))
    ]
    assert errors == []


def test_the_toy_s_status_has_it_too(status, toy):
    validator = Draft202012Validator(STATUS)
    assert not list(validator.iter_errors([strict(status())]))
    for seed in range(3):
        toy.made_up("line", seed, error=0.1 + seed / 100)
        toy.made_up("flat", seed, error=0.5)
    (toy.results / "toy2000" / "bad.json").write_text("{")
    found = status()
    assert not list(validator.iter_errors([strict(found)]))
    assert len(found["records"]) == 6 and len(found["skipped"]) == 1


def test_the_schema_can_fail(real):
    broken = strict(real)
    broken[0]["claims"][0]["verdict"] = "perhaps"
    del broken[0]["tables"][0]["rows"][0]["cells"][0]["kind"]
    assert len(list(Draft202012Validator(STATUS).iter_errors(broken))) == 2


def test_every_table_and_row_of_the_facts_is_there(real):
    from attn.reproduction.facts import load_papers

    for chapter in real:
        paper = load_papers()[chapter["id"]]
        assert [table["id"] for table in chapter["tables"]] == [table.id for table in paper.tables]
        for shown, table in zip(chapter["tables"], paper.tables, strict=True):
            assert (shown["checked"], shown["source"]) == (table.checked, table.source)
            assert [column["name"] for column in shown["columns"]] == list(table.columns)
            for row, printed in zip(shown["rows"], table.rows, strict=True):
                for cell in row["cells"]:
                    assert cell["paper"] == printed.get(cell["column"])
        assert {claim.id for claim in paper.claims} == {claim["fact"] for claim in chapter["claims"]}
        assert [d["id"] for d in chapter["deviations"]] == [d.id for d in paper.deviations]


def test_every_recorded_run_is_listed(real):
    from attn.reproduction.records import load_records

    listed = {record["path"] for chapter in real for record in chapter["records"]}
    valid, _ = load_records(results_dir())
    assert listed == {f"results/{r.path.relative_to(results_dir()).as_posix()}" for r in valid}
    assert all(chapter["skipped"] == [] for chapter in real)


def test_row_ids_are_unique(real):
    for chapter in real:
        for table in chapter["tables"]:
            ids = [row["id"] for row in table["rows"]]
            assert len(set(ids)) == len(ids), table["id"]


# --- exact cells of the real chapter -----------------------------------------------------------------------


def test_parameter_counts_of_the_neural_turing_machine(real):
    (chapter,) = [c for c in real if c["id"] == "graves2014ntm"]
    counts = {row: cell["parameters"] for row, cell in cells(chapter, "table3_lstm").items()}
    assert {row: cell["matches"] for row, cell in counts.items()} == {
        "Copy": "yes", "Repeat Copy": "yes", "Associative": "yes", "N-Grams": "yes", "Priority Sort": "no",
    }  # fmt: skip
    assert counts["Copy"]["values"] == {"exact": 1352969}
    assert "no solution" in counts["Priority Sort"]["note"] and counts["Copy"]["note"] is None
    for table in ("table1_ntm_ff", "table2_ntm_lstm"):
        for row, found in cells(chapter, table).items():
            cell = found["parameters"]
            assert (cell["kind"], cell["matches"], cell["state"]) == ("exact", "no", "differs"), row
            assert cell["note"].startswith("Not matched")
            assert found["memory"]["kind"] == "setting"
    assert cells(chapter, "table2_ntm_lstm")["Copy"]["parameters"]["values"] == {"exact": 62981}


# --- cells of every kind -----------------------------------------------------------------------------------


def test_exact_recomputed_fitted_and_pending_cells(status):
    found = cells(status(), "table1_sizes")
    first, second = found["3 inputs"], found["5 inputs"]
    assert (first["weights"]["kind"], first["weights"]["matches"], first["weights"]["state"]) == (
        "exact",
        "yes",
        "matches",
    )
    assert first["weights"]["values"] == {"exact": 4} and first["weights"]["note"] == "counted"
    assert (second["weights"]["matches"], second["weights"]["state"]) == ("no", "differs")
    assert second["weights"]["values"] == {"exact": 6} and second["weights"]["paper"] == 7
    assert (first["ratio"]["kind"], first["ratio"]["state"], first["ratio"]["matches"]) == (
        "recomputed",
        "matches",
        None,
    )
    assert second["ratio"]["state"] == "differs" and second["ratio"]["values"] == {"recomputed": 0.2}
    assert (first["other"]["matches"], first["other"]["state"]) == ("fitted", "fitted")
    assert (second["other"]["matches"], second["other"]["state"], second["other"]["values"]) == (
        None,
        "pending",
        {},
    )
    assert first["rate"]["state"] == "setting"
    assert (first["blank"]["kind"], first["blank"]["state"], first["blank"]["values"]) == (
        "quoted",
        "quoted",
        {},
    )


def test_of_quoted_rows_only_arithmetic_on_quoted_facts_is_computed(status):
    (table,) = [t for t in status()["tables"] if t["id"] == "table1_sizes"]
    assert [row["quoted"] for row in table["rows"]] == [False, False, True]
    quoted = {cell["column"]: cell for cell in table["rows"][2]["cells"]}
    ratio = quoted.pop("ratio")
    assert (ratio["kind"], ratio["state"], ratio["values"]) == (
        "recomputed",
        "differs",
        {"recomputed": 1 / 9},
    )
    assert {cell["state"] for cell in quoted.values()} == {"quoted", "setting"}
    assert all(cell["values"] == {} for cell in quoted.values())
    assert quoted["weights"]["paper"] == 10
    assert table["rows"][2]["command"] is None


def test_measured_cells_have_a_value_a_profile(status, toy):
    before = cells(status(), "table2_errors")
    assert (before["line"]["error"]["state"], before["line"]["error"]["freshness"]) == ("pending", None)
    for seed, error in enumerate((0.25, 0.5, 0.75)):
        toy.made_up("line", seed, error=error)
    toy.made_up("line", 0, error=0.125, profile="gpu")
    cell = cells(status(), "table2_errors")["line"]["error"]
    assert (cell["kind"], cell["state"], cell["paper"]) == ("measured", "recorded", 0.5)
    assert cell["values"] == {"cpu": 0.5, "gpu": 0.125}
    assert cell["detail"]["cpu"] == {
        "std": 0.25, "quartiles": None, "seeds": 3, "seed_values": [0.25, 0.5, 0.75], "scale": "12 updates", "device": "cpu",
        "seconds": 60.0, "unit": "squared error",
        "records": [f"results/toy2000/fit/line/cpu/seed{seed}.json" for seed in range(3)],
    }  # fmt: skip
    assert cell["detail"]["gpu"]["std"] is None
    assert cell["freshness"] == "stale", (
        "the toy has no profile gpu, so that record speaks of no code of today"
    )
    assert cells(status(), "table2_errors")["curve"]["error"]["state"] == "pending", "no experiment fills it"


def test_a_record_that_cannot_fill_a_cell_leaves_it_pending(status, toy):
    toy.made_up("line", metrics={"loss": {"value": 1.0, "unit": "none", "definition": "something else"}})
    assert cells(status(), "table2_errors")["line"]["error"]["state"] == "pending"


def test_stale_records_mark_cells_claims_and_lines(status, toy):
    for seed in range(3):
        toy.made_up("line", seed, error=0.1)
        toy.made_up("flat", seed, error=0.5)
    found = status()
    assert cells(found, "table2_errors")["line"]["error"]["freshness"] == "fresh"
    assert found["claims"][0]["freshness"] == "fresh"
    assert {record["freshness"] for record in found["records"]} == {"fresh"}
    toy.edit("attn.experiments.toy", "SLOPE = 2.0", "SLOPE = 3.0")
    found = status()
    assert cells(found, "table2_errors")["line"]["error"]["freshness"] == "stale"
    assert found["claims"][0]["freshness"] == "stale" and found["claims"][0]["verdict"] == "holds"
    assert {record["freshness"] for record in found["records"]} == {"stale"}
    assert all("attn.experiments.toy:build" in record["why"] for record in found["records"])


def test_a_print_from_memory_is_compared_with_nothing(real):
    compared, computed = [], 0
    for chapter in real:
        for table in chapter["tables"]:
            found = [
                cell
                for row in table["rows"]
                for cell in row["cells"]
                if cell["kind"] in ("exact", "recomputed")
            ]
            found = [cell for cell in found if cell["values"]]
            if table["checked"] == "memory only":
                computed += len(found)
                compared += [cell for cell in found if cell["state"] != "unverified" or cell["matches"]]
            else:  # arithmetic may still rest on numbers from memory
                assert all(cell["state"] != "unverified" for cell in found if cell["kind"] == "exact")
    assert computed and not compared
    (memory,) = [chapter for chapter in real if chapter["id"] == "lample2019pkm"]
    assert "known from memory alone" in memory["headline"] and "equal the print" not in memory["headline"]


def test_arithmetic_on_numbers_from_memory_equals_nothing():
    rule = Recomputed(lambda row: row["a"] * 2, verified=lambda row: row["known"])
    table = FactTable("table1", "", ("a", "b"), (), "two sources", None, "")
    found = [
        compared(rule, table, {"a": 2, "b": 4, "known": known, **more}, "b", [4])
        for known, more in ((True, {}), (False, {}), (True, {"unverified": ["b"]}))
    ]
    assert [cell["state"] for cell in found] == ["matches", "unverified", "unverified"]
    assert all(cell["values"] == {"recomputed": 4} for cell in found)


def test_what_is_the_paper_s_own_and_not_rerun_is_not_quoted(real):
    (chapter,) = [c for c in real if c["id"] == "kitaev2020"]
    (table,) = [t for t in chapter["tables"] if t["id"] == "trained_numbers_in_text"]
    states = {row["label"]: (row["cells"][0]["kind"], row["cells"][0]["state"]) for row in table["rows"]}
    own = {label for label, pair in states.items() if pair == ("own", "own")}
    assert own == {
        "enwik8 test, 12 layers, trained longer with tuning",
        "hash rounds at which LSH nearly matches full attention on imagenet64",
    }
    assert all((row["command"] is None) == (row["label"] in own) for row in table["rows"])
    assert not any(row["quoted"] for row in table["rows"])


# --- claims and headline -----------------------------------------------------------------------------------


def test_claims_of_the_paper_without_a_test_come_last(status):
    claims = status()["claims"]
    assert [claim["id"] for claim in claims] == [
        "line_beats_flat", "one_weight_each", "lines_agree", "lore", "curves_win",
    ]  # fmt: skip
    assert [claim["verdict"] for claim in claims] == [
        "not tested at this scale",
        "holds",
        *["not tested at this scale"] * 3,
    ]


def test_the_headline_says_numbers_of_others_apart():
    def table(whose, *cells):
        filled = [{"kind": kind, "state": "x", "values": {"cpu": 1} if kind == "measured" else {}, "matches": None}
                  for kind in cells]  # fmt: skip
        return {"whose": whose, "rows": [{"cells": filled}]}

    ours = [table("the paper", "measured", "quoted", "own"), table("the paper", "measured")]
    theirs = table("the replication", "measured", "measured", "measured")
    theirs["rows"][0]["cells"][0]["values"] = {}
    assert headline([], [*ours, theirs]) == (
        "No claims; 0 of 0 computed cells equal the print, and 2 of 2 measured cells have a recorded number; beside "
        "numbers of the replication, 2 of 3; 1 more of the paper's own is shown and not rerun."
    )
    assert headline([], ours[1:]).endswith("and 1 of 1 measured cells have a recorded number.")


def test_the_headline_counts(status, toy):
    text = status()["headline"]
    assert text.startswith("Of 5 tests of 5 claims, 1 holds and 4 are not tested at this scale; ")
    # weights (one right, one wrong), other (fitted, pending); errors of three models
    assert "computed cells equal the print (1 of 4 exact, " in text and "0 of 3 measured" in text
    for seed in range(3):
        toy.made_up("line", seed, error=0.5)
        toy.made_up("flat", seed, error=0.1)
    text = status()["headline"]
    assert (
        "Of 5 tests of 5 claims, 1 holds, 1 is contradicted and 3 are not tested" in text
        and "2 of 3 measured" in text
    )


# --- files that are no record ------------------------------------------------------------------------------


def test_a_corrupt_file_is_listed_and_the_rest_is_shown(status, toy):
    good = toy.made_up("line", 0)
    bad = toy.made_up("line", 1)
    bad.path.write_text(bad.path.read_text()[:300])
    (toy.results / "notes.json").write_text("[]")
    found = status()
    assert [record["path"] for record in found["records"]] == ["results/toy2000/fit/line/cpu/seed0.json"]
    assert found["records"][0]["seconds"] == good.data["run"]["seconds"]
    paths = [item["path"] for item in found["skipped"]]
    assert paths == ["results/notes.json", "results/toy2000/fit/line/cpu/seed1.json"]
    assert all(item["reason"] for item in found["skipped"])
    assert cells(found, "table2_errors")["line"]["error"]["values"] == {"cpu": 0.5}


def test_every_bad_file_is_listed_exactly_once(toy, monkeypatch):
    from dataclasses import replace

    toy.use(monkeypatch)
    papers = {"toy2000": toy.paper, "second2000": toy.paper, "vaswani2017": toy.paper}
    monkeypatch.setattr("attn.reproduction.scoreboard.load_papers", lambda: papers)
    second = replace(toy.chapter, paper="second2000", number=10)
    for place in (
        "notes.json",
        "unknown/x.json",
        "vaswani2017/x.json",
        "toy2000/x.json",
        "second2000/x.json",
    ):
        path = toy.results / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    listed = [
        item["path"] for chapter in collect([toy.chapter, second], toy.results) for item in chapter["skipped"]
    ]
    assert sorted(listed) == [
        "results/notes.json", "results/second2000/x.json", "results/toy2000/x.json", "results/unknown/x.json",
        "results/vaswani2017/x.json",
    ]  # fmt: skip


def test_records_of_another_paper_are_not_this_chapter_s(toy, monkeypatch):
    toy.use(monkeypatch)
    mine = toy.made_up()
    other = type(mine)(mine.path, {**mine.data, "paper": "other2000"})
    assert ChapterState(toy.chapter, [mine, other]).records == [mine]


# --- agreement with print ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "printed", "equal"),
    [
        (1352969, 1352969, True),
        (1352970, 1352969, False),
        (65.4, 65, True),
        (65.6, 65, False),
        (28.44, 28.4, True),
        (28.46, 28.4, False),
        (0.333, 0.33, True),
        (0.336, 0.33, False),
        (-0.333, -0.33, True),
        (0.333, -0.33, False),
        (3e-05, 3e-05, True),
        (3.4e-05, 3e-05, True),
        (3.6e-05, 3e-05, False),
        (3.3e18, 3.3e18, True),
        (3.34e18, 3.3e18, True),
        (3.36e18, 3.3e18, False),
        (3.3e17, 3.3e18, False),
        (0.0, 0.0, True),
        ("3 x 256", "3 x 256", True),
        ("3 x 256", "3 x 512", False),
        ("O(n)", "O(n^2)", False),
        (math.inf, 4.8, False),
    ],
)
def test_agreement_at_the_printed_precision(value, printed, equal):
    assert agrees(value, printed) is equal


@pytest.mark.parametrize(
    ("value", "printed", "column"), [(28.4, 28.0, (28.0, 41.8)), (2.4e19, 2.0e19, (2.0e19, 1.2e20))]
)
def test_a_trailing_zero_of_the_print_counts(value, printed, column):
    """A float does not show that it was printed as 28.0 or 2.0e19; its column does."""
    assert agrees(printed, printed, column)
    assert not agrees(value, printed, column)
