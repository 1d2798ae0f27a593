"""What chapter 6 says of its benchmark is that of the results, whatever they hold."""

from pathlib import Path

import pytest

from attn.experiments.ntm import speeds
from attn.reproduction.speed import Speed
from benchmarks import ntm
from tests.reproduction.made_up_speed import result

LOOPS = ntm.LOOPS


def row(batch, heap, *, loops, batched, goal, ms=2.0, disturbed=False):
    """A row of the benchmark: ours, the batched version and the one with loops, by their ratios to ours."""
    times = {"attn.ntm": 1.0, speeds.BATCHED: batched, LOOPS: loops}
    variants = [
        {"name": name, "seconds": ratio * ms / 1e3, "rate": batch / (ratio * ms / 1e3), "ratio": ratio}
        for name, ratio in times.items()
    ]
    return {
        "name": f"copy, batch {batch}", "heap": heap, "disturbed": disturbed, "variants": variants,
        "goal": goal and {"against": LOOPS, "ratio": goal},
    }  # fmt: skip


def said(*rows, device="cpu"):
    return speeds.step_words([Speed("speed/ntm/here.json", result(*rows, device=device))])


def test_without_results_it_says_so():
    assert speeds.step_words([]) == ["Speed of training: not measured yet."]


def test_a_step_is_compared_with_both_versions():
    rows = [
        row(32, "default", loops=14.74, batched=5.1, goal=5),
        row(32, "kept", loops=16.2, batched=5.04, goal=5),
    ]
    head, line, gpu = said(*rows)
    assert head.startswith(
        "On Example <Processor> a training step takes so many times less time than one that also loops"
    )
    assert head.endswith("; a range is over two settings of the memory allocator:")
    assert line == "copy, batch 32: 14.7 to 16.2 and 5.04 to 5.1 times."
    assert gpu == "Of a GPU there is no measurement yet."
    head, line, _ = said(row(1, "kept", loops=2.1, batched=2.0, goal=2))
    assert "range" not in head and line == "copy, batch 1: 2.1 and 2 times."


def test_a_figure_that_holds_against_the_slower_version_alone_is_told():
    (line,) = [one for one in said(row(1, "kept", loops=2.1, batched=1.9, goal=2)) if one.startswith("copy")]
    assert line == "copy, batch 1: 2.1 and 1.9 times; the figure to reach, 2, is set against the first."


def test_disturbed_rows_and_rows_without_a_figure_are_left_out():
    rows = [
        row(1, "kept", loops=9, batched=9, goal=2, disturbed=True),
        row(64, "kept", loops=9, batched=9, goal=None),
    ]
    assert said(*rows) == ["Of a GPU there is no measurement yet."]


@pytest.mark.parametrize(
    ("device", "ms", "words"),
    [
        ("cpu", 8.0, "takes 16 times less time than alone on Example <Processor>."),
        ("NVIDIA H200", 8.0, "on NVIDIA H200, which reaches the figure of 10."),
        ("NVIDIA H200", 16.0, "takes 8 times less time than alone on NVIDIA H200, which is below the figure"),
    ],
)  # fmt: skip
def test_a_sequence_of_a_batch_costs_less_than_one_alone(device, ms, words):
    lines = said(
        row(1, "kept", loops=9, batched=9, goal=2, ms=2.0), row(64, "kept", loops=9, batched=9, goal=None, ms=ms),
        device=device,
    )  # fmt: skip
    assert words in lines[2] and (len(lines) == 4) == (device == "cpu")


def test_the_names_are_those_of_the_benchmark():
    names = {one.name for one in ntm.rows()}
    assert {speeds.SINGLE, speeds.MANY} <= names
    assert f'"{speeds.BATCHED}": ' in Path(ntm.__file__).read_text("utf-8")
