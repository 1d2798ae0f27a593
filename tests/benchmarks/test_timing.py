"""What the benchmarks write: complete, valid, and saying which rows were disturbed. How fast is no matter here."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attn.reproduction.environment import cpu_model
from attn.reproduction.speed import check_speed, load_speed, speed_table
from benchmarks import adaptive_span, all_attention, attention, decoding, ntm, timing
from benchmarks.timing import Goal, Row, main, measure
from tests.exact import DOUBLE, gradients, random

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
IN_OWN_PROCESS = timing._in_own_process


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One call a round, a machine that is never disturbed, and rows measured here, with its threads left as they are."""
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.0)
    scripted(monkeypatch, 100)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(
        timing, "_in_own_process", lambda module, row, heap, options: timing._here(row, heap, options)
    )


def sums(*names, goal=None, name="sums"):
    """A row whose variants all sum a vector."""
    vector = torch.ones(64)
    return Row(name=name, units=64, build=lambda device: dict.fromkeys(names, vector.sum), goal=goal)


def run(tmp_path, *rows, arguments=()):
    """The result of a run in this process, stored as one of the benchmark "ntm"."""
    path = tmp_path / "speed/ntm/cpu.json"
    options = ["--heap", "default", "--rounds", "3", "--json", str(path), *arguments]
    main(rows, module="benchmarks.ntm", unit="numbers", arguments=options)
    return json.loads(path.read_text("utf-8"))


def scripted(monkeypatch, *speeds):
    """Let the probes find these speeds, the last one for ever."""
    left = list(speeds)
    monkeypatch.setattr(timing, "probe", lambda device: left.pop(0) if len(left) > 1 else left[0])


# --- what is written ---------------------------------------------------------------------------------------


def test_a_run_writes_a_valid_result_where_the_page_reads_it(tmp_path):
    data = run(tmp_path, sums("ours", "theirs", goal=Goal("theirs", 1e-9)), sums("a", "b", name="more"))
    (found,), skipped = load_speed(tmp_path)
    assert skipped == [] and found.data == data
    assert (data["benchmark"], data["unit"]) == ("ntm", "numbers")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", data["finished"])
    assert data["environment"]["torch"] == torch.__version__ and data["environment"]["cpu"] == cpu_model()
    first, second = data["rows"]
    assert first["goal"] == {"against": "theirs", "ratio": 1e-9} and second["goal"] is None
    assert [(row["name"], row["heap"], row["rounds"]) for row in data["rows"]] == [
        ("sums", "default", 3),
        ("more", "default", 3),
    ]


def test_a_result_names_no_host_and_no_path(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "some-host")
    monkeypatch.setattr("socket.gethostname", lambda: "some-host")
    text = json.dumps(run(tmp_path, sums("ours", "theirs")))
    assert "some-host" not in text and str(ROOT) not in text and str(tmp_path) not in text


def test_the_table_says_which_goals_are_reached(tmp_path, capsys):
    rows = [sums("ours", "theirs", goal=Goal("theirs", ratio), name=f"{ratio:g}") for ratio in (1e-9, 1e9)]
    run(tmp_path, *rows)
    _, _, *lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if "theirs" in line]
    assert "reaches 1e-09" in lines[0] and "below 1e+09" in lines[1]


@pytest.mark.parametrize("against", ["ours", "torch"])
def test_a_goal_must_be_against_another_variant(against):
    with pytest.raises(ValueError, match=f"goal of row 'sums' is against '{against}'; valid: theirs, plain"):
        measure(sums("ours", "theirs", "plain", goal=Goal(against, 2)), CPU, rounds=1)


def test_a_figure_against_a_package_that_is_missing_is_not_set():
    goals = {"goal": Goal("package", 2), "memory_goal": Goal("package", 2)}
    row = replace(sums("ours", "theirs"), peak=lambda call: 1, **goals, optional=("package",))
    found = measure(row, CPU, rounds=1)
    assert found["goal"] is None and found["memory_goal"] is None
    there = replace(sums("ours", "package"), peak=lambda call: 1, **goals, optional=("package",))
    assert measure(there, CPU, rounds=1)["goal"] == {"against": "package", "ratio": 2}
    with pytest.raises(ValueError, match="goal of row 'sums' is against 'package'; valid: theirs"):
        measure(replace(row, optional=()), CPU, rounds=1)


def test_the_default_heap_may_have_a_figure_of_its_own(tmp_path):
    goal = Goal("theirs", 2, default_heap=3)
    assert (
        goal.on("kept") == {"against": "theirs", "ratio": 2} and Goal("theirs", 2).on("default")["ratio"] == 2
    )
    (row,) = run(tmp_path, sums("ours", "theirs", goal=goal))["rows"]  # with the default heap
    assert row["goal"] == {"against": "theirs", "ratio": 3}


def test_memory_is_stored_with_its_figure(tmp_path, capsys, monkeypatch):
    peaks = iter((2**20, 3 * 2**20))
    row = replace(sums("ours", "theirs"), peak=lambda call: next(peaks), memory_goal=Goal("theirs", 4))
    (found,) = run(tmp_path, row)["rows"]
    assert [variant["peak_bytes"] for variant in found["variants"]] == [2**20, 3 * 2**20]
    assert found["memory_goal"] == {"against": "theirs", "ratio": 4}
    said = "memory: ours 1.0 MiB at most, theirs 3.00 times as much  below 4"
    assert said in capsys.readouterr().out
    ((speed,), _) = load_speed(tmp_path)
    monkeypatch.setattr("attn.reproduction.speed.todays_rows", lambda benchmark: None)
    assert "3 × 3.00 ✗ below 4" in " ".join(speed_table(speed).text.split())


def test_spans_are_measured_in_training_and_evaluation():
    tensors = adaptive_span.peak(lambda: torch.ones(1000) + torch.ones(1000))
    assert tensors >= 3 * 4000
    for module in (adaptive_span, all_attention):
        names = [row.name for row in module.rows()]
        assert any(name.endswith("evaluation") for name in names) and len(set(names)) == len(names)
        for row in module.rows():
            assert (row.peak is None) == row.name.endswith("evaluation")
    goals = {row.name: (row.goal, row.memory_goal) for row in adaptive_span.rows()}
    assert goals["limit 8192"][0].on("default")["ratio"] == 10 and goals["limit 8192"][1].ratio == 7


@pytest.mark.slow
def test_every_row_and_heap_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "_in_own_process", IN_OWN_PROCESS)
    (tmp_path / "tiny.py").write_text(
        "import os\n"
        "import torch\n"
        "from benchmarks import timing\n"
        "timing.ROUND_SECONDS, timing.PROBE_REPEATS = 0.0, 1\n"
        "v = torch.ones(64)\n"
        "row = dict(units=1, build=lambda device: {'ours': v.sum, 'theirs': v.mean}, peak=lambda call: os.getpid())\n"
        "rows = [timing.Row(name=name, **row) for name in ('sums', 'sums of two')]\n"
        "def main(arguments=None):\n"
        "    timing.main(rows, module='tiny', unit='sums', arguments=arguments)\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from tiny import main as tiny

    tiny(["--rounds", "2", "--json", str(tmp_path / "out.json")])
    data = json.loads((tmp_path / "out.json").read_text())
    check_speed(data)
    heaps = ["default", "kept"] if sys.platform.startswith("linux") else ["default"]
    names = [(row["heap"], row["name"]) for row in data["rows"]]
    assert names == [(heap, name) for heap in heaps for name in ("sums", "sums of two")]
    numbers = {row["variants"][0]["peak_bytes"] for row in data["rows"]}
    assert len(numbers) == len(names) and os.getpid() not in numbers, "rows shared a process"


@pytest.mark.slow
def test_a_row_whose_process_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "_in_own_process", IN_OWN_PROCESS)
    (tmp_path / "dying.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    path = tmp_path / "out.json"
    with pytest.raises(
        SystemExit, match="Row 'sums' with the heap 'kept' ended with status -9, killed, as where memory"
    ):
        main([sums("a", "b")], module="dying", unit="sums", arguments=["--heap", "kept", "--json", str(path)])
    assert not path.exists()


def test_a_row_by_name_is_measured_once_and_here(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "_in_own_process", None)
    scripted(monkeypatch, 100, 50)
    rows = sums("a", "b"), sums("a", "b", name="sums of two")
    (row,) = run(tmp_path, *rows, arguments=["--row", "sums"])["rows"]
    assert row["name"] == "sums" and row["disturbed"]


@pytest.mark.parametrize("arguments", [["--row", "sum"], ["--row", "sums", "--heap", "both"]])
def test_a_row_that_is_not_there_or_has_no_heap_is_refused(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit):
        run(tmp_path, sums("a", "b"), arguments=arguments)
    assert "is not valid: rows are sums; heaps default, kept" in capsys.readouterr().err


def test_what_was_disturbed_or_is_missing_is_measured_again(tmp_path, monkeypatch):
    scripted(monkeypatch, 100, 100, 50, 50, 50, 50)
    old = run(
        tmp_path,
        *(sums("a", "b", name=name) for name in ("gone", "sound", "noisy")),
        arguments=["--tries", "1"],
    )
    assert [row["disturbed"] for row in old["rows"]] == [False, True, True]
    old["rows"][1]["disturbed"] = False
    path = tmp_path / "speed/ntm/cpu.json"
    path.write_text(json.dumps(old | {"finished": "2026-01-01"}))
    scripted(monkeypatch, 60)
    monkeypatch.setattr(timing, "commit", lambda: {"commit": "c" * 40, "clean": True})
    rows = [sums("a", "b", name=name) for name in ("new", "noisy", "sound")]
    new = run(tmp_path, *rows, arguments=["--again"])
    check_speed(new)
    assert [(row["name"], row["disturbed"], "finished" in row) for row in new["rows"]] == [
        ("new", False, True), ("noisy", False, True), ("sound", False, False),
    ]  # fmt: skip
    assert new["finished"] == "2026-01-01" and new["rows"][0]["code"]["commit"] == "c" * 40
    assert new["rows"][2] == old["rows"][1]


def test_a_row_with_another_rival_is_measured_again(tmp_path):
    run(tmp_path, *(sums("a", "b", goal=Goal("b", 1e-9), name=name) for name in ("one", "two")))
    rows = sums("a", "c", goal=Goal("c", 1e-9), name="one"), sums("a", "b", goal=Goal("b", 1e-9), name="two")
    new = run(tmp_path, *rows, arguments=["--again"])["rows"]
    assert [(row["goal"]["against"], "finished" in row) for row in new] == [("c", True), ("b", False)]


def test_nothing_is_written_where_nothing_is_to_be_measured_again(tmp_path, capsys):
    old = run(tmp_path, sums("a", "b"))
    assert run(tmp_path, sums("a", "b"), arguments=["--again"]) == old
    assert "Nothing to measure" in capsys.readouterr().out


def test_another_machine_or_no_file_cannot_measure_again(tmp_path):
    with pytest.raises(
        SystemExit, match="--again needs --json with the file of an earlier result; got .*cpu.json"
    ):
        run(tmp_path, sums("a", "b"), arguments=["--again"])
    old = run(tmp_path, sums("a", "b"))
    old["environment"]["torch"] = "1.0"
    (tmp_path / "speed/ntm/cpu.json").write_text(json.dumps(old))
    with pytest.raises(SystemExit, match=r"must run as .*cpu.json was made; it has torch 1.0, now"):
        run(tmp_path, sums("a", "b"), arguments=["--again"])


def test_a_slow_row_has_fewer_rounds(tmp_path):
    calls = []
    row = replace(sums("a"), build=lambda device: {"a": lambda: calls.append(1)})
    assert measure(row, CPU, rounds=7, limit=0)["rounds"] == timing.LEAST_ROUNDS
    some = len(calls)
    assert measure(row, CPU, rounds=7)["rounds"] == 7 and len(calls) - some == some + 7 - timing.LEAST_ROUNDS
    assert measure(row, CPU, rounds=2, limit=0)["rounds"] == 2
    (stored,) = run(tmp_path, sums("a", "b"), arguments=["--rounds", "9", "--limit", "0"])["rows"]
    assert stored["rounds"] == timing.LEAST_ROUNDS


def test_a_variant_may_have_few_rounds_of_its_own(tmp_path):
    calls = {"a": [], "b": []}
    build = {name: lambda seen=seen: seen.append(1) for name, seen in calls.items()}
    row = replace(sums("a", "b"), build=lambda device: build, few={"b": 2})
    (found,) = run(tmp_path, row, arguments=["--rounds", "5"])["rows"]
    assert found["rounds"] == 5 and [v.get("rounds") for v in found["variants"]] == [None, 2]
    assert len(calls["a"]) - len(calls["b"]) == 3
    ((speed,), _) = load_speed(tmp_path)
    assert "5 rounds a row (2 of b at sums)" in speed_table(speed).text
    (found,) = run(tmp_path, row, arguments=["--rounds", "2"])["rows"]
    assert all("rounds" not in variant for variant in found["variants"])


def test_few_rounds_must_be_of_a_variant_that_is_there():
    with pytest.raises(ValueError, match="few rounds of row 'sums' are for 'c'; valid: b"):
        measure(replace(sums("a", "b"), few={"c": 2}), CPU, rounds=1)


# --- disturbed rows ----------------------------------------------------------------------------------------


def test_a_quiet_run_marks_nothing(tmp_path, monkeypatch):
    scripted(monkeypatch, 100, 99, 81, 100)
    assert [row["disturbed"] for row in run(tmp_path, sums("a", "b"))["rows"]] == [False]


def test_a_disturbed_row_is_measured_again(tmp_path, monkeypatch):
    scripted(monkeypatch, 100, 50, 90, 95)  # two for each try
    (row,) = run(tmp_path, sums("a", "b"))["rows"]
    assert row["probe_gflops"] == [90, 95] and not row["disturbed"]


def test_a_row_that_stays_disturbed_is_marked(tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, 100, 50)
    (row,) = run(tmp_path, sums("a", "b"), arguments=["--tries", "2"])["rows"]
    assert row["disturbed"] and row["probe_gflops"] == [50, 50]
    assert "disturbed: measure again" in capsys.readouterr().out


def test_a_row_is_marked_by_what_a_later_one_shows_of_the_machine(tmp_path, monkeypatch):
    scripted(monkeypatch, 50, 50, 50, 100)
    rows = run(tmp_path, sums("a", "b"), sums("a", "b", name="later"))["rows"]
    assert [row["disturbed"] for row in rows] == [True, False]


# --- the processor -----------------------------------------------------------------------------------------


# --- the figures to reach ----------------------------------------------------------------------------------


def test_figures_of_the_neural_turing_machine():
    goals = {row.name: row.goal for row in ntm.rows()}
    assert {name: goal and goal.ratio for name, goal in goals.items()} == {
        "copy, batch 1": 2,
        "copy, batch 16": 4,
        "copy, batch 32": 5,
        "copy, batch 64": None,
    }
    assert {row.memory_goal.ratio for row in ntm.rows()} == {1}


def test_the_update_is_the_same_for_every_variant(monkeypatch):
    monkeypatch.setattr(attention, "MODEL", attention.MODEL | {"vocab_size": 20, "d_model": 8, "d_ff": 8})
    monkeypatch.setattr(attention, "TOKENS", 64)
    nats, losses = attention.token_nats, []

    def spying(*arguments):
        losses.append(nats(*arguments))
        return losses[-1]

    monkeypatch.setattr(attention, "token_nats", spying)
    for step in attention.build_training(CPU).values():
        step()
        step()
    (first, second), (other, other_second) = losses[:2], losses[2:]
    torch.testing.assert_close([other, other_second], [first, second])
    assert second < first


@pytest.mark.parametrize("kind", ["self", "causal", "cross", "encoder", "decoder"])
def test_bare_calls_of_torch_are_the_layers_that_they_stand_beside(kind):
    sizes = {"d_model": 12, "n_heads": 3}
    torch.manual_seed(0)
    inputs, memory = (random(2, length, 12, seed=length).requires_grad_() for length in (4, 5))
    if kind == "encoder":
        layer = attention.EncoderLayer(**sizes, d_ff=20, dropout=0.0).to(DOUBLE)
        found, expected = attention.sdpa_encoder(layer, inputs), layer(inputs)[0]
    elif kind == "decoder":
        layer = attention.DecoderLayer(**sizes, d_ff=20, dropout=0.0).to(DOUBLE)
        found, expected = attention.sdpa_decoder(layer, inputs, memory), layer(inputs, memory)[0]
    else:
        layer = attention.MultiHeadAttention(**sizes).to(DOUBLE)
        options = {"memory": memory if kind == "cross" else None, "is_causal": kind == "causal"}
        found, expected = attention.sdpa_attention(layer, inputs, **options), layer(inputs, **options).output
    leaves = [inputs, *([memory] if kind in ("cross", "decoder") else []), *layer.parameters()]
    pairs = zip([found, *gradients(found, leaves)], [expected, *gradients(expected, leaves)], strict=True)
    for own, other in pairs:
        torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-12)


def test_figures_of_attention_and_none_of_decoding():
    *layers, update = attention.rows()
    assert {row.goal.ratio for row in (*layers, update)} == {0.95}
    for goals in (lambda row: row.goal, lambda row: row.memory_goal):
        assert {goals(row).against for row in layers} == {attention.SDPA}
        assert goals(update).against == attention.TORCHS_MODEL
    assert [row.goal for row in decoding.rows()] == [None, None]


def test_every_figure_is_against_a_variant_that_is_there(monkeypatch):
    """The first row of each kind is enough: sizes change no names."""
    for name, size in {"TOKENS": 64, "D_MODEL": 8, "N_HEADS": 2, "D_FF": 8}.items():
        monkeypatch.setattr(attention, name, size)
    monkeypatch.setattr(attention, "MODEL", attention.MODEL | {"vocab_size": 20, "d_model": 8, "d_ff": 8})
    *layers, update = attention.rows()
    rows = [ntm.rows()[0], *[row for row in layers if row.name.endswith(", 64")], update]
    assert len(rows) == 7
    for row in rows:
        ours, *others = row.build(CPU)
        assert row.goal.against in others, row.name
        assert ours.startswith("attn.") and not row.goal.against.startswith("attn.")
