import getpass

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output

from tools.notebook_rules import compared_cells, hide_injected, normalise, problems, write

from .conftest import notebook_of


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def good_notebook():
    """One that may be committed."""
    notebook = normalise(notebook_of("print('solved')", "2 + 2", tags=["nbval-check-output"]))
    for number, cell in enumerate([cell for cell in notebook.cells if cell.cell_type == "code"], start=1):
        cell.execution_count = number
    notebook.cells[2].outputs = [stream("solved\n")]
    notebook.cells[3].outputs = [new_output("execute_result", data={"text/plain": "4"}, execution_count=3)]
    return notebook


def test_a_good_notebook_has_no_problem():
    assert problems(good_notebook()) == []
    assert compared_cells(good_notebook()) == 2


def change_metadata(notebook):
    notebook.metadata["language_info"]["version"] = "3.11.7"


def change_spec(notebook):
    notebook.metadata["kernelspec"]["name"] = "my-env"


def keep_timing(notebook):
    notebook.cells[2].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}


def cut_stream(notebook):
    notebook.cells[2].outputs = [stream("sol"), stream("ved\n")]


def no_parameters(notebook):
    notebook.cells[1].metadata = {}


def two_parameters(notebook):
    notebook.cells[2].metadata["tags"].append("parameters")


def injected(notebook):
    notebook.cells[3].metadata["tags"].append("injected-parameters")


def unmarked(notebook):
    for cell in notebook.cells[2:]:
        cell.metadata = {}


def marked_without_text(notebook):
    notebook.cells[2].outputs = []
    notebook.cells[3].outputs = [new_output("display_data", data={"image/png": "aGVsbG8="})]


def long_cell(notebook):
    notebook.cells[2].source = "x = 1\n" * 41


def never_executed(notebook):
    notebook.cells[2].execution_count = None


def error(notebook):
    notebook.cells[2].outputs = [new_output("error", ename="ValueError", evalue="no", traceback=["no"])]


def printed(text):
    def change(notebook):
        notebook.cells[2].outputs = [stream(text + "\n")]

    return change


def html(text):
    def change(notebook):
        notebook.cells[3].outputs = [new_output("display_data", data={"text/plain": "x", "text/html": text})]

    return change


@pytest.mark.parametrize(
    "change, told",
    [
        (change_metadata, "not normalised"),
        (change_spec, "not normalised"),
        (keep_timing, "not normalised"),
        (cut_stream, "not normalised"),
        (no_parameters, "0 cells are tagged 'parameters'"),
        (two_parameters, "2 cells are tagged 'parameters'"),
        (injected, "cell 4 was injected"),
        (unmarked, "no cell is marked for nbval"),
        (marked_without_text, "no cell is marked for nbval"),
        (long_cell, "cell 3 has 41 lines"),
        (never_executed, "cell 3 was never executed"),
        (error, "cell 3 ended in an error"),
        (printed("saved to /home/ada/x.npz"), "absolute path '/home/ada/x.npz'"),
        (printed("see file:///anywhere/x"), "absolute path"),
        (printed(r"C:\Users\ada"), "absolute path"),
        (html("<img src='/var/x.png'>"), "cell 4 shows the absolute path"),
        (printed("Traceback (most recent call last):\n  no"), "traceback"),
        (printed(f"{getpass.getuser()}@machine"), "user name"),
        (printed(f"~{getpass.getuser()}"), "user name"),
    ],
)
def test_each_problem_is_found(change, told):
    notebook = good_notebook()
    change(notebook)
    assert any(told in problem for problem in problems(notebook)), problems(notebook)


@pytest.mark.parametrize(
    "text",
    [
        "1/2 and bits/sequence",
        "https://example.org/home/x",
        "results/tmp/x.npz",
        f"{getpass.getuser()} squares",
        "</td>",
    ],
)
def test_ordinary_text_is_no_problem(text):
    notebook = good_notebook()
    printed(text)(notebook)
    assert problems(notebook) == []


@pytest.mark.parametrize("source", ["# NBVAL_CHECK_OUTPUT\nprint(1)", "print(1)"])
def test_a_comment_marks_a_cell_too(source):
    notebook = notebook_of(source)
    notebook.cells[2].outputs = [stream("1\n")]
    assert compared_cells(notebook) == source.count("NBVAL")


def test_normalise_keeps_what_the_author_wrote():
    notebook = notebook_of("1", tags=["hide-input", "nbval-check-output"])
    notebook.metadata["mystnb"] = {"number_source_lines": True}
    notebook.metadata["papermill"] = {"input_path": "a.ipynb"}
    notebook.cells[2].metadata |= {"papermill": {"duration": 1.0}, "mystnb": {"figure": {"name": "f"}}}
    notebook.cells[2].execution_count = 2
    tidy = normalise(notebook)
    assert tidy.metadata.keys() == {"mystnb", "kernelspec", "language_info"}
    assert tidy.metadata.language_info == {"name": "python"}
    assert tidy.cells[2].metadata == {
        "tags": ["hide-input", "nbval-check-output"],
        "mystnb": {"figure": {"name": "f"}},
    }
    assert [cell.id for cell in tidy.cells] == [cell.id for cell in notebook.cells]
    assert [cell.source for cell in tidy.cells] == [cell.source for cell in notebook.cells]
    assert tidy.cells[2].execution_count == 2
    assert notebook.metadata["papermill"] == {"input_path": "a.ipynb"}, "the given notebook was changed"
    assert normalise(tidy) == tidy


def test_streams_of_one_name_are_joined_in_order():
    notebook = notebook_of("1")
    notebook.cells[2].outputs = [stream("a"), stream("b"), stream("c", "stderr"), stream("d")]
    joined = normalise(notebook).cells[2].outputs
    assert [output.text for output in joined] == ["ab", "c", "d"]
    assert [output.name for output in joined] == ["stdout", "stderr", "stdout"]


def test_hidden_paths_leave_text_but_not_pictures():
    notebook = notebook_of("1")
    picture = new_output("display_data", data={"image/png": "/m/p", "text/html": "<b>/m/p/x</b>"})
    notebook.cells[2].outputs = [stream("/m/p/x.py:1 and /m/y"), picture]
    text, shown = normalise(notebook, hidden=[("/m", "…"), ("/m/p", ".")]).cells[2].outputs
    assert text.text == "./x.py:1 and …/y"
    assert shown.data == {"image/png": "/m/p", "text/html": "<b>./x</b>"}


def test_the_injected_cell_is_left_out_of_the_page():
    notebook = notebook_of("1")
    notebook.cells.insert(2, new_code_cell("profile = 'cpu'", metadata={"tags": ["injected-parameters"]}))
    for _ in range(2):
        hide_injected(notebook)
    assert [cell.metadata.get("tags") for cell in notebook.cells[1:]] == [
        ["parameters"],
        ["injected-parameters", "remove-cell"],
        None,
    ]


def test_write_leaves_the_file_readable_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.ipynb"
    write(good_notebook(), path)
    assert nbformat.read(path, as_version=4) == good_notebook()
    assert path.read_text().endswith("}\n") and not path.read_text().endswith("\n\n")
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
