"""Run and tidy the chapters' notebooks: ``make notebooks``. ``make book`` uses the same functions.

A run goes through papermill with the default parameters, in the notebook's own folder and with the
Python that runs this module. What it gave is kept in a cache; the key is all that outputs depend on.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import ipykernel.kernelspec
import nbformat
import papermill
import zmq
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from tools.notebook_rules import normalise, problems, write

ROOT = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN_LINES = 10.0
KEY_LENGTH = 16


class _ThisPython(KernelSpecManager):
    """Knows one kernel: the Python that runs here, never one of the same name in the user's home."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            resource_dir=ipykernel.kernelspec.RESOURCES, **ipykernel.kernelspec.get_kernel_dict()
        )


class ThisPythonKernel(AsyncKernelManager):
    """Starts kernels in the Python that runs here."""

    @default("kernel_spec_manager")
    def _this_python(self) -> KernelSpecManager:
        return _ThisPython(parent=self)

    @default("transport_encryption")
    def _encrypted(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"  # ipykernel warns of a plain connection

    async def _async_interrupt_kernel(self) -> None:
        # Shutting down begins with an interrupt; a kernel that is idle by then may print it as an error.
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


class NotebookFailed(Exception):
    """A notebook stopped; the message is one sentence."""


@dataclass(frozen=True)
class Run:
    """How one notebook fared: ``error`` is None where it ran to its end or stood in the cache."""

    notebook: Path
    seconds: float = 0.0
    cached: bool = False
    error: str | None = None


def execute(
    notebook: Path, partial: Path, *, on_cell: Callable[[int, int], None] | None = None
) -> NotebookNode:
    """Run a notebook through papermill with its default parameters and return it with its outputs.

    Args:
        notebook: the file to run, in its own folder.
        partial: where the notebook is saved after every cell, so that a failed one can be looked at.
        on_cell: called as ``on_cell(index, cells)`` when a code cell starts.

    Raises:
        NotebookFailed: a cell raised, or its kernel died.
    """
    os.environ.pop("MPLBACKEND", None)  # one set for scripts would leave the pages without figures
    cells = len(nbformat.read(notebook, as_version=4).cells)

    def started(cell: NotebookNode, cell_index: int) -> None:
        if on_cell is not None:
            on_cell(cell_index + 1, cells)

    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        return papermill.execute_notebook(
            notebook,
            partial.absolute(),
            cwd=notebook.parent,
            kernel_name="python3",
            progress_bar=False,
            kernel_manager_class=ThisPythonKernel,
            on_cell_start=started,
        )
    except PapermillExecutionError as error:
        what = f"{error.ename}: {error.evalue}".strip().splitlines()[0]
        raise NotebookFailed(f"{notebook.name} stopped in cell [{error.exec_count}] with {what}") from None
    except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
        raise NotebookFailed(f"{notebook.name} stopped with {str(error).strip().splitlines()[0]}") from None


def run_all(
    notebooks: Iterable[Path], cache: "Cache", *, failed: Path, jobs: int = 2, fresh: bool = False
) -> list[Run]:
    """Bring the outputs of all notebooks into the cache and tell the progress line by line.

    Args:
        notebooks: files under ``cache.root``.
        cache: where finished notebooks go.
        failed: folder in which a notebook that failed is left as far as it came.
        jobs: processes at a time.
        fresh: run what stands in the cache too.
    """
    runs = []
    pending = []
    for notebook in notebooks:
        if fresh or cache.get(notebook) is None:
            pending.append(notebook)
        else:
            print(f"{notebook.stem}: nothing it depends on has changed since it last ran", flush=True)
            runs.append(Run(notebook, cached=True))
    # Fresh processes: papermill's event loop and its change of folder are those of a whole process.
    with ProcessPoolExecutor(max_workers=max(1, jobs), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_run_one, notebook, cache, failed / notebook.name) for notebook in pending]
        runs += [future.result() for future in as_completed(futures)]
    return sorted(runs, key=lambda run: run.notebook)


def _run_one(notebook: Path, cache: "Cache", partial: Path) -> Run:
    start = time.monotonic()
    file = cache.file(notebook)  # before the run: an edit made meanwhile is not in its outputs
    at = ""

    def entered(index: int, cells: int) -> None:
        nonlocal at
        at = f"cell {index} of {cells}"

    def tell() -> None:
        while not finished.wait(SECONDS_BETWEEN_LINES):
            print(f"{notebook.stem}: {at}, {time.monotonic() - start:.0f} s", flush=True)

    print(f"{notebook.stem}: running", flush=True)
    finished = threading.Event()
    threading.Thread(target=tell, daemon=True).start()
    try:
        executed = execute(notebook, partial, on_cell=entered)
    except NotebookFailed as error:
        return Run(notebook, time.monotonic() - start, error=f"{error}; as far as it came: {partial}")
    finally:
        finished.set()
    cache.put(file, normalise(executed, hidden=machine_paths({cache.root, ROOT})))
    partial.unlink()
    seconds = time.monotonic() - start
    print(f"{notebook.stem}: done in {seconds:.0f} s", flush=True)
    return Run(notebook, seconds)


class Cache:
    """Executed notebooks, found again as long as nothing that they depend on has changed.

    That is the notebook's own text, all of ``attn`` and ``results``, the pinned packages, the book's settings
    and the versions of Python and torch.

    Args:
        folder: where the executed notebooks are kept.
        root: the project whose sources count.
    """

    def __init__(self, folder: Path, *, root: Path = ROOT):
        self.folder = folder
        self.root = root
        self._inputs = digest_of(root, ["attn", "results", "requirements.lock", "pyproject.toml"])

    def key(self, notebook: Path) -> str:
        """The hash of everything that this notebook's outputs can depend on."""
        text = normalise(nbformat.read(notebook, as_version=4))
        for cell in text.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        versions = [platform.python_version(), importlib.metadata.version("torch"), platform.machine()]
        whole = json.dumps([text, self._inputs, versions], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:KEY_LENGTH]

    def file(self, notebook: Path) -> Path:
        """Where this notebook's outputs are, or would be, kept."""
        return self.folder / f"{notebook.stem}-{self.key(notebook)}.ipynb"

    def get(self, notebook: Path) -> NotebookNode | None:
        """The executed notebook, or None where it has not been run as it is now."""
        try:
            return nbformat.read(self.file(notebook), as_version=4)
        except (OSError, ValueError, nbformat.reader.NotJSONError):
            return None

    def put(self, file: Path, executed: NotebookNode) -> None:
        """Keep an executed notebook in ``file``, in place of those with an earlier key."""
        for older in self.folder.glob(f"{file.stem.rpartition('-')[0]}-{'?' * KEY_LENGTH}.ipynb"):
            older.unlink()
        write(executed, file)


def digest_of(root: Path, names: Iterable[str]) -> str:
    """The hash of the files and folders ``names`` under ``root``, compiled Python left out."""
    digest = hashlib.sha256()
    for name in names:
        top = root / name
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and "__pycache__" not in file.parts:
                data = file.read_bytes()
                digest.update(f"{file.relative_to(root).as_posix()}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def machine_paths(roots: Iterable[Path]) -> list[tuple[str, str]]:
    """This machine's own folders and what stands for each in a page; ``roots`` are copies of the project."""
    own = {str(Path.home()), tempfile.gettempdir()}
    pythons = {sys.prefix, sys.base_prefix}  # a system's own Python is in /usr, which tells nothing
    shown = [(path, "…") for path in own | pythons if len(Path(path).parts) > (1 if path in own else 2)]
    return [*((str(root), ".") for root in roots), *shown]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path, help="notebooks to run and to rewrite")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks run at a time")
    options = parser.parse_args(arguments)
    for notebook in options.notebooks:
        if notebook.suffix != ".ipynb" or not notebook.is_file():
            parser.error(f"notebooks: {notebook} is not there or not a notebook (name.ipynb)")
    notebooks = [notebook.resolve() for notebook in options.notebooks]
    cache = Cache(ROOT / "_build" / "cache")
    bad = False
    for run in run_all(notebooks, cache, failed=ROOT / "_build" / "failed", jobs=options.jobs, fresh=True):
        if run.error:
            sentences = [run.error]
        else:
            executed = cache.get(run.notebook)
            write(executed, run.notebook)
            sentences = [f"{run.notebook.name}: {problem}" for problem in problems(executed)]
        for sentence in sentences:
            bad = True
            print(sentence, file=sys.stderr)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
