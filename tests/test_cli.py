"""The command line: what each command does, and one sentence for each thing it cannot do."""

import csv
import io
import json
import sys

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from attn import cli
from attn.data import registry
from attn.reproduction.records import load_records
from tests.reproduction.status_schema import STATUS
from tests.reproduction.toy import toy_chapter


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy as the book's only chapter."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("ATTN_DATA", raising=False)
    monkeypatch.setenv("ATTN_CACHE", str(tmp_path / "cache"))
    with toy_chapter(tmp_path / "toy") as made:
        made.use(monkeypatch)
        yield made


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def attn(*arguments):
    """What a command that goes well prints."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments, status=2):
    """The sentence of a command that is refused."""
    result = invoke(*arguments)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit) and "Traceback" not in result.output
    _, mark, sentence = result.output.partition("Error: ")
    assert mark and "\n" not in sentence.strip(), result.output
    return sentence.strip()


# --- run ---------------------------------------------------------------------------------------------------


def test_run_makes_records_and_skips_them_the_next_time(toy):
    out = attn("run", "toy2000", "--experiment", "fit/line", "--seeds", "0,2", "--device", "cpu")
    assert out.startswith("2 runs (1 rows, up to 2 seeds); about ")
    records, skipped = load_records(toy.results)
    assert [record.seed for record in records] == [0, 2] and skipped == []
    for record in records:
        assert f"fit/line cpu seed {record.seed}: error {record.metric('error'):.4g}" in out
    again = attn("run", "toy2000", "--experiment", "fit/line", "--seeds", "0,2", "--device", "cpu")
    assert again.startswith("nothing to run: 2 of 2 runs are recorded and fresh; `attn run --force` runs")
    assert load_records(toy.results)[0] == records


def test_run_takes_task_and_table(toy):
    out = attn("run", "toy2000", "--task", "fit", "--table", "table2_errors", "--dry-run", "--device", "cpu")
    total, *rows = out.splitlines()
    assert total.startswith("6 runs (2 rows, up to 3 seeds); about ")
    assert [row.split()[0] for row in rows] == ["fit/line", "fit/flat"]
    assert all(row.endswith("minutes  seeds 0, 1, 2") for row in rows)


@pytest.mark.parametrize("name", ["toy2000", "9", "09_toy"])
def test_a_chapter_goes_by_paper_number_and_notebook(toy, name):
    assert attn("run", name, "--list", "--task", "fit").splitlines() == [
        "fit/line  ci, cpu               line",
        "fit/flat  ci, cpu               flat",
    ]
    assert attn("status", "--chapter", name) == attn("status", "--chapter", "toy2000")
    assert attn("results", "revalidate", name) == ""


def test_help_lists_the_chapters(toy):
    assert attn("run", "--help").endswith("Chapters:\n  9 toy2000  Line, 09_toy\n")


def test_of_many_experiments_the_nearest_are_named(toy, monkeypatch):
    monkeypatch.setattr("attn.reproduction.errors._MOST_LISTED", 1)
    start = "unknown experiment of toy2000 "
    listed = "`attn run toy2000 --list` lists all 2"
    assert (
        refused("run", "toy2000", "--experiment", "fit/lin")
        == f"{start}'fit/lin'; near: fit/line, fit/flat; {listed}"
    )
    assert refused("run", "toy2000", "--experiment", "x") == f"{start}'x'; {listed}"


def test_a_dry_run_leaves_nothing(toy):
    attn("run", "toy2000", "--dry-run", "--device", "cpu")
    assert not toy.results.exists() and not toy.runs.exists()


def test_run_with_force_and_with_a_time_limit(toy):
    toy.run()
    out = attn(
        "run", "toy2000", "--experiment", "fit/line", "--seeds", 0, "--device", "cpu", "--force", "--dry-run"
    )
    assert out.startswith("1 runs")
    out = attn(
        "run", "toy2000", "--experiment", "fit/flat", "--seeds", 0, "--device", "cpu", "--time-limit", "1e-9"
    )
    assert "time limit" in out
    assert len(load_records(toy.results)[0]) == 1


def test_run_at_ci_leaves_no_record(toy):
    out = attn("run", "toy2000", "--profile", "ci", "--device", "cpu")
    assert "fit/line ci seed 0 (no record): error " in out and "fit/flat ci seed 0 (no record)" in out
    assert not toy.results.exists() and not toy.runs.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["toy1999"], "unknown chapter 'toy1999'; valid: toy2000"),
        (["toy2000", "--profile", "fast"], "unknown profile 'fast'; valid: ci, cpu, gpu, paper"),
        (
            ["toy2000", "--profile", "gpu"],
            "profile 'gpu' is not defined for fit/line, fit/flat; valid: ci, cpu",
        ),
        (["toy2000", "--task", "sort"], "unknown task of toy2000 'sort'; valid: fit"),
        (
            ["toy2000", "--table", "table9"],
            "unknown table of toy2000 with runs 'table9'; valid: table2_errors",
        ),
        (
            ["toy2000", "--experiment", "line"],
            "unknown experiment of toy2000 'line'; valid: fit/line, fit/flat",
        ),
        (["toy2000", "--seeds", "x"], "got 'x'"),
        (["toy2000", "--seeds=-1"], "got '-1'"),
        (["toy2000", "--device", "tpu"], "unknown device 'tpu'; valid: auto, cpu, cuda"),
        (["toy2000", "--time-limit", "0"], "0.0 is not in the range x>0"),
        (["toy2000", "--time-limit", "soon"], "'soon' is not a valid float"),
        (["toy2000", "--threads", "0"], "0 is not in the range x>=1"),
        (["toy2000", "--sed", "0"], "No such option"),
        ([], "Missing argument 'CHAPTER'"),
    ],
)
def test_run_refuses_with_what_is_valid(toy, arguments, sentence):
    assert sentence in refused("run", *arguments)
    assert not toy.results.exists() and not toy.runs.exists()


def test_a_folder_that_cannot_be_written_is_named(toy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTN_RUNS", str(tmp_path / "file" / "runs"))
    sentence = refused("run", "toy2000", "--experiment", "fit/line", "--seeds", "0", "--device", "cpu")
    assert sentence.startswith("ATTN_RUNS must name a folder; got ") and sentence.endswith("/file is a file")


def test_what_the_system_refuses_is_told(toy, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attn.reproduction.runner.run_grid", full)
    assert "No space left on device" in refused("run", "toy2000", "--device", "cpu", status=1)


def test_a_reader_who_has_enough_is_told_nothing(toy, monkeypatch):
    def closed(*arguments, **options):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli.click, "echo", closed)
    assert invoke("data", "list").output == ""


# --- status ------------------------------------------------------------------------------------------------


def test_status_for_people(toy):
    toy.made_up()
    (toy.results / "bad.json").write_text("{")
    short, whole = attn("status"), attn("status", "--all")
    for out in (short, whole):
        assert "All chapters" in out and "9 Fitting a Line (toy2000)\n" in out
        assert "results/bad.json: not readable as JSON" in out
    claim = "A line fits better than a"
    assert claim in whole and claim not in short
    assert "attn status --chapter CHAPTER" in short
    assert attn("status", "--chapter", "toy2000") == whole


def test_status_says_what_is_stale_and_why(toy):
    toy.made_up()
    toy.made_up(seed=1)
    assert "Stale, " not in attn("status")
    toy.edit("attn.toy_model", "weight())", "weight() + 0)")
    assert "\nStale, 2 of 2 records: changed since: attn.toy_model" in attn("status")


def test_results_that_are_not_there_yet_are_an_empty_status(toy):
    assert not toy.results.exists()
    assert "none yet" in attn("status") and not toy.results.exists()


@pytest.mark.parametrize("below", ["", "/results"])
@pytest.mark.parametrize("command", [["status"], ["results", "check"], ["run", "toy2000", "--dry-run"]])
def test_results_that_are_a_file_are_refused(toy, monkeypatch, tmp_path, command, below):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTN_RESULTS", f"{tmp_path}/file{below}")
    assert refused(*command).startswith("ATTN_RESULTS must name a folder; got ")


def test_status_for_programs(toy):
    toy.made_up()
    (toy.results / "bad.json").write_text("[" * 100_000)
    found = json.loads(attn("status", "--json"), parse_constant=pytest.fail)
    assert not list(Draft202012Validator(STATUS).iter_errors(found))
    assert [chapter["id"] for chapter in found] == ["toy2000"]
    assert found[0]["skipped"][0]["path"] == "results/bad.json"


def test_status_of_an_unknown_chapter(toy):
    assert refused("status", "--chapter", "x") == "unknown chapter 'x'; valid: toy2000"


# --- results -----------------------------------------------------------------------------------------------


def test_check_names_what_is_wrong(toy):
    assert attn("results", "check") == "0 valid records, 0 files skipped\n"
    toy.made_up()
    toy.made_up(seed=1).path.write_text("{")
    result = invoke("results", "check")
    assert result.exit_code == 1
    bad, count = result.output.splitlines()
    assert bad.startswith("results/toy2000/fit/line/cpu/seed1.json: not readable as JSON")
    assert count == "1 valid records, 1 files skipped"


def test_pack_and_merge(toy, tmp_path, monkeypatch):
    for seed in range(2):
        toy.made_up(seed=seed)
    packed = tmp_path / "grid.tar.gz"
    assert attn("results", "pack", packed) == f"2 records packed into {packed}\n"
    monkeypatch.setenv("ATTN_RESULTS", str(tmp_path / "other"))
    assert attn("results", "merge", packed) == "2 records merged, 0 left out\n"
    moved = load_records(tmp_path / "other")[0]
    assert [record.data for record in moved] == [record.data for record in load_records(toy.results)[0]]
    moved[0].path.write_text(moved[0].path.read_text().replace('"threads": 1', '"threads": 2'))
    out = attn("results", "merge", toy.results)
    assert "left out toy2000/fit/line/cpu/seed0.json: another record of this run is there" in out
    assert "1 left out" in out
    assert "0 left out" in attn("results", "merge", toy.results, "--replace")


def test_csv(toy, tmp_path):
    toy.made_up(error=0.25)
    text = attn("results", "csv")
    assert [line["value"] for line in csv.DictReader(io.StringIO(text))] == ["0.25"]
    assert attn("results", "csv", tmp_path / "all.csv") == ""
    assert (tmp_path / "all.csv").read_text() == text


def test_revalidate_tells_what_became_of_stale_records(toy):
    toy.run()
    assert attn("results", "revalidate") == ""
    toy.edit("attn.toy_model", "weight())", "weight() + 0)")
    out = attn("results", "revalidate", "toy2000")
    assert out == "results/toy2000/fit/line/cpu/seed0.json: revalidated (changed since: attn.toy_model)\n"
    assert attn("results", "revalidate") == "", "nothing is stale any more"
    toy.edit("attn.experiments.toy", "SLOPE = 2.0", "SLOPE = 3.0")
    assert "seed0.json: stale (changed since: attn.experiments.toy:build" in attn("results", "revalidate")


def test_revalidate_passes_over_what_is_gone(toy):
    toy.made_up()
    toy.edit("attn.experiments.toy", 'experiments=(experiment("line"), experiment("flat", lr=0.001))',
             'experiments=(experiment("flat", lr=0.001),)')  # fmt: skip
    assert "no longer has this experiment" in attn("results", "revalidate")


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["merge", "{tmp}/none.tar.gz"], 2, "does not exist"),
        (["merge", "{tmp}/text"], 2, "text is neither a folder nor a file made by"),
        (["merge"], 2, "Missing argument 'SOURCE'"),
        (["pack", "{tmp}"], 2, "is a directory"),
        (["pack"], 2, "Missing argument 'TARGET'"),
        (["merge", "{tmp}"], 2, "holds no valid record"),
        (["pack", "{tmp}/x.tar.gz"], 2, "results holds no valid record"),
        (["pack", "{tmp}/text/x.tar.gz"], 2, "text is no folder"),
        (["pack", "{tmp}/typo/x.tar.gz"], 2, "typo is no folder"),
        (["csv", "{tmp}/text/x.csv"], 2, "text is no folder"),
        (["csv", "{tmp}/typo/x.csv"], 2, "typo is no folder"),
        (["csv", "{tmp}"], 2, "is a directory"),
        (["revalidate", "x"], 2, "unknown chapter 'x'; valid: toy2000"),
        (["prune"], 2, "No such command 'prune'"),
    ],
)
def test_results_refuses_in_one_sentence(toy, tmp_path, arguments, status, named):
    (tmp_path / "text").write_text("text")
    assert named in refused("results", *(part.format(tmp=tmp_path) for part in arguments), status=status)
    assert not (tmp_path / "typo").exists() and not list(tmp_path.glob("x.*"))


# --- data --------------------------------------------------------------------------------------------------


def test_data_list_names_every_corpus(toy):
    lines = attn("data", "list").splitlines()
    assert [line.split()[0] for line in lines] == list(registry.corpora())
    for line, corpus in zip(lines, registry.corpora().values(), strict=True):
        assert corpus.licence in line


def test_a_built_in_corpus_is_there(toy):
    assert "python-stdlib" in attn("data", "fetch", "python-stdlib")
    assert "built in" in attn("data", "verify", "python-stdlib")


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_an_unknown_corpus_is_named(toy, command):
    sentence = refused("data", command, "enwik9")
    assert "enwik9" in sentence and "python-stdlib" in sentence


def test_data_folder_that_is_none(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("ATTN_DATA", str(tmp_path / "none"))
    assert "ATTN_DATA" in refused("data", "list")


def test_an_unknown_file_of_a_corpus_is_named(toy):
    assert "'none'" in refused("data", "fetch", "python-stdlib", "none")


# --- all of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["status"],
        ["results"],
        ["results", "check"],
        ["results", "merge"],
        ["data"],
        ["data", "fetch"],
    ],
)
def test_every_command_explains_itself(command):
    for option in ("--help", "-h"):
        out = attn(*command, option)
        assert out.startswith("Usage: ") and len(out.splitlines()) > 4


def test_an_unknown_command():
    assert "No such command 'train'" in refused("train")
