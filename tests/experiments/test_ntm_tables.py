"""How chapter 6 fills the paper's tables: computed counts, points of learning curves, and commands."""

import statistics

import pytest

from attn import cli
from attn.experiments.ntm import CHAPTER
from attn.experiments.ntm.effects import EFFECTS
from attn.experiments.ntm.runs import EXPERIMENTS, TASKS, VARIANTS
from attn.experiments.ntm.tables import (
    CHANNELS,
    SOLVED,
    TABLES,
    answer_cost,
    endings,
    final_cost,
    fitted_rows,
    solved_below,
    solves,
    typical,
)
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.errors import UsageError
from attn.reproduction.experiment import Exact, Measured
from attn.reproduction.records import Record
from attn.reproduction.scoreboard import ChapterState
from tests.experiments.made_up import PAPER, TASK, record, run_of, seeds_of

VIEWS = {view.id: view for view in TABLES}
CURVES = {task.id: task.tables[0] for task in TASKS}
PRINTED = {"table1_ntm_ff": "ntm_ff", "table2_ntm_lstm": "ntm_lstm", "table3_lstm": "lstm"}


# --- what there is -----------------------------------------------------------------------------------------------


def test_every_table_of_the_paper_has_a_view():
    assert [view.id for view in TABLES] == [table.id for table in PAPER.tables]
    assert CHAPTER.tables == TABLES


@pytest.mark.parametrize("view", TABLES, ids=lambda view: view.id)
def test_every_column_is_accounted_for(view):
    declared = [*view.label_columns, *view.settings, *view.cells]
    assert sorted(declared) == sorted(PAPER.table(view.id).columns)
    labels = [view.label(row) for row in PAPER.table(view.id).rows]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("view", [v for v in TABLES if v.id not in PRINTED], ids=lambda view: view.id)
def test_measured_cells_are_filled_by_experiments_of_their_table(view):
    by_id = {experiment.id: experiment for experiment in EXPERIMENTS}
    task = next(task.id for task in TASKS if view.id in task.tables)
    for row in PAPER.table(view.id).rows:
        for column, rule in view.cells.items():
            assert isinstance(rule, Measured)
            kind = column if column in MODELS else "ntm_lstm"
            assert rule.experiment(row) == f"{task}/{kind}"
            assert view.id in by_id[rule.experiment(row)].tables
            assert rule.skewed == (column in MODELS), "seeds differ unevenly; the optimum does not"


# --- parameter counts ------------------------------------------------------------------------------------------------


def test_channels_are_those_of_the_tasks_and_of_the_facts():
    for task in TASKS:
        drawn = task.episodes(**PAPER.budgets[task.id]["paper"]["task"])
        assert CHANNELS[task.row] == (drawn.n_inputs, drawn.n_outputs)
    for case in PAPER.exact_fact("lstm_baseline_params")["values"]:
        if case["matches"]:
            assert CHANNELS[case["task"]] == (case["n_in"], case["n_out"])


@pytest.mark.parametrize(
    ("table", "fact", "more"),
    [
        ("table1_ntm_ff", "ntm_ff_params", {}),
        # the facts' second layer sees the first alone; ours also the input and the reads of five heads
        ("table2_ntm_lstm", "ntm_lstm_params", {"Priority Sort": 4 * 100 * (9 + 5 * 20)}),
        ("table3_lstm", "lstm_baseline_params", {}),
    ],
)
def test_parameters_are_counted_on_the_models(table, fact, more):
    """As the facts' formulas give them; no constant of ours is fitted to the column."""
    rule = VIEWS[table].cells["parameters"]
    assert isinstance(rule, Exact) and not rule.fitted
    cases = PAPER.exact_fact(fact)["values"]
    for row, case in zip(PAPER.table(table).rows, cases, strict=True):
        assert case["task"].startswith(row["task"]) and case["printed"] == row["parameters"]
        found = rule.compute(row)
        if case["result"] is not None:
            assert found == case["result"] + more.get(row["task"], 0)
        assert (found == row["parameters"]) == case["matches"]
        if not case["matches"]:
            assert len(rule.note(row)) > 40, "a note says why"


def test_only_the_lstm_s_unmatched_row_has_a_note():
    note = VIEWS["table3_lstm"].cells["parameters"].note
    noted = {row["task"]: note(row) for row in PAPER.table("table3_lstm").rows}
    assert [task for task, text in noted.items() if text] == ["Priority Sort"]
    assert noted["Priority Sort"].startswith("Priority Sort has no solution")


def test_a_second_layer_of_ours_sees_more_than_the_formula_s():
    note = VIEWS["table2_ntm_lstm"].cells["parameters"].note
    notes = {row["task"]: note(row) for row in PAPER.table("table2_ntm_lstm").rows}
    assert [task for task, text in notes.items() if "second layer" in text] == ["Priority Sort"]
    ours = 212_868 + 4 * 100 * (9 + 5 * 20)
    assert f"{ours:,} parameters, where the formula has 212,868" in notes["Priority Sort"]
    assert "second_layer" in {item.id for item in PAPER.deviations}


def test_the_fitted_pattern_gives_six_printed_counts_and_the_standard_build_none():
    rows = fitted_rows()
    assert [(row["kind"], row["task"]) for row in rows] == [
        (kind, task) for kind in ("ntm_ff", "ntm_lstm") for task in ("Copy", "Repeat Copy", "N-Grams")
    ]
    for row in rows:
        case = next(
            c for c in PAPER.exact_fact(f"{row['kind']}_params")["values"] if c["task"] == row["task"]
        )
        assert row["fitted"] == row["printed"] == case["printed"]
        assert row["standard"] == case["result"] != case["printed"]


def test_the_pattern_is_the_formula_of_the_facts_notes():
    """As the notes word it: 125 weights an output, 101 a value that a head emits, 13 more."""
    for row in fitted_rows():
        inputs = 100 * (row["n_in"] + 25) if row["kind"] == "ntm_ff" else 400 * (row["n_in"] + 125)
        assert inputs + 125 * row["n_out"] + 101 * row["head_outputs"] + 13 == row["printed"]


def test_what_the_page_says_of_the_printed_counts():
    """In table 2 associative recall has the settings of copy, fewer channels, and more parameters."""
    rows = {row["task"]: row for row in PAPER.table("table2_ntm_lstm").rows}
    recall, copy = (rows[task] for task in ("Associative", "Copy"))
    assert recall | {"task": "", "parameters": 0} == copy | {"task": "", "parameters": 0}
    assert recall["parameters"] > copy["parameters"]
    assert all(fewer < more for fewer, more in zip(CHANNELS["Associative"], CHANNELS["Copy"], strict=True))


# --- learning curves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("task", list(CURVES))
def test_cells_are_the_running_median_at_their_point(task, kind):
    cell = VIEWS[CURVES[task]].cells[kind]
    run = run_of(f"{task}/{kind}", costs=(10, 0))  # 0.1 less every 2000 sequences
    assert cell.unit == "bits per sequence"
    for row in PAPER.table(CURVES[task]).rows:
        if row["k"] > 200:
            assert cell.value(row, run) is None, "the run ended before"
        elif row["k"] > 0:
            last = [entry["bits_per_sequence"] for entry in run.history if entry["seen"] <= 1000 * row["k"]][
                -5:
            ]
            assert len(last) == 5 and cell.value(row, run) == statistics.median(last)
    assert cell.value({"k": 0}, run) == 10, "the untrained model, though there are not five evaluations yet"
    assert cell.value({"k": 100}, run) == pytest.approx(5.2), "median of 5.0 to 5.4"
    assert cell.value({"k": 200}, run) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("seen", "found"), [(99_000, True), (99_500, True), (98_900, False), (100_500, False)]
)
def test_an_evaluation_at_most_a_hundredth_earlier_stands_for_a_point(seen, found):
    run = record("lstm", costs=(10, 0))
    history = [
        entry for entry in run.history if not 98_000 <= entry["seen"] <= 102_000 or entry["seen"] == 100_000
    ]
    history = [entry | {"seen": seen} if entry["seen"] == 100_000 else entry for entry in history]
    value = (
        VIEWS["fig3_copy_curves"]
        .cells["lstm"]
        .value({"k": 100}, Record(run.path, run.data | {"history": history}))
    )
    assert (value is not None) == found
    if found:
        assert value == pytest.approx(5.3), "median of 5.6, 5.5, 5.4, 5.3 and, after a gap, 5.0"


def test_a_spike_at_the_point_does_not_count():
    run = record("lstm", costs=(1, 1))
    history = [
        entry | {"bits_per_sequence": 500.0} if entry["seen"] == 100_000 else entry for entry in run.history
    ]
    spiked = Record(run.path, run.data | {"history": history})
    assert VIEWS["fig3_copy_curves"].cells["lstm"].value({"k": 100}, spiked) == 1


# --- other columns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_associative_generalisation_is_in_bits_per_answer(kind):
    view = VIEWS["fig11_associative_generalisation"]
    items = [row["k"] for row in PAPER.table(view.id).rows]
    assert view.label({"k": 6}) == "6 items"
    run = run_of(f"associative/{kind}", metrics={f"bits_per_bit_at_{n}": n / 100 for n in items})
    cell = view.cells[kind]
    assert [cell.value({"k": n}, run) for n in items] == pytest.approx([18 * n / 100 for n in items])
    assert answer_cost(run, 6) == pytest.approx(18 * 0.06), "three vectors of six bits"
    task = TASK["associative"].episodes(**PAPER.budgets["associative"]["paper"]["task"])
    assert task.item_length * task.n_bits == 18
    for profile, config in CHAPTER.experiment(f"associative/{kind}").configs.items():
        assert profile == "ci" or {(n,) for n in items} <= set(config.test_sizes)


def test_the_optimal_column_is_the_cost_of_the_optimal_estimator():
    cell = VIEWS["fig13_ngram_curves"].cells["optimal"]
    run = run_of("ngrams/ntm_lstm", metrics={"optimal_bits_per_sequence": 132.25, "bits_per_sequence": 140.0})
    assert [cell.value(row, run) for row in PAPER.table("fig13_ngram_curves").rows] == [132.25] * 3
    assert cell.unit == "bits per sequence"
    with pytest.raises(UsageError, match="holds no metric 'optimal_bits_per_sequence'"):
        cell.value({"k": 100}, run_of("ngrams/ntm_lstm"))


def test_the_scoreboard_shows_medians_of_seeds_and_what_is_pending():
    metrics = {f"bits_per_bit_at_{n}": 0.01 for n in (6, 10, 15, 20)}
    records = seeds_of("associative/ntm_ff", 3, spread=1.0, metrics=metrics, costs=(18, 0))
    state = ChapterState(CHAPTER, records)

    def cells(table):
        return {
            (row["label"], cell["column"]): (cell["state"], cell["values"].get("cpu"))
            for row in state.table(table)["rows"]
            for cell in row["cells"]
        }

    found = cells("fig11_associative_generalisation")
    assert found["10 items", "ntm_ff"] == ("recorded", pytest.approx(18 * 0.02)), (
        "median of 0.01, 0.02 and 0.03"
    )
    assert found["10 items", "lstm"] == ("pending", None)
    found = cells("fig10_associative_curves")
    assert found["200 thousand sequences", "ntm_ff"] == ("recorded", pytest.approx(0.36))
    assert found["500 thousand sequences", "ntm_ff"] == ("pending", None)


# --- commands ------------------------------------------------------------------------------------------------------------


def commands():
    return sorted({view.command(row) for view in TABLES for row in PAPER.table(view.id).rows} - {None})


def test_every_measured_row_has_a_command_and_no_computed_one():
    for view in TABLES:
        for row in PAPER.table(view.id).rows:
            assert (view.command(row) is None) == (view.id in PRINTED), view.id
    assert len(commands()) == len(TASKS)


@pytest.mark.parametrize("command", commands())
def test_commands_of_rows_are_accepted_by_attn_run(command):
    program, name, *arguments = command.split()
    context = cli.main.make_context(program, [name, *arguments])
    parsed = cli.run.make_context(name, arguments, parent=context).params
    assert (program, name, parsed["chapter"]) == ("attn", "run", "graves2014ntm")
    chosen = CHAPTER.select(task=parsed["task"], table=parsed["table"], experiment=parsed["experiment"])
    assert [experiment.id for experiment in chosen] == [f"{parsed['task']}/{kind}" for kind in MODELS]
    assert all(parsed["profile"] in experiment.configs for experiment in chosen)


@pytest.mark.parametrize("view", [v for v in TABLES if v.id not in PRINTED], ids=lambda view: view.id)
def test_a_row_s_command_runs_what_fills_the_row(view):
    for row in PAPER.table(view.id).rows:
        task = view.command(row).split("--task ")[1].split()[0]
        assert {rule.experiment(row) for rule in view.cells.values()} <= {
            e.id for e in CHAPTER.select(task=task)
        }


# --- how runs end ------------------------------------------------------------------------------------------------------


def test_the_final_cost_sees_through_a_spike():
    run = record("lstm", costs=(5, 1))
    history = [*run.history[:-1], run.history[-1] | {"bits_per_sequence": 400.0}]
    spiked = Record(run.path, run.data | {"history": history})
    assert final_cost(spiked) == pytest.approx(1.12), "the median of 1.16, 1.12, 1.08, 1.04 and 400"
    assert final_cost(record("lstm", costs=(7, 7))) == 7


def test_a_run_solves_a_task_only_if_it_ends_so():
    run = record("lstm", costs=(1, 0))
    lost = Record(
        run.path,
        run.data | {"history": [*run.history, *({**run.history[-1], "bits_per_sequence": 80.0},) * 5]},
    )
    assert solves(run, 0.1) and not solves(lost, 0.1)
    assert "0 of 1 seed below 0.1" in endings("copy", {"lstm": [lost]})


def test_the_typical_run_is_that_of_median_cost():
    runs = [record("lstm", seed, costs=(cost, cost)) for seed, cost in enumerate((5, 1, 9, 3))]
    assert [typical(runs[:n]).seed if n else typical([]) for n in range(5)] == [None, 0, 1, 0, 3]


def test_tasks_that_can_be_solved_have_a_threshold():
    assert {task: solved_below(task) for task in TASK} == {
        "copy": SOLVED, "repeat_copy": PAPER.margins["repeat_copy_solved"]["value"], "associative": SOLVED,
        "ngrams": None, "priority_sort": None,
    }  # fmt: skip


def test_endings_count_the_seeds_that_solve_a_task():
    seeds = [
        record("ntm_lstm", seed, costs=costs) for seed, costs in enumerate([(0, 0), (9, 2), (0.05, 0.05)])
    ]
    assert endings("copy", {"ntm_lstm": seeds, "lstm": []}).splitlines() == [
        "NTM, LSTM controller: 2 of 3 seeds below 0.1 bits; 0 to 2.14 bits per sequence at the end",
        "LSTM: no records yet",
    ]
    runs = [run_of("repeat_copy/lstm", seed, costs=(cost, cost)) for seed, cost in enumerate([0.9, 1.1, 0.8])]
    assert endings("repeat_copy", {"lstm": runs}).startswith("LSTM: 2 of 3 seeds below 1 ")
    runs = [run_of("ngrams/ntm_ff", seed, costs=(134 + seed, 134 + seed)) for seed in range(2)]
    assert endings("ngrams", {"lstm": runs[:1]}).endswith(" bits per sequence at the end (1 seed)")
    assert " to " not in endings("copy", {"lstm": runs[:1]})
    assert endings("ngrams", {"ntm_ff": runs}) == (
        "NTM, feed-forward controller: 134 to 135 bits per sequence at the end (2 seeds)"
    )


# --- effects of deviations -----------------------------------------------------------------------------------------------


def test_effects_compare_experiments_that_there_are():
    ids = {experiment.id for experiment in EXPERIMENTS}
    variants = {task.id: task.of for task in VARIANTS}
    for effect in EFFECTS:
        assert {effect.ours, effect.undone} <= ids
        ours, undone = (name.split("/")[0] for name in (effect.ours, effect.undone))
        assert variants[undone] == variants.get(ours, ours)
        assert effect.deviation in {item.id for item in PAPER.deviations}
    assert CHAPTER.effects == EFFECTS


def test_one_sequence_an_update_is_compared_at_one_rate():
    """And with our rate beside it, where the two sides say that they differ in that too."""
    configs = {e.id: e.configs["cpu"] for e in EXPERIMENTS if "cpu" in e.configs}
    effects = [effect for effect in EFFECTS if effect.deviation == "batch"]
    for effect in effects:
        ours, undone = (configs[name].training for name in (effect.ours, effect.undone))
        assert ours.batch_size > undone.batch_size == 1
        assert (ours.lr == undone.lr) == effect.measure.endswith(", both at the paper's rate")
        assert (ours.lr != undone.lr) == effect.otherwise.endswith(" and the paper's rate")
    assert {effect.ours for effect in effects} == {
        "copy_printed_rate/ntm_lstm",
        "copy/ntm_lstm",
        "associative/ntm_lstm",
    }


@pytest.mark.parametrize(
    "effect", EFFECTS, ids=lambda effect: f"{effect.deviation}-{effect.ours}-{effect.undone}"
)
def test_effects_are_read_off_learning_curves(effect):
    run = run_of(effect.ours, costs=(10, 0))
    assert effect.value(run) == (pytest.approx(5.2) if effect.unit == "bits per sequence" else None)
    solved = run_of(effect.undone, costs=(10, -10))  # 0.2 less every 2000 sequences: 0 at 100 thousand
    wanted = 0.4 if effect.unit == "bits per sequence" else 104_000
    assert effect.value(solved) == pytest.approx(wanted)
