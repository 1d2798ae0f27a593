"""Parameters of a notebook: each wrong one stops with one sentence, here and through papermill."""

from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from attn.reproduction.errors import UsageError
from attn.reproduction.parameters import (
    NAMES,
    assigned_names,
    from_values,
    injected_names,
    parse_seeds,
    validate,
)

ROOT = Path(__file__).parents[2]
DEFAULTS = {"profile": "ci", "task": "", "table": "", "device": "cpu", "seeds": ""}


@pytest.fixture
def chapter(toy):
    return toy.chapter


def sentence_of(function, *arguments, **options):
    with pytest.raises(UsageError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 300
    return sentence


# --- values ------------------------------------------------------------------------------------------------


def test_defaults_select_everything_live(chapter):
    found = from_values(chapter, **DEFAULTS)
    assert found.live and found.profile == "ci" and found.seeds is None
    assert [experiment.id for experiment in found.experiments] == ["fit/line", "fit/flat"]
    assert found.device == torch.device("cpu")
    assert from_values(chapter, profile="ci").experiments == found.experiments


def test_chosen_values(chapter):
    found = from_values(chapter, profile="gpu", task="fit", table="table2_errors", device="cpu", seeds="0,2")
    assert not found.live and found.seeds == (0, 2) and len(found.experiments) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"profile": "fast"}, "unknown profile 'fast'; valid: ci, cpu, gpu, paper"),
        ({"profile": ""}, "unknown profile ''; valid: ci, cpu, gpu, paper"),
        ({"profile": None}, "unknown profile None; valid: ci, cpu, gpu, paper"),
        ({"profile": 3}, "unknown profile 3; valid: ci, cpu, gpu, paper"),
        ({"profile": ["cpu"]}, "unknown profile ['cpu']; valid: ci, cpu, gpu, paper"),
        ({"task": "sort"}, "unknown task of toy2000 'sort'; valid: fit"),
        ({"task": 0}, "unknown task of toy2000 0; valid: fit"),
        ({"task": False}, "unknown task of toy2000 False; valid: fit"),
        (
            {"table": "table1_sizes"},
            "unknown table of toy2000 with runs 'table1_sizes'; valid: table2_errors",
        ),
        ({"table": 2}, "unknown table of toy2000 with runs 2; valid: table2_errors"),
        ({"device": "tpu"}, "unknown device 'tpu'; valid: auto, cpu, cuda"),
        ({"device": ""}, "unknown device ''; valid: auto, cpu, cuda"),
    ],
)
def test_a_wrong_value_gives_the_valid_ones(chapter, changes, sentence):
    assert sentence_of(from_values, chapter, **(DEFAULTS | changes)) == sentence


def test_no_gpu(chapter, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "valid: auto, cpu" in sentence_of(from_values, chapter, **(DEFAULTS | {"device": "cuda"}))


def test_filters_that_exclude_each_other(toy):
    from dataclasses import replace

    other = replace(toy.experiment(), id="sort/line", task="sort", tables=("table3_lore",))
    chapter = replace(toy.chapter, experiments=(*toy.chapter.experiments, other))
    assert [e.id for e in chapter.select(task="sort")] == ["sort/line"]
    assert [e.id for e in chapter.select(task="fit", experiment="fit/flat")] == ["fit/flat"]
    sentence = sentence_of(from_values, chapter, **(DEFAULTS | {"task": "fit", "table": "table3_lore"}))
    assert sentence == "no experiment of toy2000 fits task='fit', table='table3_lore', experiment=None"
    assert sentence_of(chapter.select, experiment="fit") == (
        "unknown experiment of toy2000 'fit'; valid: fit/line, fit/flat, sort/line"
    )


# --- seeds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (None, None),
        ("", None),
        ("0", (0,)),
        ("5", (5,)),
        ("0,2,4", (0, 2, 4)),
        (" 1, 3 ", (1, 3)),
        ("0-4", (0, 1, 2, 3, 4)),
        ("3-3", (3,)),
        ("0-2,7", (0, 1, 2, 7)),
        ("1,1,0-2", (1, 0, 2)),
        ([0, 2], (0, 2)),
        ((3,), (3,)),
    ],
)
def test_forms_of_seeds(given, seeds):
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_number_means_what_its_text_means(seed):
    """papermill turns `-p seeds 5` into a number, and `attn run --seeds 5` leaves it text."""
    assert parse_seeds(seed) == parse_seeds(str(seed)) == (seed,)


@pytest.mark.parametrize(
    "given",
    [-1, True, False, 1.0, "x", "-1", "1-", "-", "4-1", "1.5", "1,,2", "1;2", "²", "0x1", [], [0, -1], [0, "1"], [True], {0},
     "0-99999999999", "1" * 30],
)  # fmt: skip
def test_what_is_no_seed(given):
    sentence = sentence_of(parse_seeds, given)
    assert sentence.startswith("seeds must be")
    named = given.split(",")[0] if isinstance(given, str) and given != "1,,2" else ""
    assert named in sentence


# --- unknown names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("# Parameters\nprofile = 'cpu'\ntask = 'copy'\n", ["profile", "task"]),
        ("x: int = 3", ["x"]),
        ("", []),
        ("print(1)\na.b = 3\n", []),
    ],
)
def test_names_that_a_cell_assigns(source, names):
    assert assigned_names(source) == names


def test_only_the_injected_cell_is_looked_at():
    own = "profile = 'ci'\ntask = ''\nmood = 'good'"
    assert injected_names(["", "import attn", own]) == []
    assert injected_names(["", own, "# Parameters\nprofil = 'cpu'\n"]) == ["profil"]
    assert injected_names(["# Parameters\na = 1", "# Parameters\nb = 1"]) == ["b"]
    assert injected_names([]) == []


def test_an_unknown_name_gives_the_valid_ones(chapter):
    cells = ["", "profile = 'ci'", "# Parameters\nprofile = 'cpu'\nprofil = 'cpu'\n"]
    assert sentence_of(validate, chapter, DEFAULTS | {"In": cells}) == (
        "unknown parameter 'profil'; valid: profile, task, table, device, seeds"
    )
    cells[-1] = "# Parameters\nseeds = '1-2'\n"
    assert validate(chapter, DEFAULTS | {"In": cells, "seeds": "1-2"}).seeds == (1, 2)


def test_outside_a_notebook(chapter):
    assert validate(chapter, DEFAULTS).live
    assert "unknown profile None" in sentence_of(validate, chapter, {})


def test_the_errors_show_themselves_in_one_line():
    assert UsageError("unknown task 'x'; valid: copy")._render_traceback_() == [
        "UsageError: unknown task 'x'; valid: copy"
    ]


# --- through papermill -------------------------------------------------------------------------------------


@pytest.fixture
def papermill_run(tmp_path, monkeypatch):
    """A function that runs a minimal chapter with parameters from another folder, and returns its cells."""
    papermill = pytest.importorskip("papermill")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("ATTN_RESULTS", str(tmp_path / "results"))
    sources = (
        "from attn.experiments.ntm import CHAPTER\nfrom attn.reproduction.page import Page\n\npage = Page(CHAPTER)",
        "\n".join(f"{name} = {DEFAULTS[name]!r}" for name in NAMES),
        "parameters = page.parameters(globals())",
        "print(parameters.profile, parameters.seeds, *[experiment.id for experiment in parameters.experiments])",
    )
    cells = [new_code_cell(source, id=f"cell{number}") for number, source in enumerate(sources)]
    cells[1].metadata["tags"] = ["parameters"]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source, target = tmp_path / "chapter.ipynb", tmp_path / "out.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), source)

    def run(**parameters):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        try:
            papermill.execute_notebook(
                source, target, parameters=parameters, kernel_name="python3", progress_bar=False, cwd=elsewhere,
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            return nbformat.read(target, as_version=4).cells, error
        return nbformat.read(target, as_version=4).cells, None

    return run


def test_papermill_stops_at_an_unknown_name_with_one_sentence(papermill_run):
    cells, error = papermill_run(profil="cpu")
    sentence = "unknown parameter 'profil'; valid: profile, task, table, device, seeds"
    assert (error.ename, error.evalue) == ("UsageError", sentence)
    (output,) = [
        output for cell in cells for output in cell.get("outputs", ()) if output.output_type == "error"
    ]
    assert output.traceback == [f"UsageError: {sentence}"], "no trace of how it got there"
    assert cells[-1].outputs == [], "nothing ran after it"


def test_papermill_s_parameters_arrive(papermill_run):
    cells, error = papermill_run(profile="cpu", task="copy", seeds=3)
    assert error is None
    assert cells[-1].outputs[0].text.split() == ["cpu", "(3,)", "copy/ntm_lstm", "copy/ntm_ff", "copy/lstm"]
