"""What a chapter's notebook calls: its tables, its runs, its live check."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from attn.reproduction.page import Page, show, source
from attn.reproduction.parameters import from_values, parse_seeds
from attn.reproduction.records import load_records


@pytest.fixture
def page(toy, monkeypatch):
    """A function that makes the toy's page anew."""
    toy.use(monkeypatch)
    return lambda: Page(toy.chapter)


def asked(toy, **values):
    return from_values(toy.chapter, **({"profile": "ci", "device": "cpu"} | values))


def test_a_page_without_any_record(page):
    shown = page()
    for said in ("Of 5 tests of 5 claims, 1 holds", "Holds in every test (1 of 5 claims)"):
        assert said in shown.headline().text and said in shown.headline().html
    for piece in (
        shown.table("table1_sizes"),
        shown.table("table2_errors"),
        shown.claims(),
        shown.failures(),
        shown.deviations(),
        shown.provenance(),
    ):
        assert piece.html and piece.text
    assert "same line: 0.1 squared error; a tenth" in shown.claims().text
    assert shown.records("fit/line") == []


def test_a_page_shows_its_records(page, toy):
    page_before = page()
    for seed in (2, 10, 1):
        toy.made_up(seed=seed, error=0.3)
    shown = page()
    assert [record.seed for record in shown.records("fit/line")] == [1, 2, 10]
    assert shown.records("fit/flat") == []
    with pytest.raises(
        ValueError, match="unknown experiment of toy2000 'fit/curve'; valid: fit/line, fit/flat"
    ):
        shown.records("fit/curve")
    assert "0.3" in shown.table("table2_errors").text and "0.3" not in page_before.table("table2_errors").text


def test_failures_are_those_of_the_claims_table(page, toy):
    assert page().failures().text == "No test of a claim fails; 4 of 5 are not tested at this scale."
    for seed, (line, flat) in enumerate(((0.5, 0.3), (0.5, 0.4), (0.5, 0.35))):
        toy.made_up("line", seed, error=line)
        toy.made_up("flat", seed, error=flat)
    found = page().failures()
    assert found.text.startswith("Contradicted: ") and "Undecided" not in found.text
    assert found.text.count("\n- ") == found.html.count("<li>") == 1


def test_a_figure_without_records_gives_way_to_the_command(capsys):
    figure = plt.figure()
    show(figure, "attn run toy2000")
    assert capsys.readouterr().out == ""
    show(None, "attn run toy2000 --profile cpu")
    assert capsys.readouterr().out.endswith("records: attn run toy2000 --profile cpu\n")
    plt.close(figure)


def test_provenance_gives_the_command_of_every_record(page, toy):
    toy.made_up(seed=3)
    command = "attn run toy2000 --experiment fit/line --profile cpu --seeds 3"
    assert f"<code>{command}</code>" in page().provenance().html
    assert "fit/line, seed 3" in page().provenance().text
    assert parse_seeds(command.split()[-1]) == (3,), "the command runs that seed and no other"


def test_unknown_tables_are_named(page):
    with pytest.raises(
        ValueError, match="unknown table of toy2000 'table9'; valid: table1_sizes, table2_errors"
    ):
        page().table("table9")


def test_a_live_page_reads_and_writes_no_record(page, toy):
    toy.made_up(error=0.5)
    before = {path: path.read_bytes() for path in toy.results.rglob("*") if path.is_file()}
    shown = page()
    live = shown.live(asked(toy))
    assert list(live) == ["fit/line", "fit/flat"]
    assert all(run.result.step == 5 for run in live.values())
    shown.record(asked(toy))
    assert {path: path.read_bytes() for path in toy.results.rglob("*") if path.is_file()} == before
    assert not toy.runs.exists()


def test_a_live_page_takes_the_seed_asked_for(page, toy):
    chosen = page().live(asked(toy, seeds="3"))["fit/line"]
    other = page().live(asked(toy))["fit/line"]
    assert chosen.outcome.metrics["error"].value != other.outcome.metrics["error"].value


def test_at_another_profile_the_missing_records_are_made_and_shown(page, toy, capsys):
    kept = toy.made_up(seed=1)
    shown = page()
    parameters = asked(toy, profile="cpu", seeds="0,1")
    assert shown.live(parameters) == {}
    shown.record(parameters)
    assert [record.seed for record in shown.records("fit/line")] == [0, 1]
    assert shown.records("fit/line")[1] == kept
    assert len(load_records(toy.results)[0]) == 4
    assert "3 runs (2 rows, up to 2 seeds); 1 recorded and fresh, skipped" in capsys.readouterr().out
    shown.record(parameters)
    assert "nothing to run: 4 of 4" in capsys.readouterr().out


def test_parameters_are_those_of_the_chapter(page):
    namespace = {"profile": "ci", "task": "fit", "table": "", "device": "cpu", "seeds": ""}
    assert [e.id for e in page().parameters(namespace).experiments] == ["fit/line", "fit/flat"]
    with pytest.raises(ValueError, match="unknown task of toy2000 'copy'; valid: fit"):
        page().parameters(namespace | {"task": "copy"})


def test_a_live_check_that_fails_stops_the_notebook(page):
    rows = [
        {"quantity": "cost", "value": "below 1", "baseline": None, "verdict": True},
        {"quantity": "reach", "value": "not below 2", "baseline": "below 2", "verdict": False},
        {"quantity": "for comparison", "value": "low", "verdict": None},
    ]
    with pytest.raises(AssertionError, match="^live check failed: reach: not below 2$"):
        page().live_check(rows)
    shown = page().live_check([rows[0], rows[2]])
    assert "cost" in shown.text and "for comparison" in shown.html


def test_source_is_the_library_s_own_text():
    shown = source(from_values, torch.nn.functional.relu)
    assert shown.data.startswith("def from_values(") and "\n\ndef relu(" in shown.data
    assert shown._repr_html_().count("from_values")


def given_gpu(chapter, *names):
    """The toy with a gpu profile for these experiments, and one more task that has none."""
    experiments = [
        replace(e, configs=e.configs | {"gpu": e.configs["cpu"]}) if e.label in names else e
        for e in chapter.experiments
    ]
    apart = replace(chapter.experiments[0], id="apart/line", task="apart")
    return replace(chapter, experiments=(*experiments, apart))


def test_figures_show_the_profile_that_the_notebook_is_run_at(toy, monkeypatch):
    toy.use(monkeypatch)
    toy.made_up(seed=0)
    toy.made_up(seed=1, profile="gpu")
    shown = Page(given_gpu(toy.chapter, "line"))
    asked_for = {"task": "", "table": "", "device": "cpu", "seeds": ""}

    def seeds(profile, experiment="fit/line"):
        shown.parameters(asked_for | {"profile": profile})
        return [record.seed for record in shown.records(experiment)]

    assert [record.seed for record in shown.records("fit/line")] == [0], "before any parameters: the book's"
    assert seeds("gpu") == [1]
    assert seeds("ci") == seeds("cpu") == [0]
    toy.made_up("flat")
    assert seeds("gpu", "fit/flat") == [], (
        "of a task that has the profile, nothing of another is shown beside it"
    )


def test_another_profile_can_be_shown_beside_it(toy, monkeypatch):
    toy.use(monkeypatch)
    toy.made_up(seed=0)
    toy.made_up(seed=1, profile="gpu")
    shown = Page(given_gpu(toy.chapter, "line"))
    other = shown.at("gpu")
    assert [record.seed for record in other.records("fit/line")] == [1]
    assert other.command(experiment="fit/line") == "attn run toy2000 --profile gpu --experiment fit/line"
    assert [record.seed for record in shown.records("fit/line")] == [0] and shown.profile == "cpu"
    with pytest.raises(ValueError, match="unknown profile 'tpu'; valid: ci, cpu, gpu, paper"):
        shown.at("tpu")


def test_a_task_without_the_profile_is_shown_at_its_smallest(toy):
    chapter = given_gpu(toy.chapter, "line")
    assert chapter.profile_shown("fit", "gpu") == "gpu"
    assert chapter.profile_shown("apart", "gpu") == "cpu"
    assert toy.chapter.profile_shown("fit", "paper") == "cpu"


def test_the_command_makes_what_the_figure_asked_for(toy, monkeypatch):
    toy.use(monkeypatch)
    shown = Page(given_gpu(toy.chapter, "line"))
    assert shown.command(task="fit") == "attn run toy2000 --profile cpu --task fit"
    shown.profile = "gpu"
    assert shown.command(task="fit") == "attn run toy2000 --profile gpu --task fit"
    assert shown.command(experiment="apart/line") == "attn run toy2000 --profile cpu --experiment apart/line"
    assert shown.command(table="table2_errors") == "attn run toy2000 --profile gpu --table table2_errors"
    with pytest.raises(ValueError, match="unknown task of toy2000 'copy'; valid: fit, apart"):
        shown.command(task="copy")
