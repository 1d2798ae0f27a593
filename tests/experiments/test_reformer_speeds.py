"""What chapter 2 says of its benchmarks, and of what swapping parameters moves and computes."""

import pytest
import torch

from attn import reversible
from attn.experiments.reformer import growth, model_types, speeds, swapping
from attn.reproduction.speed import load_speed
from attn.reversible import ReversibleStack
from attn.transformer import FeedForward
from tests.reproduction import made_up_speed


def row(name, times, *, peaks=None, heap="kept", goal=None, disturbed=False):
    """A row with the seconds of its variants and, where given, their peaks."""
    ours = next(iter(times.values()))
    variants = [
        {"name": variant, "seconds": s, "quartiles": [s, s], "rate": 1.0, "ratio": s / ours}
        | ({"peak_bytes": peaks[variant]} if peaks else {})
        for variant, s in times.items()
    ]
    made = made_up_speed.row(name, heap, disturbed=disturbed, goal=None)
    return made | {"goal": goal, "variants": variants} | ({"memory_goal": None} if peaks else {})


def store(results, benchmark, *rows, name="cpu", device="cpu"):
    made_up_speed.store(results, made_up_speed.result(*rows, benchmark=benchmark, device=device), name)
    found, skipped = load_speed(results)
    assert not skipped
    return found


# --- reversible layers -----------------------------------------------------------------------------------------

KEPT = "activations kept"


def depth_row(layers, times, **options):
    names = (speeds.REVERSED, KEPT, speeds.CHUNKED)
    peaks = dict(zip(names, (1000, 3000, 880), strict=True))
    return row(f"{layers} layers", dict(zip(names, times, strict=True)), peaks=peaks, **options)


def test_a_third_forward_pass_is_a_third_more_work():
    assert growth.more_work() == pytest.approx(4 / 3, abs=0.01)
    counted = (swapping.FORWARD + swapping.BACKWARD) / (swapping.FORWARD + swapping.GRADIENTS)
    assert growth.more_work() == pytest.approx(counted, abs=0.01)


def test_what_reversible_layers_take_is_told_once_for_each_heap(tmp_path):
    rows = [
        depth_row(2, (1.3, 1.0, 1.3), heap="default"),
        depth_row(4, (9.0, 1.0, 1.3), heap="default", disturbed=True),
        depth_row(8, (1.05, 1.0, 1.1), heap="default"),
        depth_row(8, (1.2, 1.0, 1.3)),
    ]
    store(tmp_path, "reversible", *rows)
    assert speeds.reversible_words(tmp_path) == [
        "Left out, since something else used the machine: 4 layers (default heap).",
        "A step with reversible layers takes 1.05 to 1.30 times (default heap) and 1.20 times (kept heap) as long as one "
        "that keeps its activations. Every function is computed once more, which makes the operations 1.33 times as many.",
    ]


def test_without_a_result_nothing_is_told(tmp_path):
    assert speeds.reversible_words(tmp_path) == ["Not measured yet."]


def test_depth_is_drawn_by_heap_and_without_disturbed_rows(tmp_path):
    rows = [
        depth_row(n, (1.3 * n, n, 1.4 * n), heap=heap, disturbed=(n, heap) == (4, "kept"))
        for heap in ("default", "kept")
        for n in (2, 4, 8)
    ]
    store(tmp_path, "reversible", *rows)
    sizes = {way.name: way.sizes for way in growth.time_over_depth(tmp_path)}
    assert sizes == {
        "activations kept (heap: default)": (2, 4, 8),
        "reversible (heap: default)": (2, 4, 8),
        "activations kept (heap: kept)": (2, 8),
        "reversible (heap: kept)": (2, 8),
    }
    assert [line.count("4 layers (kept heap)") for line in growth.left_out(tmp_path, "reversible")] == [1]


def test_the_price_of_chunks_is_told_from_undisturbed_rows(tmp_path):
    assert speeds.chunk_words(tmp_path) == ["What chunks cost in time is not measured yet."]
    rows = [
        depth_row(2, (1.0, 0.8, 1.0)),
        depth_row(4, (1.0, 0.8, 1.1), heap="default"),
        depth_row(8, (1.0, 0.8, 5.0), disturbed=True),
    ]
    store(tmp_path, "reversible", *rows)
    assert speeds.chunk_words(tmp_path) == [
        "In benchmarks/reversible.py, a step with feed-forward layers in 4 chunks takes 0 to 10 percent longer than one "
        "without, and holds 12 percent less at its peak (2 undisturbed rows, both heaps)."
    ]


# --- where a line ends -----------------------------------------------------------------------------------------


def test_where_full_attention_was_too_slow_to_time_is_told(tmp_path):
    assert speeds.end_words(tmp_path) == []
    hashed, full = "attn.kernels.lsh", "causal SDPA"
    rows = [
        row("1024, 2 rounds", {hashed: 1.0, full: 2.0}),
        row("4096, 2 rounds", {hashed: 4.0, "other": 1.0}),
    ]
    store(tmp_path, "lsh", *rows)
    assert speeds.end_words(tmp_path) == [
        "Full attention was timed up to 1,024 tokens only, hashing up to 4,096: a call takes 2.0 s there, and growing with "
        "the square of the length it would take 32 s at 4,096."
    ]
    store(tmp_path, "lsh", rows[0], row("4096, 2 rounds", {hashed: 4.0, full: 32.0}))
    assert speeds.end_words(tmp_path) == []


# --- the five models of table 3 --------------------------------------------------------------------------------

# Powers of length and depth, by model: peak over length, seconds over length, peak over depth, seconds over depth.
POWERS = {
    "Transformer": (2, 2, 1, 1),
    "Reversible Transformer": (2, 1.5, 0, 1),
    "Chunked Reversible Transformer": (2, 2, 0, 1),
    "LSH Transformer": (1, 1, 1, 1),
    "Reformer": (1, 1, 0, 0.5),
}


def timed(size, value, **options):
    place = 0 if size == "l" else 2
    peaks = {kind: round(1000 * value ** powers[place]) for kind, powers in POWERS.items()}
    times = {kind: 1e-6 * value ** powers[place + 1] for kind, powers in POWERS.items()}
    return row(model_types.row_name(size, value), times, peaks=peaks, **options)


def rows_of_models(**changes):
    return [
        timed(size, value, **changes.get(f"{size}{value}", {}))
        for size, values in model_types.VALUES.items()
        for value in values
    ]


def test_measured_powers_stand_beside_counted_and_printed_ones(tmp_path):
    counted = growth.five_models((256, 512), (1, 2))
    empty = repr(model_types.exponent_table(model_types.measured(tmp_path), counted, tmp_path))
    assert "Not measured yet: python -m benchmarks.model_types --json" in empty
    assert "– (2.0" not in empty and "– (1.9" in empty  # counted and printed are there
    store(tmp_path, "model_types", *rows_of_models())
    found = model_types.measured(tmp_path)
    for kind, powers in POWERS.items():
        ways = [way for size in ("l", "nl") for way in found[size][kind]]
        assert [way.exponent for way in ways] == pytest.approx(powers, abs=0.01)
    table = model_types.exponent_table(found, counted, tmp_path)
    line = next(text for text in table.text.splitlines() if text.startswith("Reversible Transformer"))
    (model,) = (one for one in counted if one.name == "Reversible Transformer")
    cells = [f"{ours} ({way.exponent:z.2f}, {power})" for ours, way, power in zip(
        ("2.00", "1.50", "0.00", "1.00"), model[1:], (2, 2, 0, 1), strict=True)]  # fmt: skip
    places = [line.index(cell) for cell in cells]
    assert places == sorted(places) and len(set(places)) == 4
    assert "length 512 to 4,096, layers 2 to 12" in table.text and "Left out" not in table.text


def test_disturbed_rows_are_left_out_and_named(tmp_path):
    options = {"disturbed": True}
    store(tmp_path, "model_types", *rows_of_models(l512=options, nl2=options, nl4=options, nl8=options))
    found = model_types.measured(tmp_path)
    assert found["l"]["Reformer"].peak.sizes == (1024, 2048, 4096) and found["nl"][
        "Reformer"
    ].seconds.sizes == (12,)
    text = model_types.exponent_table(found, growth.five_models((256, 512), (1, 2)), tmp_path).text
    assert "length 512 (kept heap), layers 2 (kept heap), layers 4 (kept heap), layers 8 (kept heap)." in text
    assert "– (" in text  # one depth has no power
    assert len(model_types.figure(found).axes) == 4


def test_the_figure_shows_seconds_and_peaks_over_both_sizes(tmp_path):
    assert model_types.figure(model_types.measured(tmp_path)) is None
    store(tmp_path, "model_types", *rows_of_models())
    found = model_types.measured(tmp_path)
    panels = model_types.figure(found).axes
    for panel, (size, what, scale) in zip(
        panels,
        [("l", "seconds", 1), ("nl", "seconds", 1), ("l", "peak", 2**-20), ("nl", "peak", 2**-20)],
        strict=True,
    ):
        lines = {line.get_label(): line for line in panel.lines}
        assert [*lines] == model_types.kinds()
        for kind, line in lines.items():
            way = getattr(found[size][kind], what)
            assert tuple(line.get_xdata()) == way.sizes
            assert list(line.get_ydata()) == pytest.approx([scale * value for value in way.values])
    assert "kept heap" in panels[0].get_ylabel() and "MiB" in panels[2].get_ylabel()


# --- swapping --------------------------------------------------------------------------------------------------


def test_a_step_moves_and_computes_what_is_said(monkeypatch):
    """Fetched and sent are counted where the stack does it, operations on layers of nothing but products."""
    moved = {"fetched": 0, "sent": 0}
    bound, add = reversible._Step.bound, reversible._Sums.add

    def fetching(step, *arguments, **options):
        moved["fetched"] += swapping.count(step.function)
        return bound(step, *arguments, **options)

    def sending(sums, tensor, gradient):
        moved["sent"] += gradient.numel() if isinstance(tensor, torch.nn.Parameter) else 0
        return add(sums, tensor, gradient)

    monkeypatch.setattr(reversible._Step, "bound", fetching)
    monkeypatch.setattr(reversible._Sums, "add", sending)
    stack = ReversibleStack([[FeedForward(d_model=8, d_ff=16)] * 2], swap_parameters=True)
    inputs = torch.randn(2, 5, 8, requires_grad=True)
    with growth._Operations() as counter:
        stack(inputs).sum().backward()
    weights = 2 * swapping.count(stack.blocks[0][0])
    assert swapping.FLOAT32 * sum(moved.values()) == swapping.moved_bytes(weights)
    assert (moved["fetched"], moved["sent"]) == (swapping.FETCHED * weights, swapping.SENT * weights)
    products = 2 * 2 * 8 * 16  # without biases
    assert counter.total == swapping.operations(products, tokens=10)


def test_what_is_moved_and_computed_is_told_by_the_code(monkeypatch):
    (said,) = swapping.counting_words()
    assert "fetched twice, forward and backward, and its gradient goes back once: 12 P bytes" in said
    assert (
        "8 P operations for every token of the step: 2 P forward, 2 P for each of two gradients, and 2 P to"
        in said
    )
    monkeypatch.setattr(swapping, "FETCHED", 1)
    assert "fetched once" in swapping.counting_words()[0] and "8 P bytes" in swapping.counting_words()[0]


def swap_rows(fetch=0.002, send=0.004, steps=((0.1, 0.11), (0.4, 0.41)), **options):
    copies = row(swapping.COPIES, {swapping.FETCHING: fetch, swapping.SENDING: send}, **options)
    return [copies] + [
        row(
            swapping.row_name(batch * swapping.LENGTH),
            {swapping.SWAPPED: swapped, swapping.RESIDENT: resident},
            peaks={swapping.SWAPPED: 10, swapping.RESIDENT: 20},
        )
        for batch, (resident, swapped) in zip(swapping.BATCHES, steps, strict=True)
    ]


def test_the_box_takes_its_rates_from_the_result(tmp_path):
    assert repr(swapping.measured_table(swapping.measured(tmp_path))) == (
        "Not measured yet: python -m benchmarks.swapping --json results/speed/swapping/cpu.json"
    )
    store(tmp_path, "swapping", *swap_rows())
    (found,) = swapping.measured(tmp_path)
    whole = swapping.sizes().whole
    assert found.copying == pytest.approx(0.008) and found.is_cpu
    assert found.machine.bandwidth == pytest.approx(12 * whole / 0.008)
    tokens = swapping.BATCHES[-1] * swapping.LENGTH
    assert found.machine.flops == pytest.approx(8 * whole * tokens / 0.4)
    text = " ".join(swapping.measured_table([found]).text.split())
    assert f"{tokens:,} 8.0 400.0 410.0 yes" in text and "copies nothing" in text
    assert f"at these rates: Example <Processor>: {swapping.least_tokens(found.machine):,.0f}." in text


def test_a_slow_link_hides_nothing_and_a_gpu_copies(tmp_path):
    store(tmp_path, "swapping", *swap_rows(fetch=0.2), device="Some GPU", name="gpu")
    (found,) = swapping.measured(tmp_path)
    assert found.machine.name == "Some GPU" and not found.is_cpu
    text = " ".join(swapping.measured_table([found]).text.split())
    assert "404.0 100.0 110.0 no" in text and "404.0 400.0 410.0 no" in text and "copies nothing" not in text


def test_a_result_without_its_copies_says_nothing(tmp_path):
    store(tmp_path, "swapping", *swap_rows(disturbed=True))
    assert swapping.measured(tmp_path) == []
