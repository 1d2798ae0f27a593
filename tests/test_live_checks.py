"""A chapter's live check fails when a gradient is wrong.

It runs on a copy of the notebook that keeps the cells with the imports, the parameters, the live run and its checks. An
added cell leaves out what no check looks at, as baselines; the budget is the whole one of profile ci. That the check passes
when no gradient is wrong shows in `make test` itself, which runs the notebook.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

pytest.importorskip("nbval")

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """A wrong gradient, and the check that has to notice it."""

    notebook: str
    smaller: str  # source of the cell that is added after the imports
    module: str  # where the model is defined
    model: str  # its class
    part: str  # names of parameters whose gradients get the wrong sign begin so
    fails: str  # what the failing check says


NTM_ALONE = """\
from dataclasses import replace

experiment = CHAPTER.experiment("copy/ntm_lstm")
config = replace(experiment.configs["ci"], test_sizes=((10,),), test_count=16)
page.chapter = replace(CHAPTER, experiments=(replace(experiment, configs={"ci": config}),))
"""
FULL_ALONE = """\
from dataclasses import replace

page.chapter = replace(CHAPTER, experiments=(CHAPTER.experiment("duplication/full"),))
"""
TRANSFORMER_ALONE = """\
from dataclasses import replace

page.chapter = replace(CHAPTER, experiments=(CHAPTER.experiment("spoken_numbers/transformer"),))
"""
SPAN_ALONE = """\
from dataclasses import replace

page.chapter = replace(CHAPTER, experiments=(CHAPTER.experiment("copies/adaptive_128_from_max"),))
"""
ALL_ALONE = """\
from dataclasses import replace

page.chapter = replace(CHAPTER, experiments=(CHAPTER.experiment("letters/all"),))
"""
FACTS_ALONE = """\
from dataclasses import replace

page.chapter = replace(CHAPTER, experiments=(CHAPTER.experiment("facts/all"),))
"""
PRODUCT_KEYS_ALONE = """\
from dataclasses import replace

page.chapter = replace(CHAPTER, experiments=(CHAPTER.experiment("facts/2048_keys32"),))
"""
MUTATIONS = (
    Mutation("01_transformer", TRANSFORMER_ALONE, "attn.transformer", "Transformer", "encoder.",
             "Numbers and dates in words"),
    Mutation("02_reformer", FULL_ALONE, "attn.reformer", "FullAttention", "projection.",
             "Trained and evaluated with full attention"),
    Mutation("03_adaptive_span", SPAN_ALONE, "attn.adaptive_span", "AdaptiveSpan", "ratio", "Mean span at the end"),
    Mutation("04_all_attention", ALL_ALONE, "attn.all_attention", "AllAttention", "key_value.",
             "All-attention: bits per symbol of new text"),
    Mutation("04_all_attention", FACTS_ALONE, "attn.all_attention", "AllAttention", "persistent.",
             "Facts, all-attention: bits per symbol"),
    Mutation("05_product_keys", PRODUCT_KEYS_ALONE, "attn.product_keys", "ProductKeyMemory", "values",
             "Key-value facts with a memory"),
    Mutation("06_ntm", NTM_ALONE, "attn.ntm", "NTM", "heads.", "Copy, 1 to 5 vectors"),
)  # fmt: skip

# Python imports a module of this name at its start, in kernels too. Patching waits until the model's module is imported.
WRONG_SIGN = """\
import importlib.machinery
import sys

MODULE, MODEL, PART = {module!r}, {model!r}, {part!r}


class WrongSign:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            model = getattr(module, MODEL)
            init = model.__init__

            def perturbed(self, **options):
                init(self, **options)
                hooked = [p for name, p in self.named_parameters() if name.startswith(PART)]
                assert hooked
                for parameter in hooked:
                    parameter.register_hook(lambda gradient: -gradient)

            model.__init__ = perturbed

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, WrongSign)
"""


def reduced(mutation: Mutation) -> nbformat.NotebookNode:
    """The committed notebook's imports, parameters, live run and checks, outputs included."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{mutation.notebook}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]

    def place(found) -> int:
        (index,) = [index for index, cell in enumerate(cells) if found(cell)]
        return index

    opened = place(lambda cell: "page = Page(CHAPTER)" in cell.source)  # the last cell of the imports
    parameters = place(lambda cell: "parameters" in cell.metadata.get("tags", ()))
    validated = place(lambda cell: "page.parameters(globals())" in cell.source)
    live = place(lambda cell: "page.live(" in cell.source)
    checked = next(
        i for i in range(live, len(cells)) if "nbval-check-output" in cells[i].metadata.get("tags", ())
    )
    smaller = nbformat.v4.new_code_cell(mutation.smaller, id="smaller")
    chosen = [*range(opened + 1), parameters, validated, *range(live, checked + 1)]
    assert chosen == sorted(set(chosen)), "the notebook's order has changed"
    kept = [cells[index] for index in chosen]
    notebook.cells = [*kept[: opened + 1], smaller, *kept[opened + 1 :]]
    cells[validated].outputs = []  # it names the experiments, of which one is left
    return notebook


def nbval(mutation: Mutation, folder: Path, *search: Path) -> tuple[int, str]:
    """Run nbval on the reduced notebook; `search` comes first on Python's search path."""
    folder.mkdir()
    path = folder / f"{mutation.notebook}.ipynb"
    nbformat.write(reduced(mutation), path)
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (*search, ROOT))),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    command += ["--nbval-lax", "--nbval-current-env", str(path)]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    return done.returncode, re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.notebook}-{mutation.part}")
def test_a_gradient_of_the_wrong_sign_fails_it(mutation, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WRONG_SIGN.format(**mutation._asdict()))
    status, said = nbval(mutation, tmp_path / "perturbed", tmp_path / "site")
    assert status == 1, said
    assert f"live check failed: {mutation.fails}" in said, said
    assert re.search(r"2 failed, [3-9] passed", said), "the live check and its verdict, and no other cell"
