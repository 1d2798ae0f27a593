"""Sphinx extension of the book: directives that compute at build time what pages show of `results/`.

Loaded by `sphinx.extra_extensions` in _config.yml. Nothing it shows is stored in a page or a notebook, so a
page is never older than the records and the code it was built from; a document that uses one of these
directives is read anew at every build. Files go to the output folder only.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version
from typing import Any
from weakref import WeakKeyDictionary

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from attn.reproduction import tables
from attn.reproduction.facts import FactTable, Paper, load_papers
from attn.reproduction.findings import findings_list
from attn.reproduction.grid import Cell, Footnotes, Grid, Html, linked, plain
from attn.reproduction.number_text import format_number
from attn.reproduction.overview import alt_text, overview_figure
from attn.reproduction.paths import results_dir
from attn.reproduction.records import Skipped, load_records, to_csv
from attn.reproduction.speed import BENCHMARKS, Speed, command, load_speed, of_benchmark, speed_table

# What a reader needs to know of the environment; the records hold the versions they were made with.
PACKAGES = "torch numpy safetensors scipy matplotlib papermill jupyter-book sphinx myst-nb".split()
DOWNLOAD = "_static/_downloads/results.csv"
OVERVIEW = "_static/attn/overview-{ground}.svg"
MATHJAX = "sphinx-mathjax-offline"


class Book:
    """What the directives of one build share; each part is computed once, when first asked for."""

    def __init__(self) -> None:
        self.results = results_dir()

    @cached_property
    def status(self) -> list[dict]:
        """As `attn status --json`."""
        from attn.experiments import chapters
        from attn.reproduction.scoreboard import collect

        return collect(chapters(), self.results)

    @cached_property
    def papers(self) -> Mapping[str, Paper]:
        return load_papers()

    @cached_property
    def records(self) -> Sequence[Any]:
        """Valid records; the others are named in the status."""
        return load_records(self.results)[0] if self.results.is_dir() else []

    @cached_property
    def speed(self) -> tuple[Sequence[Speed], Sequence[Skipped]]:
        """Valid results of the benchmarks, and the files that are none."""
        return load_speed(self.results)


_BOOKS: WeakKeyDictionary[Sphinx, Book] = WeakKeyDictionary()


class Computed(SphinxDirective):
    """A directive whose content is computed at every build."""

    @property
    def book(self) -> Book:
        return _BOOKS.setdefault(self.env.app, Book())

    @property
    def root(self) -> str:
        """Way from this page to the root of the output."""
        return "../" * self.env.docname.count("/")

    def run(self) -> list[nodes.Node]:
        _documents(self.env).add(self.env.docname)
        return self.compute()

    def compute(self) -> list[nodes.Node]:
        raise NotImplementedError

    def show(self, piece: Html) -> list[nodes.Node]:
        """HTML in pages, the plain text in every other output."""
        if self.env.app.builder.format == "html":
            return [nodes.raw("", piece.html, format="html")] if piece.html else []
        return [nodes.literal_block(piece.text, piece.text)] if piece.text else []

    def section(self, title: str, name: str, *content: nodes.Node) -> nodes.section:
        """A real section, so that it stands in the page's table of contents and can be linked to."""
        section = nodes.section("", nodes.title(title, title), *content, ids=[nodes.make_id(name)])
        section["names"] = [nodes.fully_normalize_name(name)]
        self.state.document.note_explicit_target(section, section)
        return section

    def chapter_link(self, chapter: dict, text: str = "") -> nodes.Node:
        """The given text, or the chapter's number and title, linked where the page exists."""
        text = text or f"{chapter['number']} {chapter['title']}"
        target = f"notebooks/{chapter['notebook']}"
        if target not in self.env.found_docs or self.env.app.builder.format != "html":
            return nodes.Text(text)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, target)
        return nodes.reference("", text, internal=True, refuri=uri)


class OfChapter(Computed):
    """A directive whose one argument is a chapter's id."""

    required_arguments = 1

    def compute(self) -> list[nodes.Node]:
        ids = [chapter["id"] for chapter in self.book.status]
        if self.arguments[0] not in ids:
            raise self.error(f"{self.name}: unknown chapter {self.arguments[0]!r}; valid: {', '.join(ids)}")
        return self.of(self.book.status[ids.index(self.arguments[0])])

    def of(self, chapter: dict) -> list[nodes.Node]:
        raise NotImplementedError


class Scoreboard(Computed):
    """All chapters in one table, then a section for each."""

    def compute(self) -> list[nodes.Node]:
        if not self.book.status:
            return [nodes.paragraph("", "No chapter yet.")]
        found = self.show(tables.chapters_table(self.book.status))
        for chapter in self.book.status:
            link = nodes.paragraph("", "Chapter ", self.chapter_link(chapter))
            content = self.show(tables.chapter_scoreboard(chapter, root=self.root))
            title = f"{chapter['number']} {chapter['short_title']}"
            found.append(self.section(title, f"scoreboard-{chapter['id']}", link, *content))
        return found


class Overview(Computed):
    """What came of each claim, the scale of the runs, one picture, and each chapter's headline."""

    def compute(self) -> list[nodes.Node]:
        status = self.book.status
        if not status:
            return [nodes.paragraph("", "No chapter yet.")]
        claims = findings_list((f"{c['number']} {c['short_title']}", c["claims"]) for c in status)
        items = [
            _item(self.chapter_link(c, f"{c['number']} {c['short_title']}"), c["headline"]) for c in status
        ]
        scale = nodes.paragraph("", tables.scale_words(status))
        return [scale, *self.show(claims), *self.picture(), nodes.bullet_list("", *items)]

    def picture(self) -> list[nodes.Node]:
        text = alt_text(self.book.status)
        images = ""
        for ground in ("light", "dark"):
            name = OVERVIEW.format(ground=ground)
            if self.env.app.builder.format == "html":
                _draw(self.book.status, Path(self.env.app.outdir) / name, dark=ground == "dark")
            # `only-*` is the theme's way to show one of two pictures; dark-light keeps its filter off.
            images += f'<img class="only-{ground} dark-light" src="{self.root}{name}" alt="{escape(text)}">'
        caption = "A mark for every cell of the papers' tables and for every claim."
        html = f'<figure class="attn-overview">{images}<figcaption>{caption}</figcaption></figure>'
        return self.show(Html(html, text))


def _item(head: nodes.Node, text: str) -> nodes.list_item:
    return nodes.list_item("", nodes.paragraph("", "", head, nodes.Text(f": {text}")))


def _draw(status: Sequence[dict], path: Path, *, dark: bool) -> None:
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed salt and no date make equal content equal bytes.
    with rc_context({"svg.hashsalt": "attn", "font.family": "DejaVu Sans"}):
        overview_figure(status, dark=dark).savefig(path, transparent=True, metadata={"Date": None})


class Freshness(OfChapter):
    """A note on which recorded numbers of a chapter were made by other code than today's."""

    def of(self, chapter: dict) -> list[nodes.Node]:
        records = chapter["records"]
        stale = [record for record in records if record["freshness"] == "stale"]
        again = sum(record["freshness"] == "revalidated" for record in records)
        if not records:
            return [nodes.note("", nodes.paragraph("", "This chapter has no recorded number yet."))]
        if not stale:
            total, today = len(records), f"{len(records) - again} of the" if again else "All"
            text = f"{today} {total} records behind this chapter's numbers are of today's code"
            text += f"; for {again} some code has changed since, and a replay of their first updates" * bool(
                again
            )
            text += " gives the stored losses." if again else "."
            return [nodes.note("", nodes.paragraph("", text))]
        text = f"{len(stale)} of the {len(records)} records behind this chapter's numbers are stale:"
        items = [_item(nodes.literal("", record["path"]), record["why"]) for record in stale]
        return [nodes.warning("", nodes.paragraph("", text), nodes.bullet_list("", *items))]


class Claims(OfChapter):
    """A chapter's claims with their verdicts."""

    def of(self, chapter: dict) -> list[nodes.Node]:
        return self.show(tables.claims_table(chapter["claims"], freshness=True))


class Deviations(OfChapter):
    """Where a chapter departs from its paper."""

    def of(self, chapter: dict) -> list[nodes.Node]:
        return self.show(tables.deviations_table(chapter["deviations"]))


class Facts(Computed):
    """Every paper whose tables are stored, and how each table was checked; chapters first."""

    def compute(self) -> list[nodes.Node]:
        chapters = {chapter["id"]: chapter for chapter in self.book.status}
        papers = sorted(self.book.papers.values(), key=lambda p: (p.id not in chapters, p.year, p.title))
        return [self.paper(paper, chapters.get(paper.id)) for paper in papers]

    def paper(self, paper: Paper, chapter: dict | None) -> nodes.Node:
        line = nodes.paragraph("", f"{', '.join(paper.authors)} ({paper.year}). {paper.venue}. ")
        if paper.arxiv:
            line += nodes.reference("", f"arXiv:{paper.arxiv}", refuri=f"https://arxiv.org/abs/{paper.arxiv}")
            line += nodes.Text(". ")
        line += nodes.strong("", "Chapter: " if chapter else "No chapter of its own.")
        if chapter:
            line += self.chapter_link(chapter)
        folded = [_fact_table(table) for table in paper.tables]
        html, text = "".join(piece.html for piece in folded), "\n\n".join(piece.text for piece in folded)
        return self.section(paper.title, f"paper-{paper.id}", line, *self.show(Html(html, text)))


def _fact_table(table: FactTable) -> Html:
    """How a table was checked, and, folded in HTML, its cells as printed."""
    name = f"{tables.table_name(table.id)}. {table.caption}"
    checked = tables.marked(plain(f"{len(table.rows)} rows, {table.checked}"), table.verified)
    source = linked(f": {table.source}" if table.source else "")
    columns = list(
        dict.fromkeys([*table.columns, *(key for row in table.rows for key in row if key != "unverified")])
    )
    how = "as read off the plot" if table.read_off else "as printed"
    grid = Grid(plain(f"{tables.table_name(table.id)} {how}"), [c.replace("_", " ") for c in columns])
    for row in table.rows:
        grid.add([
            tables.marked(plain(format_number(row.get(column))), column not in row.get("unverified", ()))
            for column in columns
        ])  # fmt: skip
    grid.notes = [linked(table.notes)] if table.notes else []
    small = f'<div class="attn-small">{checked.html}{source.html}</div>'
    summary = f"<summary>{escape(name)}{small}</summary>"
    html = f'<details class="attn-fold">{summary}{grid.render().html}</details>'
    return Html(html, f"{name}\n{checked.text}{source.text}")


class Downloads(Computed):
    """A link to all results as one CSV file, made at build time."""

    def compute(self) -> list[nodes.Node]:
        if self.env.app.builder.format != "html":
            return []
        path = Path(self.env.app.outdir) / DOWNLOAD
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_csv(self.book.records), "utf-8")
        link = nodes.reference("", "results.csv", refuri=f"{self.root}{DOWNLOAD}")
        lines = nodes.Text(f" (from {len(self.book.records)} records, a line for each record and metric)")
        return [nodes.paragraph("", "All results as one table: ", link, lines, nodes.Text("."))]


class Status(Computed):
    """What the pages were built with, and device, date and time of every record."""

    def compute(self) -> list[nodes.Node]:
        grid = Grid(plain("What these pages were built with"), ["Package", "Version"])
        for name, number in [("Python", python_version()), *((name, _version(name)) for name in PACKAGES)]:
            grid.add([plain(name), plain(number)])
        return [*self.show(grid.render()), *(self.chapter(chapter) for chapter in self.book.status)]

    def chapter(self, chapter: dict) -> nodes.Node:
        records = chapter["records"]
        minutes = sum(record["seconds"] for record in records) / 60
        text = f"{len(records)} records, {minutes:,.0f} minutes of running in all."
        columns = [
            "Experiment",
            "Profile",
            "Seed",
            "Device",
            "Date",
            "Seconds",
            "torch",
            "Commit",
            "Freshness",
        ]
        grid = Grid(plain(f"Records of chapter {chapter['number']}"), columns)
        # One change of the code is the reason of hundreds of records.
        footnotes = Footnotes((record["why"] for record in records), longest=0)
        above = None
        for record in records:
            group = record["experiment"], record["profile"]
            head = [None, None] if group == above else [plain(part) for part in group]
            line = _record_line(record, footnotes, self.root)
            grid.add([*head, *line], "" if group == above else "attn-first")
            above = group
        grid.notes = footnotes.notes()
        shown = self.show(grid.render()) if records else []
        content = [nodes.paragraph("", text), *shown, *self.show(tables.skipped_list(chapter))]
        title = f"{chapter['number']} {chapter['short_title']}"
        return self.section(title, f"status-{chapter['id']}", *content)


def _record_line(record: dict, footnotes: Footnotes, root: str) -> list[Cell]:
    """Seed, linked to the record, device, date, seconds, torch, commit and freshness."""
    seed, path = str(record["seed"]), escape(record["path"], quote=True)
    link = Cell(seed, f'<a href="{root}{path}" aria-label="record {path}">{seed}</a>')
    date = Cell(record["date"], f'<span class="attn-setting">{escape(record["date"])}</span>')
    seconds = format_number(float(record["seconds"]), 0)
    state = ": ".join(filter(None, [record["freshness"], footnotes(record["why"])]))
    shown = map(plain, [seconds, record["torch"], record["commit"], state])
    device = Cell(record["device"], f'<span class="attn-setting">{escape(record["device"])}</span>')
    return [link, device, date, *shown]


class Speeds(Computed):
    """Each benchmark in a section, with a table for each device, or the command where none is measured yet."""

    def compute(self) -> list[nodes.Node]:
        skipped = [
            {"path": f"results/{item.path.relative_to(self.book.results).as_posix()}", "reason": item.reason}
            for item in self.book.speed[1]
        ]
        return [*map(self.benchmark, BENCHMARKS), *self.show(tables.skipped_list({"skipped": skipped}))]

    def benchmark(self, name: str) -> nodes.Node:
        found = of_benchmark(self.book.speed[0], name)
        content = [node for result in found for node in self.show(speed_table(result, root=self.root))]
        text = nodes.paragraph("", BENCHMARKS[name].text)
        return self.section(BENCHMARKS[name].title, f"speed-{name}", text, *(content or _unmeasured(name)))


def _unmeasured(benchmark: str) -> list[nodes.Node]:
    shown = f"$ {command(benchmark)}"
    said = "Not measured yet. From the top of a checkout, this measures it on the CPU:"
    return [nodes.paragraph("", said), nodes.literal_block(shown, shown, language="console")]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# --- Sphinx ------------------------------------------------------------------------------------------------

DIRECTIVES = {
    "attn-scoreboard": Scoreboard,
    "attn-overview": Overview,
    "attn-freshness": Freshness,
    "attn-claims": Claims,
    "attn-deviations": Deviations,
    "attn-facts": Facts,
    "attn-downloads": Downloads,
    "attn-speed": Speeds,
    "attn-status": Status,
}


def _documents(env: Any) -> set[str]:
    """Documents with computed content; kept in the environment, which outlives a build."""
    if not hasattr(env, "attn_documents"):
        env.attn_documents = set()
    return env.attn_documents


def _read_again(app: Sphinx, env: Any, added: set, changed: set, removed: set) -> list[str]:
    return sorted((_documents(env) & env.found_docs) - removed)


def _forget(app: Sphinx, env: Any, docname: str) -> None:
    _documents(env).discard(docname)


def _merge(app: Sphinx, env: Any, docnames: set[str], other: Any) -> None:
    _documents(env).update(_documents(other) & set(docnames))


def _copy_records(app: Sphinx, error: Exception | None) -> None:
    """Put records and benchmark results where the pages' links expect them: results/ beside the folder of a page.

    The same relative link works from a notebook opened in the repository.
    """
    if error is not None or app.builder.format != "html":
        return
    book = _BOOKS.setdefault(app, Book())
    files = [record.path.relative_to(book.results) for record in book.records]
    for path in [*files, *(result.path for result in book.speed[0])]:
        target = Path(app.outdir) / "results" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(book.results / path, target)


def _scripts_once(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Keep one of each inline script.

    Sphinx takes those that an extension adds while it runs in twice, once with no name and once with an empty
    one. The second copy of sphinx-thebe's constants is an error in every page.
    """
    scripts = {(script.filename or "", str(script.attributes)): script for script in context["script_files"]}
    context["script_files"] = list(scripts.values())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register directives and events."""
    for name, directive in DIRECTIVES.items():
        app.add_directive(name, directive)
    app.connect("env-get-outdated", _read_again)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    app.connect("html-page-context", _scripts_once)
    app.connect("build-finished", _copy_records)
    # Formulas without a network: the package holds MathJax's own files. Without it they come from its CDN.
    if find_spec(MATHJAX) is not None:
        app.setup_extension(MATHJAX)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
