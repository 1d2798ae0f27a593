"""Pictures of chapter 6 show what records hold: each is asked for the data it draws, on made-up runs."""

import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import CopyTask
from attn.experiments.ntm import answers, figures, inside
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.figures import COLOURS
from attn.reproduction.records import Record
from tests.experiments.made_up import GOOD, LENGTHS, PAPER, POOR, outcomes, record, run_of

ITEMS = (6, 10, 12, 15, 20)
REPEATS = ((10, 10), (20, 10), (10, 20))
CURVES = {
    "copy": "fig3_copy_curves",
    "repeat_copy": "fig7_repeat_copy_curves",
    "associative": "fig10_associative_curves",
    "ngrams": "fig13_ngram_curves",
    "priority_sort": "fig18_sort_curves",
}
LEVELS = {"optimal_bits_per_sequence": 132.5, "context_free_bits_per_sequence": 160.25}


@pytest.fixture(autouse=True)
def drawn():
    """Every warning is an error until the figures are drawn."""
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("error")
        plt.rcParams["figure.dpi"] = 50
        yield
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
    plt.close("all")


def run(experiment="copy/ntm_lstm", seed=0, *, batch_size=16, lr=3e-4, **options):
    """A run that says how it was trained."""
    config = {"training": {"batch_size": batch_size, "lr": lr}, "task": {"order": 6}}
    return run_of(experiment, seed, config=config, **options)


def seeds(kind, costs, count=3, **options):
    return [run(f"copy/{kind}", seed, costs=costs, **options) for seed in range(count)]


@pytest.fixture
def kept(keep):
    """A function from a task to a record for each kind, with the artifacts of untrained models."""
    return lambda task: {kind: [keep(run(), outcomes(task)[kind].artifact)] for kind in MODELS}


def texts(drawing):
    return [text.get_text() for text in drawing.findobj(matplotlib.text.Text) if text.get_text()]


def legend(drawing):
    (box,) = drawing.legends
    return [text.get_text() for text in box.get_texts()]


def images(drawing):
    return [np.asarray(axes.images[0].get_array()) for axes in drawing.axes if axes.images]


def printed(task):
    return PAPER.table(CURVES[task])


# --- learning curves -----------------------------------------------------------------------------------------


def test_curves_show_every_seed_the_medians_and_the_paper_s_marks():
    records = {"ntm_lstm": seeds("ntm_lstm", (2, 0.01), 5), "lstm": seeds("lstm", (9, 2), 5), "ntm_ff": []}
    drawing = figures.curves("copy", records, printed("copy"))
    axes = drawing.axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 101]
    assert len(lines) == 2 * (5 + 1) and lines[0].get_xdata()[-1] == 200, "in thousands"
    marks = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    found = {line.get_color(): tuple(line.get_ydata()) for line in marks}
    assert found == {COLOURS["ntm_lstm"]: (0.1, 0.1), COLOURS["lstm"]: (4.8, 2.1)}, "up to 200 thousand only"
    assert legend(drawing) == [
        "NTM, LSTM controller (median of 5 seeds, 5 of 5 solve it)",
        "LSTM (median of 5 seeds, 0 of 5 solve it)",
        "solved below 0.1",
        "read off the paper's plot (about ±0.3)",
    ]


@pytest.mark.parametrize(
    ("task", "scale"),
    [("copy", "log"), ("repeat_copy", "log"), ("associative", "linear"), ("ngrams", "linear"), ("priority_sort", "linear")],
)  # fmt: skip
def test_every_task_has_curves(task, scale):
    drawing = figures.curves(task, {"ntm_ff": seeds("ntm_ff", (150, 140), metrics=LEVELS)}, printed(task))
    assert drawing.axes[0].get_yscale() == scale
    assert set(figures.CURVES) == set(CURVES)


def test_a_second_axis_counts_updates():
    axes = figures.curves("copy", {"lstm": seeds("lstm", (9, 2))}, printed("copy")).axes[0]
    (above,) = axes.child_axes
    axes.figure.canvas.draw()
    np.testing.assert_allclose(above.get_xlim(), np.array(axes.get_xlim()) / 16)
    assert above.get_xlabel() == "thousand updates of 16 sequences"
    mixed = {"lstm": [run(), run(batch_size=1)]}
    assert not figures.curves("copy", mixed, printed("copy")).axes[0].child_axes


def test_short_runs_reach_no_mark_of_the_paper_s():
    axes = figures.curves("copy", {"lstm": [run(evaluations=11)]}, printed("copy")).axes[0]
    assert not [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert axes.get_xlim()[1] < 100


def test_a_run_that_solves_a_task_and_loses_it_again_does_not_count():
    history = run(costs=(2, 0)).history
    lost = Record(
        run().path, run().data | {"history": [*history, *({**history[-1], "bits_per_sequence": 9.0},) * 5]}
    )
    assert (
        legend(figures.curves("copy", {"lstm": [lost]}, printed("copy")))[0]
        == "LSTM (1 seed, 0 of 1 solve it)"
    )


def test_ticks_of_logarithmic_axes_are_round():
    assert figures._plain(0.0000099999999999999999, 0) == "0.00001"
    assert [figures._plain(value, 0) for value in (0.1, 1.0, 100.0)] == ["0.1", "1", "100"]


@pytest.mark.parametrize(("task", "words"), [("copy", "1 of 2 solve it"), ("repeat_copy", "2 of 2 solve it")])
def test_solved_is_what_the_task_s_threshold_says(task, words):
    drawing = figures.curves(task, {"lstm": [run(costs=(2, 0)), run(costs=(9, 0.5))]}, printed(task))
    assert legend(drawing)[0] == f"LSTM (median of 2 seeds, {words})"


def test_n_grams_have_their_levels_and_nobody_solves_them():
    records = {"ntm_lstm": seeds("ntm_lstm", (200, 140), metrics=LEVELS)}
    drawing = figures.curves("ngrams", records, printed("ngrams"))
    axes = drawing.axes[0]
    assert {132.5, 160.25} <= {line.get_ydata()[0] for line in axes.lines if len(line.get_ydata()) == 2}
    assert {"optimal estimator (132.5)", "NTM, LSTM controller (median of 3 seeds)"} <= set(legend(drawing))
    low, high = axes.get_ylim()
    assert 120 < low < 132.5 and 160.25 < high < 200


@pytest.mark.parametrize(
    ("start", "words"), [(200, "cut off above: 2 of 3 runs, up to 201 bits"), (150, None)]
)
def test_costs_that_the_axis_cuts_off_are_counted(start, words):
    made = [run("ngrams/lstm", seed, costs=(start + seed, 140), metrics=LEVELS) for seed in range(2)]
    low = run("ngrams/ntm_lstm", costs=(150, 140), metrics=LEVELS)
    drawing = figures.curves("ngrams", {"lstm": made, "ntm_lstm": [low]}, printed("ngrams"))
    found = [text for text in texts(drawing) if "cut off" in text]
    assert found == ([words] if words else [])


def test_a_cost_of_zero_is_drawn_on_a_logarithmic_axis():
    drawing = figures.curves("copy", {"lstm": [run(costs=(9, 0))]}, printed("copy"))
    assert drawing.axes[0].lines[0].get_ydata().min() > 0 and "this, or less" in legend(drawing), (
        "and says so"
    )
    above = figures.curves("copy", {"lstm": [run(costs=(9, 1e-5))]}, printed("copy"))
    assert above.axes[0].lines[0].get_ydata().min() == pytest.approx(1e-5) and "this, or less" not in legend(
        above
    )
    axes = figures.curves("associative", {"lstm": [run(costs=(9, 0))]}, printed("associative")).axes[0]
    assert axes.lines[0].get_ydata().min() == axes.get_ylim()[0] == 0


def test_one_sequence_an_update_is_set_beside_several():
    one = [run(batch_size=1, lr=1e-4, costs=(2, 0.01), evaluations=51)]
    drawing = figures.batch_1("copy", one, seeds("ntm_lstm", (9, 2), 2))
    left, right = drawing.axes
    assert [to_hex(line.get_color()).upper() for line in left.lines[:5]] == ["#000000"] * 2 + ["#0072B2"] * 3
    assert left.get_xlim() == (0, 100), "as far as the shorter run"
    assert left.lines[0].get_xdata()[-1] == 100 and right.lines[0].get_xdata()[-1] == 125 * 50 / 1000
    assert right.get_xscale() == "log" and right.lines[0].get_xdata()[0] > 0
    assert legend(drawing)[:2] == [
        "1 sequence an update, learning rate 0.0001 (1 seed, 1 of 1 solve it)",
        "16 sequences an update, learning rate 0.0003 (median of 2 seeds, 0 of 2 solve it)",
    ]


def test_batch_1_is_drawn_without_the_other():
    rows = seeds("ntm_lstm", (9, 2), 2)
    assert len(figures.batch_1("copy", [], rows).axes[0].lines) == 3 + 1
    assert len(figures.batch_1("associative", rows, []).axes[0].lines) == 3


# --- beyond the training sizes -------------------------------------------------------------------------------


def points(axes, kind):
    """Marks of seeds: {x: values}."""
    found = {}
    for line in axes.lines:
        if line.get_marker() == "o" and line.get_color() == COLOURS[kind]:
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                found.setdefault(float(x), []).append(float(y))
    return found


def medians(axes, kind):
    (line,) = [line for line in axes.lines if line.get_linewidth() == 2 and line.get_color() == COLOURS[kind]]
    return list(line.get_ydata())


def test_generalisation_has_a_mark_a_seed():
    (axes,) = figures.generalisation({"ntm_lstm": GOOD, "ntm_ff": [], "lstm": POOR}, LENGTHS, longest=20).axes
    assert {x: len(values) for x, values in points(axes, "lstm").items()} == dict.fromkeys(LENGTHS, 5)
    expected = [1.02 * cost for cost in (1e-4, 1e-4, 2e-4, 1e-3, 0.05)]
    assert medians(axes, "ntm_lstm") == pytest.approx(expected)
    seeds_ = [line for line in axes.lines if line.get_marker() == "o" and line.get_color() == COLOURS["lstm"]]
    assert len(seeds_) == 5 and all(line.get_linestyle() == "-" for line in seeds_), (
        "each seed's marks are joined"
    )
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [int(tick.get_text()) for tick in axes.get_xticklabels()] == list(LENGTHS)
    zero = {"ntm_lstm": [record("ntm_lstm", at=dict.fromkeys(LENGTHS, 0.0))]}
    assert min(medians(figures.generalisation(zero, LENGTHS, longest=20).axes[0], "ntm_lstm")) > 0


def test_recall_of_more_items_is_drawn_in_bits_an_answer_beside_the_paper_s():
    rows = [run(metrics={f"bits_per_bit_at_{k}": 0.01 * k + 0.1 * seed for k in ITEMS}) for seed in range(3)]
    table = PAPER.table("fig11_associative_generalisation")
    drawing = figures.associative_generalisation({"ntm_ff": rows, "lstm": []}, ITEMS, table)
    (axes,) = drawing.axes
    assert medians(axes, "ntm_ff") == pytest.approx([18 * (0.01 * k + 0.1) for k in ITEMS])
    assert points(axes, "ntm_ff")[20] == pytest.approx([3.6, 5.4, 7.2])
    (marks,) = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert dict(marks.get_xydata().tolist()) == {6: 0.0, 10: 0.0, 15: 1.5, 20: 8.0}
    assert any(line.get_ydata()[0] == 18 for line in axes.lines if line.get_linestyle() == "--")


def test_repeat_copy_has_a_panel_for_vectors_and_one_for_ends():
    metrics = {"bits_per_bit_at_10x10": 0.01, "bits_per_bit_at_20x10": 0.1, "bits_per_bit_at_10x20": 0.2,
               "right_ends_at_10x10": 1.0, "right_ends_at_20x10": 0.75, "right_ends_at_10x20": 0.0}  # fmt: skip
    rows = {kind: [run(metrics=metrics), run(metrics=metrics)] for kind in ("ntm_lstm", "lstm")}
    vectors, ends = figures.repeat_generalisation(rows, REPEATS).axes
    for kind in rows:
        assert [y for _, y in sorted(points(vectors, kind).items())] == [[0.01] * 2, [0.1] * 2, [0.2] * 2]
        assert [y for _, y in sorted(points(ends, kind).items())] == [[1.0] * 2, [0.75] * 2, [0.0] * 2]
    assert set(points(ends, "lstm")).isdisjoint(points(ends, "ntm_lstm")), "side by side"
    names = [tick.get_text() for tick in ends.get_xticklabels()]
    assert names[0] == "10 vectors,\n10 repeats\n(training)" and names[1] == "20 vectors,\n10 repeats"


# --- inside --------------------------------------------------------------------------------------------------


def test_the_run_of_least_final_cost_is_shown(keep):
    rows = [run(seed=seed, costs=(9, cost)) for seed, cost in enumerate((2, 0.5, 1))]
    assert inside.best(rows).seed == 1 and inside.best([]) is None
    arrays = outcomes("copy")["ntm_ff"].artifact
    assert "inputs (seed 1)" in texts(inside.copying([keep(row, arrays) for row in rows]))


def test_copying_shows_what_was_kept(kept):
    drawing = inside.copying(kept("copy")["ntm_lstm"])
    made = outcomes("copy")["ntm_lstm"].artifact
    inputs, outputs, add, reads, write, read, memory = images(drawing)
    np.testing.assert_allclose(inputs, made["trace_inputs"].T)
    np.testing.assert_allclose(outputs, made["trace_outputs"].T)
    np.testing.assert_allclose(add, made["trace_add"][:, 0].astype(float).T)
    np.testing.assert_allclose(reads, made["trace_reads"][:, 0].astype(float).T)
    assert write.shape == read.shape and write.shape[1] == 42 and memory.shape == (len(write), 2)
    panels = [axes for axes in drawing.axes if axes.lines]
    assert len(panels) == 6
    assert {axes.lines[-1].get_xdata()[0] for axes in panels} == {21.5}, (
        "start, 20 vectors, end; then the answer"
    )


def test_repeating_marks_the_rounds_and_shows_the_slots_of_the_copies(keep):
    arrays = dict(outcomes("repeat_copy")["ntm_lstm"].artifact)
    steps, answer = (
        len(arrays["trace_inputs"]),
        10,
    )  # start, 8 vectors, the number; then 5 rounds and the end marker
    read, write = (np.zeros((steps, 1, 128)) for _ in range(2))
    write[1:9, 0] = np.eye(128)[3:11]
    write[answer:] = 1 / 128  # spread over all slots: says nothing of those in use
    read[:, 0, 5] = 1
    arrays |= {"trace_read_weights": read, "trace_write_weights": write}
    drawing = inside.repeating([keep(run("repeat_copy/ntm_lstm"), arrays)])
    *_, shown, _, memory = images(drawing)
    assert shown.shape == (12, steps) and len(memory) == 12, "slots 3 to 10, and two on either side"
    panels = [axes for axes in drawing.axes if axes.lines]
    assert len(panels) == 6
    assert [line.get_xdata()[0] for line in panels[0].lines] == [9.5, 17.5, 25.5, 33.5, 41.5, 49.5]


def test_the_answer_begins_after_the_last_input():
    episode = CopyTask().draw(1, torch.Generator().manual_seed(0), 5)
    arrays = {"trace_inputs": episode.inputs[0].numpy(), "trace_outputs": np.zeros((12, 9))}
    assert inside.answer_step(arrays) == 7, "also where all outputs round to 0"


def recall(queried, heads=1):
    """The trace of an episode of four items, with heads of different strength that rest on slot 0."""
    bits = torch.randint(0, 2, (1, 4, 3, 6), generator=torch.Generator().manual_seed(1))
    inputs = AssociativeRecallTask().episodes(bits, torch.tensor([queried])).inputs[0].numpy()
    weights = np.zeros((len(inputs), heads, 20))
    weights[:, :, 0] = 1
    sizes = np.linspace(0.1, 1, heads)
    vectors = np.ones((len(inputs), heads, 2)) * sizes[:, None]
    return {"trace_inputs": inputs, "trace_outputs": np.zeros((len(inputs), 6)), "trace_add": vectors,
            "trace_reads": vectors[:, ::-1], "trace_read_weights": weights, "trace_write_weights": weights,
            "trace_memory": np.zeros((20, 2))}  # fmt: skip


def spans(axes, colour):
    patches = [patch for patch in axes.patches if to_hex(patch.get_edgecolor()) == to_hex(colour)]
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in patches]


@pytest.mark.parametrize("queried", [0, 2])
def test_recalling_marks_the_item_shown_again_and_the_one_after_it(keep, queried):
    drawing = inside.recalling([keep(run(), recall(queried))])
    orange, purple = inside._PAIR
    first = 4 * queried + 0.5  # after the item's marker; the query begins at step 16, the answer at 21
    for axes in (drawing.axes[0], drawing.axes[7]):
        assert spans(axes, orange) == [(first, first + 3), (16.5, 19.5)]
        assert spans(axes, purple) == [(first + 4, first + 7), (20.5, 23.5)]
        assert [line.get_xdata()[0] for line in axes.lines] == [15.5, 20.5]
    assert legend(drawing) == ["item shown again in the query", "item after it, to be answered"]


def test_of_several_heads_the_busiest_are_shown(keep):
    drawing = inside.recalling([keep(run(), recall(1, heads=4))], n_heads=2)
    titles = [axes.get_title() for axes in drawing.axes]
    assert titles[3:5] == ["add vectors, head 4", "read vectors, head 1"]
    assert [titles[6], titles[7], titles[9], titles[10]] == [
        "write weighting, head 4", "read weighting, head 1", "write weighting, head 3", "read weighting, head 2",
    ]  # fmt: skip


def test_counting_marks_contexts_at_reading_and_a_step_later_at_writing(kept):
    drawing = inside.counting(kept("ngrams")["ntm_ff"])
    made = outcomes("ngrams")["ntm_ff"].artifact
    np.testing.assert_allclose(images(drawing)[0][0], made["trace_inputs"][:, 0])
    write, read = drawing.axes[3], drawing.axes[4]
    for later, now in zip(write.lines, read.lines, strict=True):
        steps = now.get_xdata()
        assert len(steps) > 1
        np.testing.assert_array_equal(later.get_xdata(), [step + 1 for step in steps if step < 199])
        name = now.get_label().removeprefix("after ")
        for step in steps:
            seen = made["trace_inputs"][step - 4 : step + 1, 0]
            assert "".join(str(int(bit)) for bit in seen) == name


def test_contexts_are_those_that_return_most_often():
    inputs = np.array([1, 0, 1, 1, 1, 1, 0, 1])  # at step 0 there is no bit yet, so that "10" comes once only
    found = inside.returning(inputs, 2)
    assert {name: steps.tolist() for name, steps in found.items()} == {"11": [3, 4, 5], "01": [2, 7]}
    assert list(inside.returning(inputs, 2, count=1)) == ["11"]


def sort_trace(place, n_heads=2):
    """A sort of 20 vectors: the last head writes each to `place` of its priority and reads from slot 120 on."""
    generator = np.random.default_rng(0)
    priorities = generator.uniform(-1, 1, 20)
    inputs = np.zeros((36, 9))
    inputs[:20, :8] = generator.integers(0, 2, (20, 8))
    inputs[:20, 8] = priorities
    write, read = np.zeros((36, n_heads, 128)), np.zeros((36, n_heads, 128))
    write[:, :-1, 5] = read[:, :-1, 5] = 1  # the other heads rest
    write[np.arange(20), -1, np.round(place(priorities)).astype(int) % 128] = 1
    read[np.arange(20, 36), -1, (120 + np.arange(16)) % 128] = 1
    vectors = generator.uniform(-1, 1, (36, n_heads, 2))
    return {"trace_inputs": inputs, "trace_write_weights": write, "trace_read_weights": read, "trace_add": vectors,
            "trace_reads": -vectors, "trace_memory": generator.uniform(-1, 1, (128, 2))}  # fmt: skip


def test_sorting_orders_vectors_and_finds_the_line(keep):
    drawing = inside.sorting([keep(run(), sort_trace(lambda p: 128 - 9 * p))])
    write, read, places, *_ = drawing.axes
    assert write.get_title() == "write weighting, head 2" and read.get_title() == "read weighting, head 2"
    rows = images(drawing)[0].argmax(axis=0)
    assert rows.shape == (20,) and (np.diff(rows) >= 0).all() and rows[-1] > rows[0], "the highest first"
    (line,), (points,) = places.lines, places.collections
    assert line.get_ydata() == pytest.approx([9, -9], abs=0.6), "slot 128 is slot 0, numbered as in the maps"
    x, y = points.get_offsets().T
    assert np.abs(y + 9 * x).max() <= 0.5 and set(points.get_sizes()) == {30}
    assert "line of 9." in places.get_title() or "line of 8.9 slots a unit" in places.get_title()
    assert places.get_xlim()[0] > places.get_xlim()[1], "the highest at the left, as in the maps"
    (due,) = read.collections
    np.testing.assert_allclose(
        due.get_offsets()[:, 1], np.sort(y)[:16], err_msg="where the vector due was written"
    )


def test_sorting_shows_what_the_heads_add_and_read_and_the_memory_in_the_same_slots(keep):
    trace = sort_trace(lambda p: 128 - 9 * p)
    axes = inside.sorting([keep(run(), trace)]).axes
    write, memory, add, read = axes[0], axes[3], axes[4], axes[5]
    order = np.argsort(-trace["trace_inputs"][:20, -1], kind="stable")
    np.testing.assert_allclose(add.images[0].get_array(), trace["trace_add"][:20, 1][order].T, atol=1e-3)
    np.testing.assert_allclose(read.images[0].get_array(), trace["trace_reads"][20:, 1].T, atol=1e-3)
    assert add.get_title() == "add vectors, head 2" and read.get_title() == "read vectors, head 2"
    first, last = int(write.get_ylim()[1] + 0.5), int(write.get_ylim()[0] - 0.5)
    assert memory.get_ylim() == write.get_ylim() and first < 0
    rows = trace["trace_memory"][np.arange(first, last + 1) % 128]
    np.testing.assert_allclose(memory.images[0].get_array(), rows, atol=1e-3)


def test_sorting_shows_the_heads_that_belong_together(keep):
    trace = sort_trace(lambda p: 120 + np.argsort(np.argsort(-p)))  # one slot after another, and read so
    swapped = trace | {"trace_write_weights": trace["trace_write_weights"][:, ::-1]}
    write, read, *_ = inside.sorting([keep(run(), swapped)]).axes
    assert write.get_title() == "write weighting, head 1" and read.get_title() == "read weighting, head 2"
    pair = inside.finding_pair(trace)
    assert (pair.writer, pair.reader, pair.due) == (1, 1, 1.0) and pair.any == 1 / 20 and pair.reached == 0
    lost = trace | {"trace_read_weights": np.roll(trace["trace_read_weights"], 60, axis=2)}
    found = inside.finding_pair(lost)
    assert found.due == found.any == 0 and found.reached == inside.SHUFFLES, "a walk elsewhere finds nothing"


def test_faint_writes_are_small_dots_and_count_little(keep):
    trace = sort_trace(lambda p: 128 - 9 * p, n_heads=1)
    write = trace["trace_write_weights"]
    write[:3, 0] = 1 / 128
    write[:3, 0, 60] += 0.001
    (points,) = inside.sorting([keep(run(), trace)]).axes[2].collections
    assert sorted(points.get_sizes())[:4] == pytest.approx([3.2379, 3.2379, 3.2379, 30], abs=1e-3)
    x, slots = trace["trace_inputs"][:20, -1], write[:20, 0].argmax(axis=1)
    explained = [
        inside.circle_line(x, slots, 128, weights)[2] for weights in (None, write[:20, 0].max(axis=1))
    ]
    assert explained[0] < 0.3 and explained[1] > 0.9


def test_sorting_draws_no_line_where_none_fits(keep):
    places = np.random.default_rng(1).permutation(40)
    drawing = inside.sorting([keep(run(), sort_trace(lambda p: places[: len(p)], n_heads=1))])
    assert not drawing.axes[2].lines and "on no line" in drawing.axes[2].get_title()
    assert drawing.axes[0].get_title() == "write weighting"


def test_a_line_runs_around_the_circle():
    x = np.linspace(-1, 1, 20)
    slope, start, explained = inside.circle_line(x, (3 - 40 * x) % 128, 128)
    assert slope == pytest.approx(-40, abs=0.05) and start % 128 == pytest.approx(3) and explained > 0.999
    assert inside.circle_line(x, np.full(20, 7), 128)[2] == 0, "a constant place follows nothing"
    noise = np.random.default_rng(0).uniform(0, 128, 20)
    assert inside.circle_line(x, noise, 128)[2] < 0.5


@pytest.mark.parametrize(
    ("used", "shown", "first"),
    [
        ([4, 5, 6], [2, 3, 4, 5, 6, 7, 8], 2),
        ([19, 0, 1], [17, 18, 19, 0, 1, 2, 3], -3),
        ([0], [18, 19, 0, 1, 2], -2),
        ([17], [15, 16, 17, 18, 19], 15),
        ([], list(range(20)), 0),
        (list(range(20)), list(range(20)), 0),
    ],
)
def test_slots_in_use_are_cut_out_across_the_end_of_the_circle(used, shown, first):
    weights = np.zeros((3, 20))
    weights[:, used] = 0.5
    cut, start = inside.used_slots(weights, np.zeros((3, 20)))
    assert start == first
    np.testing.assert_array_equal(cut(np.arange(20)[None]), [shown])


def test_a_weighting_spread_thin_gets_shades_of_its_own(keep):
    assert inside.black(np.full((5, 20), 1 / 20)) == pytest.approx(0.1), "twice the usual largest weight"
    focused = np.eye(20)[[0, 3, 4, 5]]
    assert inside.black(focused) == 1 and inside.black(np.zeros((4, 20))) == 1
    spread = np.vstack([focused[:1], np.full((9, 20), 1 / 20)])  # starts on slot 0 and blurs
    cut, first = inside.used_slots(spread, spread)
    assert first == 0 and cut(spread).shape == (10, 20), "not the few slots of the start"
    trace = sort_trace(lambda p: 9 * p, n_heads=1)
    even = np.full_like(trace["trace_write_weights"], 1 / 128)
    write, read, *_ = inside.sorting([keep(run(), trace | {"trace_write_weights": even})]).axes
    assert write.get_title() == "write weighting\n(black: 0.016 or more)" and write.images[0].get_clim() == (
        0,
        2 / 128,
    )
    assert read.get_title() == "read weighting" and read.images[0].get_clim() == (0, 1)


def test_no_slot_is_shown_twice():
    weights = np.zeros((1, 20))
    weights[:, [i for i in range(20) if i not in (3, 4)]] = 1
    cut, _ = inside.used_slots(weights)
    assert sorted(cut(np.arange(20)[None])[0]) == list(range(20))


# --- in general ----------------------------------------------------------------------------------------------


NOBODY = {"ntm_lstm": [], "lstm": []}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.curves("copy", {}, printed("copy")),
        lambda: figures.curves("ngrams", NOBODY, printed("ngrams")),
        lambda: figures.batch_1("copy", [], []),
        lambda: figures.generalisation(NOBODY, LENGTHS, longest=20),
        lambda: figures.associative_generalisation(NOBODY, ITEMS, PAPER.table("fig11_associative_generalisation")),
        lambda: figures.repeat_generalisation(NOBODY, REPEATS),
        lambda: answers.copies(NOBODY, (10, 20)),
        lambda: answers.copies(NOBODY, (120,)),
        lambda: answers.repeats(NOBODY, REPEATS),
        lambda: answers.predictions(NOBODY),
        lambda: inside.copying([]),
        lambda: inside.repeating([]),
        lambda: inside.recalling([]),
        lambda: inside.counting([]),
        lambda: inside.sorting([]),
    ],
)  # fmt: skip
def test_without_records_nothing_is_drawn(draw):
    before = plt.get_fignums()
    assert draw() is None
    assert plt.get_fignums() == before, "an empty figure would be shown"


def test_small_tensors_are_drawn_as_they_are():
    drawing = figures.addressing_steps({"before": [0.25, 0.75], "after": [1.0, 0.0]})
    assert [[bar.get_height() for bar in axes.patches] for axes in drawing.axes] == [[0.25, 0.75], [1.0, 0.0]]
    memory = np.array([[0.5, -1.0], [0.25, 0.0]])
    drawing = figures.write_steps({"before": memory, "after": memory / 2})
    assert {"0.50", "-1.00", "0.25", "0.00", "0.12", "before", "after"} <= set(texts(drawing))
    batch = CopyTask(max_length=3).sample(1, torch.Generator().manual_seed(0))
    drawing = figures.episode(batch, "3 bits")
    assert "inputs: 3 bits" in texts(drawing)
    inputs, targets = images(drawing)
    np.testing.assert_array_equal(inputs, batch.inputs[0].T)
    np.testing.assert_array_equal(targets, batch.targets[0].T)
