"""Build the book: ``make book``.

Everything happens in a copy of the project under ``_build``, so the tree stays as it is: the chapters are run
there, and Jupyter Book turns the copy into pages, any warning being an error.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from copy import deepcopy
from pathlib import Path

import yaml

from tools.notebook_rules import hide_injected, write
from tools.notebooks import ROOT, Cache, run_all

NEVER_STAGED = {".git", ".venv", "_build", "build", "dist", "__pycache__", ".ipynb_checkpoints"}
CACHES = {".pytest_cache", ".ruff_cache", ".hypothesis"}
# Colab, Binder and Pages read from GitHub; the theme knows no address without it.
REPOSITORY = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
JUPYTER_BOOK = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]


class BuildFailed(Exception):
    """Why there are no new pages; the message is for the user."""


def project_files(root: Path) -> list[Path]:
    """Files relative to ``root``: what git tracks or would track; without git, all that is no product."""
    listed = None
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        try:
            listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
        except (OSError, subprocess.CalledProcessError):
            listed = None  # git is missing, or does not trust the folder: take what lies there
    if listed is None:
        return sorted(_walk(root))
    return sorted(Path(name) for name in set(listed) if name and (root / name).is_file())


def _walk(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [f for f in folders if not _is_product(here / f)]
        found += [(here / file).relative_to(root) for file in files]
    return found


def _is_product(folder: Path) -> bool:
    named = folder.name in NEVER_STAGED | CACHES or folder.name.endswith(".egg-info")
    return named or (folder / "pyvenv.cfg").exists()


def stage(root: Path, copy: Path) -> None:
    """Make ``copy`` a fresh copy of the project's files."""
    files = project_files(root)
    shutil.rmtree(copy, ignore_errors=True)
    for file in files:
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / file, copy / file)


def repository_of(root: Path) -> str:
    """The book's public address from ``pyproject.toml``, or an empty string while it has none.

    Raises:
        BuildFailed: it is set, but not as ``https://github.com/owner/name``.
    """
    url = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["attn"]["repository"]
    if url and not REPOSITORY.fullmatch(url):
        raise BuildFailed(f"[tool.attn] repository = {url!r} must be https://github.com/owner/name or empty")
    return url


def configured(config: dict, repository: str) -> dict:
    """Jupyter Book's configuration, with buttons and links to ``repository`` unless that is empty."""
    config = deepcopy(config)
    if not repository:
        return config
    html = config.setdefault("html", {})
    html.update(use_repository_button=True, use_issues_button=True)
    citation = f'<a href="{repository}/blob/main/CITATION.cff">Cite this book</a>'
    html["extra_footer"] = f"{html.get('extra_footer') or ''}<p>{citation}</p>"
    config["repository"] = {"url": repository, "branch": "main", "path_to_book": ""}
    launch = config.setdefault("launch_buttons", {})
    launch.update(colab_url="https://colab.research.google.com", binderhub_url="https://mybinder.org")
    return config


def run_notebooks(copy: Path, build: Path, *, jobs: int) -> None:
    """Run the staged notebooks, or take them from the cache, and put the outputs into the stage.

    Raises:
        BuildFailed: a notebook failed.
    """
    notebooks = sorted([*copy.glob("notebooks/*.ipynb"), *copy.glob("book/*.ipynb")])
    cache = Cache(build / "cache", root=copy)
    failures = [
        run.error for run in run_all(notebooks, cache, failed=build / "failed", jobs=jobs) if run.error
    ]
    if failures:
        raise BuildFailed("\n".join(failures))
    for notebook in notebooks:
        executed = cache.get(notebook)
        hide_injected(executed)
        write(executed, notebook)


def render(copy: Path, build: Path) -> Path:
    """Turn the stage into pages; return the page to open.

    Raises:
        BuildFailed: Jupyter Book warned of something; the pages of an earlier build stay.
    """
    log, output = build / "pages.log", build / "pages"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        *JUPYTER_BOOK,
        "build",
        str(copy),
        "--path-output",
        str(output),
        "-W",
        "-n",
        "--keep-going",
        "--all",
    ]
    with log.open("w") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        ).returncode
    if code:
        told = [
            line for line in log.read_text().splitlines() if re.search(r"WARNING|ERROR|Error|Exception", line)
        ]
        told = [line.replace(f"{copy}{os.sep}", "") for line in told]
        raise BuildFailed(
            "\n".join([*told, f"the pages could not be built without warnings; everything said: {log}"])
        )
    html = build / "html"
    shutil.rmtree(html, ignore_errors=True)
    os.replace(output / "_build" / "html", html)
    return html / "index.html"


def build_book(root: Path, *, jobs: int) -> Path:
    """Run the chapters of the project at ``root`` and build its pages; return the page to open."""
    build, copy = root / "_build", root / "_build" / "stage"
    repository = repository_of(root)
    stage(root, copy)
    run_notebooks(copy, build, jobs=jobs)
    config = copy / "_config.yml"
    config.write_text(
        yaml.safe_dump(configured(yaml.safe_load(config.read_text()), repository), sort_keys=False)
    )
    print("building the pages", flush=True)
    return render(copy, build)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="chapters run at a time")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project to build")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        page = build_book(options.root.resolve(), jobs=options.jobs)
    except BuildFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    print(f"the book is ready after {time.monotonic() - start:.0f} s: {page.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
