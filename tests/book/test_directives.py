"""The directives of attn.book, in small Sphinx projects of their own."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.testing.util import SphinxTestApp

from attn import book
from attn.reproduction.facts import load_papers
from attn.reproduction.speed import BENCHMARKS
from tests.reproduction.made_up_speed import result, row, store

EVERY = "overview scoreboard freshness claims deviations facts downloads speed status".split()
OF_CHAPTER = ("freshness", "claims", "deviations")


def page(*names):
    directives = [f"attn-{n}}} graves2014ntm" if n in OF_CHAPTER else f"attn-{n}}}" for n in names]
    return "# Page\n\n" + "\n\n".join(f"```{{{directive}\n```" for directive in directives) + "\n"


class Project:
    """A source folder with one page and its output folder; `build` returns the page's HTML."""

    def __init__(self, folder):
        self.source, self.out = folder / "src", folder / "src/_build/html"
        (self.source / "sub").mkdir(parents=True)
        config = (
            "extensions = ['myst_parser', 'attn.book']\nhtml_theme = 'basic'\nexclude_patterns = ['_build']\n"
        )
        (self.source / "conf.py").write_text(config)
        (self.source / "index.md").write_text("# Index\n\n```{toctree}\nsub/page\n```\n")

    def write(self, text):
        (self.source / "sub/page.md").write_text(text)
        return self

    def build(self, builder="html"):
        app = SphinxTestApp(builder, srcdir=self.source, freshenv=False)
        try:
            app.build()
            self.warnings = re.sub(r"\x1b\[[0-9;]*m", "", app.warning.getvalue())
        finally:
            app.cleanup()
        suffix = {"html": "html", "text": "txt"}[builder]
        return (self.source / f"_build/{builder}/sub/page.{suffix}").read_text("utf-8")


@pytest.fixture
def project(tmp_path, results, status, monkeypatch):
    monkeypatch.setattr(book.Book, "status", property(lambda self: status))
    return Project(tmp_path)


def test_every_directive_builds_without_a_warning(project):
    html = project.write(page(*EVERY)).build()
    assert project.warnings == ""
    assert html.count("<table") > 20
    assert "Neural Turing Machine" in html


def test_nothing_is_written_into_the_source_tree(project):
    project.write(page(*EVERY))
    before = sorted(path for path in project.source.rglob("*") if path.is_file())
    project.build()
    after = sorted(p for p in project.source.rglob("*") if p.is_file() and "_build" not in p.parts)
    assert after == before


def test_every_directive_has_a_plain_text_form(project):
    text = project.write(page(*EVERY)).build("text")
    assert project.warnings == ""
    assert "✓ holds" in text and "Settings of the LSTM baseline" in text
    assert "<table" not in text


def test_a_page_is_read_again_although_its_source_is_unchanged(project, status):
    assert "learns copy faster" in project.write(page("claims")).build()
    status[0]["claims"][0]["statement"] = "A new statement."
    assert "A new statement." in project.build()


def test_overview_draws_one_picture_for_each_ground_with_the_same_words(project):
    html = project.write(page("overview")).build()
    images = re.findall(r'<img class="only-(\w+) dark-light" src="\.\./([^"]+)" alt="([^"]+)">', html)
    assert [ground for ground, _, _ in images] == ["light", "dark"]
    texts = {alt for _, _, alt in images}
    assert len(texts) == 1 and "1 equal, 2 not equal, 1 fitted" in texts.pop()
    light, dark = [(project.out / source).read_text("utf-8") for _, source, _ in images]
    assert "<svg" in light and "<svg" in dark and light != dark


def test_equal_status_gives_equal_pictures(project):
    project.write(page("overview")).build()
    first = (project.out / book.OVERVIEW.format(ground="dark")).read_bytes()
    project.build()
    assert (project.out / book.OVERVIEW.format(ground="dark")).read_bytes() == first


def test_records_lie_where_the_links_of_a_page_lead(project):
    html = project.write(page("scoreboard", "status")).build()
    links = set(re.findall(r'href="(\.\./results/[^"]+)"', html))
    assert len(links) == 4
    assert all((project.out / "sub" / link).resolve().is_file() for link in links)


def test_a_benchmark_without_result_offers_the_command_that_makes_it(project):
    html = project.write(page("speed")).build()
    assert project.warnings == "" and "<table" not in html
    assert html.count("Not measured yet.") == len(BENCHMARKS) > 0
    text = project.build("text")
    for name in BENCHMARKS:
        assert f'id="speed-{name.replace("_", "-")}"' in html  # as docutils writes names
        assert f"$ python -m benchmarks.{name} --json results/speed/{name}/cpu.json" in text


def test_results_of_benchmarks_are_shown_and_lie_where_their_links_lead(project, results):
    store(results, result(), "cpu")
    store(results, result(row(disturbed=True), device="Example GPU"), "gpu")
    html = project.write(page("speed")).build()
    assert project.warnings == ""
    assert html.count("<table") == 2 and html.count("Not measured yet.") == len(BENCHMARKS) - 1
    assert "✓</span> reaches 4" in html and "⚠</span> disturbed" in html
    links = re.findall(r'href="(\.\./results/speed/[^"]+)"', html)
    assert links == ["../results/speed/ntm/cpu.json", "../results/speed/ntm/gpu.json"]
    assert all((project.out / "sub" / link).resolve().is_file() for link in links)


def test_a_new_result_of_a_benchmark_shows_in_the_next_build(project, results):
    assert "<table" not in project.write(page("speed")).build()
    store(results, result())
    assert project.build().count("<table") == 1


def test_an_invalid_result_of_a_benchmark_is_named_and_breaks_nothing(project, results):
    store(results, result() | {"schema": 9})
    html = project.write(page("speed")).build()
    assert project.warnings == "" and html.count("Not measured yet.") == len(BENCHMARKS)
    assert "results/speed/ntm/cpu.json</code>: schema: 1 was expected" in html


def test_csv_has_a_line_for_each_record_and_metric(project):
    html = project.write(page("downloads")).build()
    link = re.search(r'href="\.\./([^"]+\.csv)"', html)[1]
    with (project.out / link).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2
    assert {row["metric"] for row in rows} == {"cost", "errors"}
    assert "4 records" in html


def test_stale_records_are_warned_of_and_named(project):
    html = project.write(page("freshness")).build()
    assert 'class="admonition warning"' in html
    assert "1 of the 4 records" in html and "cpu/seed2.json" in html and "changed since: attn.ntm" in html


def test_fresh_records_give_a_note(project, status):
    for entry in status[0]["records"]:
        entry["freshness"] = "fresh"
    html = project.write(page("freshness")).build()
    assert 'class="admonition note"' in html and "All 4 records" in html


def test_a_replay_is_not_said_to_be_more(project, status):
    for entry in status[0]["records"]:
        entry["freshness"] = "fresh"
    status[0]["records"][0]["freshness"] = "revalidated"
    html = project.write(page("freshness")).build()
    assert "3 of the 4 records" in html and "for 1 some code has changed since" in html


def test_no_record_gives_a_note(project, status):
    status[0]["records"] = []
    html = project.write(page("freshness", "status")).build()
    assert "no recorded number yet" in html and project.warnings == ""


def test_no_chapter_is_no_error(project, status):
    status.clear()
    html = project.write(page("overview", "scoreboard", "facts", "status")).build()
    assert project.warnings == "" and "No chapter yet." in html


def test_facts_show_every_table_of_every_paper_with_how_it_was_checked(project):
    html = project.write(page("facts")).build()
    papers = load_papers().values()
    tables = [table for paper in papers for table in paper.tables]
    assert html.count("<details") == len(tables)
    assert html.count("No chapter of its own.") == len(papers) - 1
    whole = sum(not table.verified for table in tables)
    single = sum(len(row.get("unverified", ())) for table in tables for row in table.rows)
    assert html.count('class="attn-unverified"') == whole + single and whole and single


def test_an_unknown_chapter_is_named_with_the_valid_ones(project):
    project.write("# Page\n\n```{attn-claims} graves2015\n```\n").build()
    assert "attn-claims: unknown chapter 'graves2015'; valid: graves2014ntm" in project.warnings


def test_corrupt_and_foreign_files_are_shown_and_break_nothing(tmp_path, results):
    """With the real chapters instead of the made-up status."""
    for path in results.rglob("seed[0-8].json"):
        path.unlink()
    project = Project(tmp_path).write(page("scoreboard", "status", "downloads", "freshness"))
    html = project.build()
    assert project.warnings == ""
    assert "seed9.json" in html and "foreign.json" in html and "not readable as JSON" in html


def test_the_extension_is_imported_without_torch():
    code = "import sys, attn.book; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
