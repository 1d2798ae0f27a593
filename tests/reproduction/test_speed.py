"""Results of benchmarks: read with suspicion, shown as tables, and no obstacle to the commands on records."""

import json
import re
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from attn import cli
from attn.reproduction.paths import results_dir
from attn.reproduction.records import load_records, merge, pack, write_record
from attn.reproduction.speed import (
    BENCHMARKS,
    Speed,
    changed_words,
    command,
    goal_words,
    load_speed,
    of_benchmark,
    rate_words,
    reached,
    speed_table,
    todays_rows,
)
from tests.reproduction.made_up_speed import result, row, store
from tests.reproduction.toy import record_data


def shown(tmp_path, *rows, **changes):
    """The table of a result with these rows."""
    store(tmp_path, result(*rows, **changes))
    (found,), skipped = load_speed(tmp_path)
    assert skipped == []
    return speed_table(found)


def cells(piece):
    """The table's cells, line by line, each as its text; what goes on from above is left out."""
    table = ElementTree.fromstring(f"<div>{piece.html}</div>").find(".//table")
    return [[" ".join("".join(cell.itertext()).split()) for cell in line] for line in table.iter("tr")]


def reason(results):
    """Why the one file there is skipped."""
    found, (skipped,) = load_speed(results)
    assert found == []
    assert "\n" not in skipped.reason and len(skipped.reason) < 400
    return skipped.reason


# --- reading -----------------------------------------------------------------------------------------------


def test_results_are_read_in_order_of_their_path(tmp_path):
    store(tmp_path, result(benchmark="ntm"), "h200")
    store(tmp_path, result(benchmark="ntm"), "cpu")
    store(tmp_path, result(benchmark="attention"), "cpu")
    found, skipped = load_speed(tmp_path)
    paths = ["speed/attention/cpu.json", "speed/ntm/cpu.json", "speed/ntm/h200.json"]
    assert [each.path for each in found] == paths and skipped == []
    assert [each.path for each in of_benchmark(found, "ntm")] == paths[1:]


def test_nothing_there(tmp_path):
    assert load_speed(tmp_path / "none") == ([], [])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: data.pop("environment"), "top level: 'environment' is a required property"),
        (lambda data: data.update(host="x"), "top level: .*'host' was unexpected"),
        (lambda data: data["environment"].update(user="x"), "environment: .*'user' was unexpected"),
        (lambda data: data["environment"].pop("cpu"), "environment: 'cpu' is a required"),
        (lambda data: data.update(schema=2), "schema: 1 was expected"),
        (lambda data: data.update(finished="today"), "finished: "),
        (lambda data: data.update(rows=[]), "rows: "),
        (lambda data: data["code"].update(commit="abc"), "code/commit: "),
        (lambda data: data["rows"][0].update(heap="other"), "rows/0/heap: 'other' is not one of"),
        (lambda data: data["rows"][0].update(probe_gflops=[1.0]), "rows/0/probe_gflops: "),
        (lambda data: data["rows"][0]["variants"][1].update(seconds=0), "rows/0/variants/1/seconds: "),
        (lambda data: data["rows"][0]["variants"][1].update(seconds=float("nan")), "NaN is not finite"),
        (lambda data: data["rows"][0]["variants"][1].update(rate=float("inf")), "Infinity is not finite"),
        (lambda data: data["rows"][1].update(heap="default"), "'copy, batch 1' with the default heap occurs"),
        (lambda data: data["rows"][0]["goal"].update(against="ours"), "rows/0: .*'ours'; valid: theirs"),
        (lambda data: data["rows"][0]["variants"][1].update(name="ours"), "rows/0: a variant occurs twice"),
        (lambda data: data["rows"][1]["variants"][1].update(ratio=9.0), "rows/1: the ratio of 'theirs'"),
        (
            lambda data: data["rows"][1]["variants"][1].update(quartiles=[1, 2]),
            "rows/1: the median of 'theirs'",
        ),
        (lambda data: data.update(benchmark="flash"), "benchmark: 'flash' is unknown; valid: attention, "),
        (lambda data: data.update(benchmark="decoding"), "belongs in speed/decoding/"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, named):
    data = result()
    change(data)
    store(tmp_path, data, folder="ntm")
    assert re.search(named, reason(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{half", b"\xff", b"[" * 100_000, b'{"seconds": 1e999}', b"[]"])
def test_files_that_are_no_result_are_skipped(tmp_path, content):
    store(tmp_path, result()).write_bytes(content)
    assert str(tmp_path) not in reason(tmp_path)


def test_every_committed_result_is_valid():
    _, skipped = load_speed(results_dir())
    assert [f"{item.path.name}: {item.reason}" for item in skipped] == []


def test_every_benchmark_is_known_to_the_page():
    files = {path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py")}
    assert set(BENCHMARKS) == files - {"timing", "again"}


# --- goals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "goal", "verdict"),
    [
        (0.0090, 4, True),
        (0.0080, 4, True),
        (0.0070, 4, False),
        (0.0018902, 0.95, True),  # 0.9451, shown as 0.95
        (0.0018898, 0.95, False),
        (0.0090, None, None),
    ],
)
def test_a_goal_is_judged_at_the_digits_shown(theirs, goal, verdict):
    made = row(seconds=(0.002, theirs), goal=goal)
    assert reached(made, made["variants"][0]) is None
    assert reached(made, made["variants"][1]) is verdict


def test_a_disturbed_row_decides_nothing():
    made = row(disturbed=True)
    assert [reached(made, variant) for variant in made["variants"]] == [None, None]


# --- tables ------------------------------------------------------------------------------------------------


def test_a_line_a_variant_with_time_and_ratio_for_each_heap(tmp_path):
    rows = [row(heap="default"), row(heap="kept", seconds=(0.001, 0.003)), row("copy, batch 16", goal=None)]
    assert cells(shown(tmp_path, *rows)) == [
        ["Row", "Variant", "Default: ms", "Default: ratio", "Kept: ms", "Kept: ratio"],
        ["copy, batch 1", "ours", "2.00[1.90, 2.20]", "1.00", "1.00[0.95, 1.10]", "1.00"],
        ["theirs", "9.00[8.55, 9.90]", "4.50✓ reaches 4", "3.00[2.85, 3.30]", "3.00✗ below 4"],
        ["copy, batch 16", "ours", "2.00[1.90, 2.20]", "1.00", "–", "–"],
        ["theirs", "9.00[8.55, 9.90]", "4.50", "–", "–"],
    ]


def test_text_says_what_html_says(tmp_path):
    text = shown(tmp_path, row(heap="default"), row(heap="kept", seconds=(0.001, 0.003))).text
    assert "Example <Processor>, 1 thread, torch 2.13.0" in text
    assert re.search(
        r"theirs +9\.00 \[8\.55, 9\.90\] +4\.50 ✓ reaches 4 +3\.00 \[2\.85, 3\.30\] +3\.00 ✗ below 4", text
    )
    assert "Measured on 2026-11-21 at commit aaaaaaaaaa, 15 rounds a row" in text
    assert "98 to 101 GFLOP/s" in text


def test_a_heap_that_was_not_measured_has_no_columns(tmp_path):
    assert cells(shown(tmp_path, row(heap="kept")))[0] == ["Row", "Variant", "Kept: ms", "Kept: ratio"]


def test_variants_of_one_heap_only_have_dashes_in_the_other(tmp_path):
    kept = row(heap="kept", goal=None)
    kept["variants"][1]["name"] = "another"
    lines = cells(shown(tmp_path, row(), kept))
    assert [line[0] for line in lines[2:]] == ["theirs", "another"]
    assert lines[2][-2:] == ["–", "–"] and lines[3][1:3] == ["–", "–"]


def test_the_name_of_a_class_may_break_and_reads_the_same(tmp_path):
    made = row(goal=None)
    made["variants"][1]["name"] = "torch.nn.LongModule<x>"
    piece = shown(tmp_path, made)
    assert "torch.nn.<wbr/>Long<wbr/>Module&lt;x&gt;" in piece.html
    assert cells(piece)[2][0] == "torch.nn.LongModule<x>" and "torch.nn.LongModule<x>" in piece.text


def test_disturbed_rows_are_marked_and_not_judged(tmp_path):
    piece = shown(tmp_path, row(disturbed=True), row("copy, batch 16"))
    lines = cells(piece)
    assert lines[1][-1] == "1.00⚠ disturbed" and lines[2][-1] == "4.50○ 4: not judged"
    assert lines[4][-1] == "4.50✓ reaches 4"
    assert piece.html.count("something else used the machine") == 1
    assert "something else used the machine" in piece.text
    assert "disturbed" not in shown(tmp_path, row()).text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.3456, "12346 "), (0.123456, "123 "), (0.0123456, "12.3 "), (0.0000123456, "0.0123 ")],
)
def test_times_have_three_digits(tmp_path, seconds, text):
    assert f"  {text}[" in shown(tmp_path, row(seconds=(seconds, 2 * seconds))).text


def test_a_gpu_is_named_before_its_host_and_measured_again_as_such(tmp_path):
    piece = shown(tmp_path, device="Example GPU", threads=4)
    assert "<strong>Example GPU</strong> (beside Example &lt;Processor&gt;, 4 threads)" in piece.html
    again = "python -m benchmarks.ntm --device cuda --threads 4 --json results/speed/ntm/cpu.json"
    assert again in piece.html and again in piece.text
    assert command("ntm") == "python -m benchmarks.ntm --json results/speed/ntm/cpu.json"


def test_the_table_links_to_its_file(tmp_path):
    assert 'href="../results/speed/ntm/cpu.json"' in shown(tmp_path).html


def test_code_that_was_changed_since_its_commit_is_told(tmp_path):
    data = result()
    data["code"]["clean"] = False
    store(tmp_path, data)
    assert "at commit aaaaaaaaaa with changes, " in speed_table(load_speed(tmp_path)[0][0]).text


# --- beside the records ------------------------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path):
    """A results folder with one record and one benchmark result."""
    folder = tmp_path / "results"
    write_record(folder, record_data("toy2000", "fit/line", 0, {"error": 0.5}), {})
    store(folder, result())
    return folder


def test_results_are_no_records(beside):
    records, skipped = load_records(beside)
    assert len(records) == 1 and skipped == []


def test_packing_and_merging_leave_results_alone(beside, tmp_path):
    packed = tmp_path / "grid.tar.gz"
    assert pack(beside, packed) == 1
    with tarfile.open(packed) as archive:
        assert not [name for name in archive.getnames() if "speed" in name]
    before = (beside / "speed/ntm/cpu.json").read_bytes()
    for source in (packed, beside):
        written, left_out = merge(source, tmp_path / "other")
        assert len(written) == 1 and left_out == []
    assert merge(packed, beside)[1] == []
    assert (beside / "speed/ntm/cpu.json").read_bytes() == before
    assert not (tmp_path / "other/speed").exists()


def test_commands_on_records(beside, monkeypatch):
    monkeypatch.setenv("ATTN_RESULTS", str(beside))
    checked = CliRunner().invoke(cli.main, ["results", "check"])
    assert (checked.exit_code, checked.output) == (0, "1 valid records, 0 files skipped\n")
    assert "speed" not in CliRunner().invoke(cli.main, ["results", "csv"]).output


def test_check_names_an_invalid_result(beside, monkeypatch):
    monkeypatch.setenv("ATTN_RESULTS", str(beside))
    (beside / "speed/ntm/cpu.json").write_text(json.dumps(result() | {"schema": 9}))
    checked = CliRunner().invoke(cli.main, ["results", "check"])
    assert checked.exit_code == 1
    assert checked.output.splitlines() == [
        "results/speed/ntm/cpu.json: schema: 1 was expected",
        "1 valid records, 1 files skipped",
    ]


# --- against today's code ----------------------------------------------------------------------------------


class Goal:
    """As `benchmarks.timing.Goal`."""

    def __init__(self, against, ratio):
        self.against, self.ratio = against, ratio

    def on(self, heap):
        return {"against": self.against, "ratio": self.ratio}


def todays(name="copy, batch 1", goal=("theirs", 4), memory_goal=None):
    return SimpleNamespace(
        name=name, goal=goal and Goal(*goal), memory_goal=memory_goal and Goal(*memory_goal)
    )


@pytest.mark.parametrize(
    ("today", "said"),
    [
        (None, None),
        ([todays()], None),
        ([todays(goal=("another", 4))], "time: at least 4 times ours by theirs, today at least 4 times ours by another (2 rows)"),
        ([todays(goal=("theirs", 5))], "today at least 5 times ours by theirs (2 rows)"),
        ([todays(memory_goal=("theirs", 2))], "memory: nothing, today at least 2 times ours by theirs (2 rows)"),
        ([todays(), todays("copy, batch 9")], "it has not copy, batch 9."),
        ([todays("copy, batch 9")], "it has not copy, batch 9; only it has copy, batch 1."),
    ],
)  # fmt: skip
def test_a_result_of_other_rows_or_figures_is_marked(today, said):
    found = changed_words(result()["rows"], today)
    assert found is None if said is None else found.startswith("⚠ An earlier version") and said in found


def test_the_mark_stands_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "attn.reproduction.speed.todays_rows", lambda benchmark: [todays(goal=("another", 4))]
    )
    assert "An earlier version of the benchmark" in repr(shown(tmp_path))
    monkeypatch.setattr("attn.reproduction.speed.todays_rows", lambda benchmark: [todays()])
    assert "An earlier version of the benchmark" not in repr(shown(tmp_path))


def test_a_figure_that_is_asked_no_more_judges_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("attn.reproduction.speed.todays_rows", lambda benchmark: [todays(goal=None)])
    text = shown(tmp_path).text
    assert "reaches" not in text and "To reach" not in text and "An earlier version" not in text


def with_memory(*peaks, goal=None, **changes):
    """A row whose variants hold so many MiB."""
    made = row(**changes) | {"memory_goal": goal and {"against": "theirs", "ratio": goal}}
    for variant, peak in zip(made["variants"], peaks, strict=True):
        variant["peak_bytes"] = peak * 2**20
    return made


def test_memory_stands_beside_the_times(tmp_path):
    rows = [with_memory(10, 35, goal=3), with_memory(10, 25, goal=3, heap="kept"), row("free", goal=None)]
    piece = shown(tmp_path, *rows)
    assert [line[-1] for line in cells(piece)] == [
        "MiB", "10", "default35× 3.50✓ reaches 3kept25× 2.50✗ below 3", "–", "–",
    ]  # fmt: skip
    both = shown(tmp_path, with_memory(10, 35, goal=3), with_memory(10, 35, goal=3, heap="kept"))
    assert [line[-1] for line in cells(both)] == ["MiB", "10", "35× 3.50✓ reaches 3"]
    assert "mebibytes that a call holds" in piece.text and "mebibytes" not in shown(tmp_path, row()).text
    assert (
        "To reach in memory, with the number of rows of both heaps: at least 3 times ours by theirs (2)."
        in piece.text
    )


def test_the_code_of_a_benchmark_is_found_from_everywhere(monkeypatch, tmp_path):
    known = [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]
    for name in known:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        sys, "path", [entry for entry in sys.path if not (Path(entry) / "benchmarks").is_dir()]
    )
    monkeypatch.chdir(tmp_path)
    todays_rows.cache_clear()
    before = list(sys.path)
    assert {found.name for found in todays_rows("decoding")} == {"20 tokens", "70 tokens"}
    assert sys.path == before
    todays_rows.cache_clear()


@pytest.mark.parametrize("benchmark", ["lsh", "product_keys"])
def test_figures_against_a_package_are_asked_where_it_is_missing_too(benchmark):
    asked = {found.goal.against for found in todays_rows(benchmark) if found.goal}
    assert asked & {"reformer-pytorch", "product-key-memory"}


def test_rows_that_were_measured_later_say_when(tmp_path):
    stamp = {"finished": "2026-12-24", "code": {"commit": "b" * 40, "clean": True}}
    text = shown(tmp_path, row(), row("copy, batch 16") | stamp).text
    assert "Measured on 2026-11-21 at commit aaaaaaaaaa, 15 rounds" in text
    assert "Measured later, on 2026-12-24 at commit bbbbbbbbbb: copy, batch 16 (default heap)." in text
    assert "Measured later" not in shown(tmp_path, row()).text


def test_a_benchmark_s_rows_are_those_of_its_code():
    assert {row.name for row in todays_rows("decoding")} == {"20 tokens", "70 tokens"}
    assert todays_rows("no_such_benchmark") is None


def test_figures_and_rates_are_told_from_the_rows():
    rows = [row(heap="default"), row(heap="kept"), row("free", goal=None, seconds=(0.5, 1.0))]
    assert goal_words(rows) == [
        "To reach in time, with the number of rows of both heaps: at least 4 times ours by theirs (2)."
    ]
    assert rate_words(Speed("x", result(*rows))) == (
        "Sequences a second of the first variant (default and kept heap): copy, batch 1 500 and 500; free 2."
    )
    assert goal_words(rows[2:]) == []
