"""What a committed notebook looks like: ``normalise`` makes it so, ``problems`` tells what is amiss."""

import getpass
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbval.plugin import find_comment_markers, find_metadata_tags

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT_OF_NOTEBOOK = ("mystnb",)
KEPT_OF_CELL = ("tags", "mystnb")
LONGEST_CELL = 40  # lines; what does not fit on a screen belongs into attn
TOP_FOLDERS = "home|Users|root|tmp|private|var|opt|usr|mnt|srv|data|work|workspace|content|scratch|nix|builds"
ABSOLUTE_PATH = re.compile(rf"(?<![\w.…])/(?:{TOP_FOLDERS})/\S*|file://\S*|\b[A-Z]:\\\w\S*")


def normalise(notebook: NotebookNode, *, hidden: Iterable[tuple[str, str]] = ()) -> NotebookNode:
    """A copy of ``notebook`` that does not tell when, where and by whom it was run.

    Of the notebook's metadata only the names of kernel and language stay, of the cells' only tags and page
    options. Successive pieces of one stream become one. In text outputs the second of each pair of ``hidden``
    stands for the first.
    """
    notebook = deepcopy(notebook)
    kept = {key: notebook.metadata[key] for key in KEPT_OF_NOTEBOOK if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(
        {**kept, "kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    )
    hidden = sorted(hidden, key=lambda pair: len(pair[0]), reverse=True)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {k: cell.metadata[k] for k in KEPT_OF_CELL if cell.metadata.get(k)}
        )
        if cell.cell_type == "code":
            cell.outputs = _merged(cell.outputs)
            for output in cell.outputs:
                _hide(output, hidden)
    return notebook


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with successive pieces of one stream joined: how a kernel cuts them is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _hide(output: NotebookNode, hidden: list[tuple[str, str]]) -> None:
    for path, instead in hidden:
        if output.output_type == "stream":
            output.text = output.text.replace(path, instead)
        for kind, text in output.get("data", {}).items():
            if kind.startswith("text/"):
                output.data[kind] = text.replace(path, instead)


def hide_injected(notebook: NotebookNode) -> None:
    """Leave the cell that papermill injects out of the rendered page."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags and "remove-cell" not in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook so that no half of it is ever seen under ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
    ) as file:
        file.write(nbformat.writes(notebook) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def compared_cells(notebook: NotebookNode) -> int:
    """How many cells have an output that nbval compares in its lax mode (it skips images)."""
    return sum(_is_compared(cell) for cell in notebook.cells if cell.cell_type == "code")


def _is_compared(cell: NotebookNode) -> bool:
    marks = {**dict(find_metadata_tags(cell.metadata)), **dict(find_comment_markers(cell.source))}
    return marks.get("check") is True and any(text.strip() for text in _texts(cell))


def _texts(cell: NotebookNode) -> Iterator[str]:
    """The text of a code cell's outputs, errors included."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join([*output.traceback, f"{output.ename}: {output.evalue}"])
        else:
            yield from (text for kind, text in output.data.items() if kind.startswith("text/"))


def problems(notebook: NotebookNode) -> list[str]:
    """What keeps a notebook from being committed, a sentence each; empty for a good one."""
    found = []
    parameters = sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    if parameters != 1:
        found.append(f"{parameters} cells are tagged 'parameters', one must be")
    if normalise(notebook) != notebook:
        found.append("its metadata or streams are not normalised: run make notebooks")
    if not compared_cells(notebook):
        found.append("no cell is marked for nbval ('nbval-check-output') with text to compare")
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            found += [f"cell {number} {problem}" for problem in _problems_of_cell(cell)]
    return found


def _problems_of_cell(cell: NotebookNode) -> Iterator[str]:
    lines = len(cell.source.splitlines())
    if lines > LONGEST_CELL:
        yield f"has {lines} lines, at most {LONGEST_CELL} are read with ease"
    if "injected-parameters" in cell.metadata.get("tags", []):
        yield "was injected by papermill"
    if cell.source.strip() and cell.execution_count is None:
        yield "was never executed"
    if any(output.output_type == "error" for output in cell.outputs):
        yield "ended in an error"
    for text in _texts(cell):
        if path := ABSOLUTE_PATH.search(text):
            yield f"shows the absolute path {path[0]!r}"
        if user := _user_pattern().search(text):
            yield f"shows the user name in {user[0]!r}"
        if "Traceback (most recent call last)" in text:
            yield "shows a traceback"


def _user_pattern() -> re.Pattern[str]:
    """Where the user's name stands as a user's name; the same letters may well be a word of the page."""
    try:
        name = re.escape(getpass.getuser())
    except (KeyError, OSError):  # a container may run under a number without a name
        return re.compile(r"(?!)")
    return re.compile(rf"[/\\~@]{name}\b(?!\.)|\b{name}@\w+")
