import subprocess

import nbformat
import pytest
import yaml

from tools import build_book
from tools.build_book import BuildFailed, configured, project_files, repository_of, stage

CONFIG = {
    "title": "A book",
    "execute": {"execute_notebooks": "off"},
    "html": {"use_repository_button": False},
}
URL = "https://github.com/ada/attn"


def git(root, *arguments):
    subprocess.run(["git", "-C", root, *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def book(project):
    """A project that is a book of two pages, one of them a notebook."""
    project.write("_config.yml", yaml.safe_dump(CONFIG | {"only_build_toc_files": True}))
    project.write("_toc.yml", "format: jb-book\nroot: index\nchapters:\n- file: notebooks/a\n")
    project.write("index.md", "# A book\n\nSee {doc}`notebooks/a`.\n")
    project.write("_build/old.txt", "an earlier build\n")
    project.write("my-env/pyvenv.cfg", "home = elsewhere\n")
    project.write("attn/__pycache__/module.pyc", "compiled")
    project.add("a", "print(6 * 7)")
    return project


PROJECT_FILES = [
    "_config.yml",
    "_toc.yml",
    "attn/module.py",
    "index.md",
    "notebooks/a.ipynb",
    "pyproject.toml",
    "requirements.lock",
    "results/record.json",
]


def names(root):
    return sorted(path.as_posix() for path in project_files(root))


def test_files_of_a_tarball_are_all_but_products(book):
    assert names(book.root) == PROJECT_FILES


def test_files_of_a_checkout_are_those_tracked_and_those_not_ignored(book):
    book.write(".gitignore", "/_build/\n/my-env/\n__pycache__/\n*.log\n")
    git(book.root, "init", "-q")
    git(book.root, "add", "index.md", "_toc.yml", "_config.yml")
    book.write("noise.log", "ignored")
    book.write("name with ü and space.md", "# Hm\n")
    assert names(book.root) == sorted([".gitignore", "name with ü and space.md", *PROJECT_FILES])
    (book.root / "_toc.yml").unlink()
    assert "_toc.yml" not in names(book.root)


def test_a_tarball_inside_another_checkout_is_still_whole(book):
    git(book.root.parent, "init", "-q")
    (book.root.parent / ".gitignore").write_text("*\n")
    assert names(book.root) == PROJECT_FILES


def test_the_stage_is_a_fresh_copy(book):
    copy = book.root / "_build" / "stage"
    (copy / "left").mkdir(parents=True)
    stage(book.root, copy)
    assert sorted(p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()) == PROJECT_FILES
    assert (copy / "index.md").read_text() == (book.root / "index.md").read_text()
    assert not (copy / "left").exists()


def test_without_an_address_the_configuration_stays_as_it_is():
    assert configured(CONFIG, "") == CONFIG


def test_with_an_address_buttons_and_citation_lead_there():
    before = yaml.safe_dump(CONFIG)
    config = configured(CONFIG | {"launch_buttons": {"thebe": False}}, URL)
    assert config["repository"]["url"] == URL
    assert config["html"]["use_repository_button"] and config["html"]["use_issues_button"]
    assert config["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert config["launch_buttons"]["thebe"] is False
    assert f"{URL}/blob/main/CITATION.cff" in config["html"]["extra_footer"]
    assert config["execute"] == CONFIG["execute"]
    assert yaml.safe_dump(CONFIG) == before


@pytest.mark.parametrize("url", ["", URL])
def test_the_address_is_read_from_the_project(project, url):
    project.write("pyproject.toml", f'[tool.attn]\nrepository = "{url}"\n')
    assert repository_of(project.root) == url


@pytest.mark.parametrize("url", ["ada/attn", "https://example.org/ada/attn", f"{URL}/tree/main", f"{URL} "])
def test_an_address_that_no_link_can_be_made_of_is_refused(project, url):
    project.write("pyproject.toml", f'[tool.attn]\nrepository = "{url}"\n')
    with pytest.raises(BuildFailed, match="must be https://github.com/owner/name or empty"):
        repository_of(project.root)


def build(root, capfd):
    code = build_book.main(["--root", str(root)])
    return code, *capfd.readouterr()


@pytest.mark.slow
def test_a_book_is_built_and_the_tree_stays_as_it_was(book, capfd):
    git(book.root, "init", "-q")
    book.write(".gitignore", "/_build/\n/my-env/\n__pycache__/\n")
    before = {path: (book.root / path).read_bytes() for path in project_files(book.root)}
    code, said, complaints = build(book.root, capfd)
    page = book.root / "_build" / "html" / "index.html"
    assert code == 0, complaints
    assert said.splitlines()[-1].endswith(page.as_uri())
    assert "42" in (page.parent / "notebooks" / "a.html").read_text()
    assert URL not in page.read_text() and "colab" not in (page.parent / "notebooks" / "a.html").read_text()
    assert {path: (book.root / path).read_bytes() for path in project_files(book.root)} == before

    # With an address the same pages lead there.
    book.write("pyproject.toml", f'[tool.attn]\nrepository = "{URL}"\n')
    code, said, complaints = build(book.root, capfd)
    chapter = (page.parent / "notebooks" / "a.html").read_text()
    assert code == 0, complaints
    assert "https://colab.research.google.com/github/ada/attn/blob/main/notebooks/a.ipynb" in chapter
    assert f"{URL}/issues/new" in chapter and f"{URL}/blob/main/CITATION.cff" in chapter

    # A warning is an error, told by page, and the pages of the last good build stay.
    book.write("index.md", "# A book\n\nSee {doc}`nowhere`.\n")
    code, said, complaints = build(book.root, capfd)
    assert code == 1
    assert "index.md:3: WARNING" in complaints and "nowhere" in complaints
    assert (page.parent / "notebooks" / "a.html").read_text() == chapter


def test_a_failing_chapter_stops_the_build(book, capfd):
    book.add("a", "raise ValueError('profile must be ci, cpu, gpu or paper')")
    code, _, complaints = build(book.root, capfd)
    kept = book.root / "_build" / "failed" / "a.ipynb"
    assert code == 1
    assert complaints.splitlines()[-1] == (
        "a.ipynb stopped in cell [2] with ValueError: profile must be ci, cpu, gpu or paper;"
        f" as far as it came: {kept}"
    )
    assert "ValueError" in kept.read_text()
    assert not (book.root / "_build" / "html").exists()


def test_the_staged_chapter_hides_the_injected_cell_and_this_machine(book, capfd):
    path = book.add("a", "import sys\nprint(sys.prefix)")
    notebook = nbformat.read(path, as_version=4)
    extra = nbformat.v4.new_code_cell("profile = 'cpu'", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, extra)
    nbformat.write(notebook, path)
    copy = book.root / "_build" / "stage"
    stage(book.root, copy)
    build_book.run_notebooks(copy, book.root / "_build", jobs=1)
    staged = nbformat.read(copy / "notebooks" / "a.ipynb", as_version=4)
    assert "remove-cell" in staged.cells[2].metadata.tags
    assert staged.cells[3].outputs[0].text == "…\n"
    assert "papermill" not in staged.metadata
