"""Facts files: the book's own, and every fault that a file can have."""

import copy
import re

import pytest
import yaml

from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import RECORDED_PROFILES
from attn.reproduction.facts import CHECKED, THE_PAPER, FactsError, load_paper, load_papers
from attn.reproduction.paths import PAPERS
from tests.reproduction.toy import FACTS

FILES = sorted(PAPERS.glob("*.yaml"))


@pytest.fixture
def faulty(tmp_path):
    """A function that writes the toy's facts, changed, and returns the sentence of the error."""

    def sentence(change):
        data = yaml.safe_load(FACTS)
        change(data)
        return sentence_of(tmp_path, yaml.safe_dump(data))

    return sentence


def sentence_of(folder, text):
    path = folder / "toy2000.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FactsError) as caught:
        load_paper(path)
    sentence = str(caught.value)
    assert sentence.startswith("toy2000.yaml") and "\n" not in sentence
    assert len(sentence) < 400
    return sentence


def test_single_cells_may_be_from_memory_alone(tmp_path, faulty):
    data = yaml.safe_load(FACTS)
    data["tables"][1]["rows"][0]["unverified"] = ["error"]
    data["tables"][1]["read_off"] = True
    (tmp_path / "toy2000.yaml").write_text(yaml.safe_dump(data))
    table = load_paper(tmp_path / "toy2000.yaml").table("table2_errors")
    assert [table.confirms(row, "error") for row in table.rows] == [False, True, True]
    assert table.verified and table.read_off and not table.confirms(table.rows[0], "error")
    assert table.confirms(table.rows[0], "model")
    wrong = faulty(lambda data: data["tables"][1]["rows"][0].update(unverified=["errors"]))
    assert "table2_errors row 0 has cells in no column: ['errors']" in wrong


# --- the book's own files ----------------------------------------------------------------------------------


def test_all_papers_are_there():
    papers = load_papers()
    assert len(papers) == len(FILES) == 19
    assert list(papers) == [path.stem for path in FILES]
    assert len({paper.bibtex_key for paper in papers.values()}) == 19


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_paper_is_loaded_cell_by_cell(path):
    written = yaml.safe_load(path.read_text("utf-8"))
    paper = load_paper(path)
    assert (paper.id, paper.title, list(paper.authors)) == (
        written["id"],
        written["title"],
        written["authors"],
    )
    assert len(paper.tables) == len(written["tables"])
    for table, source in zip(paper.tables, written["tables"], strict=True):
        assert [dict(row) for row in table.rows] == source["rows"]
        assert list(table.columns) == source["columns"]
        assert (table.id, table.checked, table.source) == (source["id"], source["checked"], source["source"])
        assert table.verified == (source["checked"] in ("two sources", "one source"))
        assert table.checked in CHECKED and table.whose == source.get("whose", THE_PAPER)
    assert [claim.id for claim in paper.claims] == [claim["id"] for claim in written["claims"]]
    assert {claim.table for claim in paper.claims} <= {table.id for table in paper.tables}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_key_is_written_twice(path):
    """YAML lets the last of two equal keys win, so that a cell would silently vanish."""

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader, node, deep=False):
        keys = [loader.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"line {node.start_mark.line + 1}: {keys}"
        return yaml.SafeLoader.construct_mapping(loader, node, deep)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert yaml.load(path.read_text("utf-8"), Loader)["id"] == path.stem


def test_unverified_tables_name_no_source_as_if_they_had_one():
    for paper in load_papers().values():
        for table in paper.tables:
            if table.verified:
                assert table.source, f"{paper.id} {table.id} was checked against a source that is not named"


def test_readers_see_how_every_table_was_checked():
    from attn.book import _fact_table

    for paper in load_papers().values():
        for table in paper.tables:
            shown = _fact_table(table)
            single = any("unverified" in row for row in table.rows)  # shown in the folded cells
            for form, marked in (
                (shown.html, single or not table.verified),
                (shown.text, not table.verified),
            ):
                assert f"{len(table.rows)} rows, {table.checked}" in form
                assert ("unverified" in form.replace(table.notes, "")) == marked


def test_facts_cannot_be_changed_by_who_reads_them():
    papers = load_papers()
    table = papers["graves2014ntm"].table("table3_lstm")
    with pytest.raises(TypeError):
        papers["other"] = None
    with pytest.raises(TypeError):
        table.rows[0]["parameters"] = 1
    with pytest.raises(AttributeError):
        table.checked = "two sources"


def test_budgets_are_named_as_profiles():
    for paper in load_papers().values():
        for task, budgets in paper.budgets.items():
            assert set(budgets) <= {"ci", *RECORDED_PROFILES}, f"{paper.id} {task}"


# --- one sentence for every fault --------------------------------------------------------------------------


def remove(key):
    return lambda data: data.pop(key)


def put(place, value):
    """Set what stands at `place`, as tables/0/id."""

    def change(data):
        *way, last = (int(part) if part.isdigit() else part for part in place.split("/"))
        for part in way:
            data = data[part]
        data[last] = value

    return change


@pytest.mark.parametrize(
    "key",
    ["id", "title", "authors", "year", "venue", "arxiv", "bibtex_key", "tables", "recipe", "claims", "exact"],
)
def test_what_is_missing_is_named(faulty, key):
    sentence = faulty(remove(key))
    assert f"'{key}' is a required property" in sentence and "top level" in sentence


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("id", "Toy 2000", "id"),
        ("title", "", "title"),
        ("authors", [], "authors"),
        ("authors", "A. Person", "authors"),
        ("year", "2000", "year"),
        ("year", 1066, "year"),
        ("arxiv", 1410.5401, "arxiv"),
        ("arxiv", "14105401", "arxiv"),
        ("bibtex_key", "Person 2000", "bibtex_key"),
        ("titel", "Fitting", "titel"),
        ("tables", {}, "tables"),
        ("tables/0/id", "Table 1", "tables/0/id"),
        ("tables/0/caption", "", "tables/0/caption"),
        ("tables/0/columns", [], "tables/0/columns"),
        ("tables/0/columns/0", 3, "tables/0/columns/0"),
        ("tables/0/rows/1", [5, 7], "tables/0/rows/1"),
        ("tables/0/checked", "twice", "tables/0/checked"),
        ("tables/0/source", 3, "tables/0/source"),
        ("tables/0/notes", None, "tables/0/notes"),
        ("tables/0/sauce", "a library", "tables/0"),
        ("tables/0/whose", "replication", "tables/0/whose"),
        ("claims/0/statement", "", "claims/0/statement"),
        ("claims/0/tables", "table1", "claims/0"),
        ("exact", [{"formula": "4"}], "exact/0"),
        ("recipe", "none", "recipe"),
        ("budgets", {"fit": 3}, "budgets/fit"),
        ("margins/same_line/value", 0, "margins/same_line/value"),
        ("margins/same_line", {"value": 1}, "margins/same_line"),
        ("deviations/0/effect", "larger", "deviations/0"),
        ("deviations/0", {"id": "size"}, "deviations/0"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(faulty, place, value, named):
    assert named in faulty(put(place, value))


def test_valid_values_are_named(faulty):
    sentence = faulty(put("tables/0/checked", "twice"))
    assert "'twice'" in sentence and all(repr(word) in sentence for word in CHECKED)


def test_id_and_file_name_agree(faulty):
    assert "'toy1999' differs from the file's name" in faulty(put("id", "toy1999"))


@pytest.mark.parametrize("kind", ["table", "claim", "exact", "deviation"])
def test_no_id_twice(faulty, kind):
    def double(data):
        key = kind if kind == "exact" else f"{kind}s"
        data["exact"] = [{"id": "count"}]
        data[key].append(copy.deepcopy(data[key][0]))

    sentence = faulty(double)
    assert "twice" in sentence and kind in sentence


def test_a_cell_in_no_column(faulty):
    sentence = faulty(put("tables/0/rows/1/weihgts", 7))
    assert "table1_sizes row 1" in sentence and "weihgts" in sentence


def test_a_claim_on_no_table(faulty):
    sentence = faulty(put("claims/1/table", "table9"))
    assert "lines_agree" in sentence and "'table9'" in sentence
    assert "table1_sizes, table2_errors, table3_lore" in sentence


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (FACTS.replace("authors: [A. Person]", "authors: [A. Person"), r"line \d+"),
        (FACTS.replace("title: Fitting", "title: Fitting: one"), "line 2"),
        (FACTS + "\tid: x\n", r"line \d+"),
        (b"\xff\xfe" + FACTS.encode(), "UTF-8|utf-8|YAML"),
        ("", "top level"),
        ("- 1\n", "top level"),
    ],
)
def test_what_is_no_yaml_says_where(tmp_path, text, named):
    assert re.search(named, sentence_of(tmp_path, text))


# --- looking up --------------------------------------------------------------------------------------------


def test_unknown_names_give_the_valid_ones():
    paper = load_papers()["graves2014ntm"]
    for look_up, valid in (
        (paper.table, "table3_lstm"),
        (paper.claim, "copy_faster"),
        (paper.exact_fact, "lstm_baseline_params"),
    ):
        with pytest.raises(UsageError, match=rf"unknown .*graves2014ntm 'none'; valid: .*{valid}"):
            look_up("none")
    assert paper.table("table3_lstm").id == "table3_lstm"
    assert paper.claim("copy_faster").table == "fig3_copy_curves"
    assert paper.exact_fact("chance_costs")["id"] == "chance_costs"
