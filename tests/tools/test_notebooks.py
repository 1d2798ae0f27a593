"""Small notebooks are run for real; they import nothing, so a kernel's start is all it takes."""

import asyncio
import json
import signal
import sys
import textwrap

import nbformat
import pytest

from tools import notebooks
from tools.notebooks import (
    Cache,
    NotebookFailed,
    ThisPythonKernel,
    execute,
    machine_paths,
    run_all,
)


def outputs(notebook):
    """What each code cell printed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


@pytest.fixture
def foreign_kernel(tmp_path, monkeypatch):
    """A kernel named python3 where the user's and the machine's would lie, which cannot even start."""
    for variable in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        folder = tmp_path / variable
        spec = folder / "kernels" / "python3" / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["false"], "display_name": "foreign", "language": "python"}))
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")


def test_the_kernel_is_this_python_in_the_notebook_s_folder(project, tmp_path, foreign_kernel):
    path = project.add("a", "import sys, os\nprint(sys.prefix)\nprint(os.getcwd())")
    seen = []
    executed = execute(path, tmp_path / "partial.ipynb", on_cell=lambda *at: seen.append(at))
    *_, printed = outputs(executed)
    assert printed.splitlines() == [sys.prefix, str(path.parent)]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert len(executed.cells) == 3, "papermill injects a cell only for a changed parameter"


def test_figures_show_whatever_backend_the_shell_has_set(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    path = project.add("a", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    executed = execute(path, tmp_path / "partial.ipynb")
    assert any("image/png" in output.get("data", {}) for output in executed.cells[2].outputs)


def test_a_run_says_nothing_of_its_own(project, tmp_path, capfd):
    execute(project.add("a", "print(1)"), tmp_path / "partial.ipynb")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shutting_down", [False, True])
def test_a_kernel_is_not_interrupted_when_it_is_shut_down(monkeypatch, shutting_down):
    sent = []

    async def signal_kernel(kernel, number):
        sent.append(number)

    monkeypatch.setattr(ThisPythonKernel, "_async_signal_kernel", signal_kernel)
    monkeypatch.setattr(ThisPythonKernel, "has_kernel", True)
    kernel = ThisPythonKernel()
    kernel.shutting_down = shutting_down
    asyncio.run(kernel._async_interrupt_kernel())
    assert sent == ([] if shutting_down else [signal.SIGINT])


def test_a_failing_cell_is_told_in_a_sentence_and_kept(project, tmp_path):
    path = project.add("a", "print('before')", "raise ValueError('no task\\nmore')")
    partial = tmp_path / "kept" / "a.ipynb"
    with pytest.raises(NotebookFailed, match=r"^a.ipynb stopped in cell \[3\] with ValueError: no task$"):
        execute(path, partial)
    assert "before\n" in outputs(nbformat.read(partial, as_version=4))


def test_a_dead_kernel_is_told(project, tmp_path):
    path = project.add("a", "import os\nos._exit(1)")
    with pytest.raises(NotebookFailed, match="a.ipynb stopped.*[Kk]ernel died"):
        execute(path, tmp_path / "a.ipynb")


def run(project, *paths, **options):
    folder = project.root / "_build"
    cache = Cache(folder / "cache", root=project.root)
    return cache, run_all(paths, cache, failed=folder / "failed", **options)


def test_what_has_run_is_not_run_again_until_something_changes(project, capfd):
    path = project.add("a", "print(1)")
    cache, (first,) = run(project, path)
    assert first.error is None and not first.cached
    assert capfd.readouterr().out.splitlines()[0] == "a: running"
    assert outputs(cache.get(path)) == ["", "1\n"]
    _, (second,) = run(project, path)
    assert second.cached
    assert capfd.readouterr().out == "a: nothing it depends on has changed since it last ran\n"
    _, (third,) = run(project, path, fresh=True)
    assert not third.cached
    assert len(list((project.root / "_build" / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    "changed", ["attn/module.py", "attn/new.yaml", "results/record.json", "requirements.lock"]
)
def test_the_key_changes_with_all_that_outputs_depend_on(project, changed):
    path = project.add("a", "print(1)")
    before = Cache(project.root, root=project.root).key(path)
    assert before == Cache(project.root, root=project.root).key(path)
    project.write(changed, "# changed\n")
    assert before != Cache(project.root, root=project.root).key(path)


def test_the_key_changes_with_the_text_and_versions_but_not_with_outputs(project, monkeypatch):
    path = project.add("a", "print(1)")
    cache = Cache(project.root, root=project.root)
    before = cache.key(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    notebook.cells[2].execution_count = 7
    notebook.metadata["papermill"] = {"duration": 1}
    nbformat.write(notebook, path)
    assert cache.key(path) == before
    project.write("attn/__pycache__/module.pyc", "compiled")
    assert Cache(project.root, root=project.root).key(path) == before
    with monkeypatch.context() as patched:
        patched.setattr(notebooks.platform, "python_version", lambda: "3.99.0")
        assert cache.key(path) != before
    project.add("a", "print(2)")
    assert cache.key(path) != before


def test_half_a_file_in_the_cache_counts_as_none(project):
    path = project.add("a", "print(1)")
    cache = Cache(project.root / "cache", root=project.root)
    cache.put(cache.file(path), nbformat.read(path, as_version=4))
    assert cache.get(path) is not None
    cache.file(path).write_text('{"cells": [')
    assert cache.get(path) is None


def test_several_notebooks_run_and_one_failure_does_not_stop_the_others(project, capfd):
    good = project.add("good", "import os, sys\nprint(os.getcwd(), sys.executable)")
    bad = project.add("bad", "print('begun')", "raise KeyError('no such task')")
    cache, (of_bad, of_good) = run(project, good, bad, jobs=2)
    assert of_good.error is None and of_good.notebook == good
    partial = project.root / "_build" / "failed" / "bad.ipynb"
    sentence = "bad.ipynb stopped in cell [3] with KeyError: 'no such task'"
    assert of_bad.error == f"{sentence}; as far as it came: {partial}"
    assert partial.exists() and not (partial.parent / "good.ipynb").exists()
    assert cache.get(bad) is None
    said = capfd.readouterr().out.splitlines()
    assert {"good: running", "bad: running"} <= set(said)
    assert any(line.startswith("good: done in ") for line in said)
    (printed,) = [text for text in outputs(cache.get(good)) if text]
    assert printed.startswith("./notebooks …/bin/"), "a page must not show where it was made"


def test_machine_paths_name_no_top_folder():
    assert all(path.count("/") > 1 or path in ("/root", "/tmp") for path, _ in machine_paths([]))


def test_a_file_that_is_no_notebook_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        notebooks.main([str(tmp_path / "missing.ipynb")])
    assert "missing.ipynb is not there or not a notebook" in capsys.readouterr().err


def test_notebooks_are_rewritten_in_place(project, monkeypatch, capfd):
    source = textwrap.dedent("""\
        import sys
        print("one")
        sys.stdout.flush()
        print("two")
        """)
    good = project.add("good", source)
    bad = project.add("bad", "1 / 0")
    text_of_bad = bad.read_text()
    monkeypatch.setattr(notebooks, "ROOT", project.root)
    assert notebooks.main([str(good)]) == 0
    assert "one\ntwo\n" in outputs(nbformat.read(good, as_version=4))
    assert notebooks.main(["--jobs", "1", str(good), str(bad)]) == 1
    assert "bad.ipynb stopped in cell [2] with ZeroDivisionError" in capfd.readouterr().err
    assert bad.read_text() == text_of_bad
    unmarked = project.add("unmarked", "print(1)", tags=())
    assert notebooks.main([str(unmarked)]) == 1
    assert "unmarked.ipynb: no cell is marked for nbval" in capfd.readouterr().err
