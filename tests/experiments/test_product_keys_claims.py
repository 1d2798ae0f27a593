"""Tables, claims, figures and words of chapter 5, from what they compute and from made-up records."""

from pathlib import Path

import numpy as np
import pytest
import torch

import attn.product_keys
from attn.experiments.product_keys import (
    CHAPTER,
    claims,
    concepts,
    counts,
    departures,
    figures,
    results,
    runs,
    speeds,
)
from attn.experiments.product_keys.live import BANDS, BASELINE, RECALL, WITH, WITHOUT
from attn.experiments.product_keys.tables import TABLES, perplexity, printed_memory
from attn.kernels import product_keys as kernels
from attn.product_keys import cartesian_keys, product_key_topk, search_cost
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge, t_interval
from attn.reproduction.effects import effects_text
from attn.reproduction.experiment import Exact, Measured, config_dict
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record, pack_arrays
from attn.reproduction.scoreboard import ChapterState
from attn.reproduction.speed import Speed
from tests.reproduction import made_up_speed
from tests.reproduction.toy import record_data

FACTS = load_papers()[runs.PAPER]
NOISE = (0.0, 0.02, -0.01, 0.015, -0.02)
TEXT = {
    "perplexity_test": 30.0, "perplexity_valid": 31.0, "perplexity_train": 25.0, "bits_per_byte_test": 1.5,
    "unigram_perplexity_test": 600.0, "inference_tokens_per_second": 5000.0,
}  # fmt: skip
MEMORY = {
    "usage": 90.0, "kl": 0.7, "unweighted_kl": 0.6, "lookups_per_slot": 50.0, "search_multiplications": 4096.0,
    "search_exact": 1.0, "short_search_exact": 0.02,
}  # fmt: skip


def record(experiment, seed=0, *, folder=Path(), arrays=None, speed=1000.0, **metrics):
    """A run; metrics of its memory, if it has one, are named without the layer."""
    config = CHAPTER.experiment(experiment).configs["cpu"]
    places = config.model.memories
    values = dict(TEXT) if not experiment.startswith("facts") else {}
    values |= {f"{name}_layer{place}": value for name, value in MEMORY.items() for place in places}
    for name, value in metrics.items():
        values |= {f"{name}_layer{place}": value for place in places} if name in MEMORY else {name: value}
    data = record_data(runs.PAPER, experiment, seed, values, config=config_dict(config))
    data["run"] |= {"units_per_second": speed, "parameters": 1000}
    path = folder / f"seed{seed}.json"
    if arrays is not None:
        path.with_suffix(".npz").write_bytes(pack_arrays(arrays))
    return Record(path, data | {"artifact": None if arrays is None else {"file": f"seed{seed}.npz"}})


def seeds_of(experiment, count=3, **metrics):
    """Seeds that differ a little in their perplexity and usage."""
    found = []
    for seed in range(count):
        own = dict(metrics)
        for name in ("perplexity_test", "usage", "kl", "stored_bits"):
            if name in own:
                own[name] += NOISE[seed]
        found.append(record(experiment, seed, **own))
    return found


def verdicts(records):
    return {claim.id: judge(claim, FACTS, records, lambda record: "fresh") for claim in CHAPTER.claims}


def like_the_paper():
    """Runs with the numbers that the facts state, and more slots that store more facts."""
    records = []
    for row in FACTS.table("table1").rows:
        if row["test_ppl"] is not None:
            records += seeds_of(runs.table1_id(row), 5, perplexity_test=row["test_ppl"])
    for row in FACTS.table("table2_batchnorm").rows:
        for on, side in ((True, "bn"), (False, "no_bn")):
            cells = {
                "perplexity_test": row[f"ppl_{side}"],
                "usage": row[f"usage_{side}"],
                "kl": row[f"kl_{side}"],
            }
            records += seeds_of(runs.keys_id(row["n_keys"], on), **cells)
    for row in FACTS.table("table3_position").rows:
        if runs.position_id(row["position"]) != runs.BASE:
            records += seeds_of(runs.position_id(row["position"]), perplexity_test=row["ppl"])
    records += seeds_of(runs.WITHOUT, perplexity_test=23.5)
    for n_keys in (16, 32, 64, 128):
        name = runs.facts_id(16384, f"keys{n_keys}")
        records += seeds_of(name, stored_bits=700.0 * n_keys, table_bits=98304.0)
    records += seeds_of(runs.facts_id(16384, "none"), stored_bits=5000.0, table_bits=98304.0)
    return records


# --- tables ----------------------------------------------------------------------------------------------------


def test_every_table_has_a_view_and_every_column_a_rule():
    assert [view.id for view in TABLES] == [table.id for table in FACTS.tables]
    for view in TABLES:
        declared = [*view.label_columns, *view.settings, *view.cells]
        assert sorted(declared) == sorted(FACTS.table(view.id).columns)
        labels = [view.label(row) for row in FACTS.table(view.id).rows]
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("view", TABLES, ids=lambda view: view.id)
def test_cells_are_filled_by_experiments_of_their_table(view):
    for row in FACTS.table(view.id).rows:
        for rule in view.cells.values():
            if isinstance(rule, Exact):
                assert rule.compute(row) == row["slots"]
            elif (experiment := rule.experiment(row)) is not None:
                assert isinstance(rule, Measured) and view.id in CHAPTER.experiment(experiment).tables


def test_cells_hold_what_the_records_say():
    state = ChapterState(CHAPTER, like_the_paper())
    for table in ("table2_batchnorm", "table3_position"):
        for line in state.table(table)["rows"]:
            for cell in line["cells"]:
                if cell["kind"] == "measured" and (table, cell["column"]) == (
                    "table2_batchnorm",
                    "usage_no_bn",
                ):
                    assert cell["values"]["cpu"] == pytest.approx(cell["paper"], abs=0.01)
    first = state.table("table1")["rows"][1]["cells"][-1]
    assert first["paper"] == 15.6 and first["values"]["cpu"] == pytest.approx(15.6, abs=0.01)


def test_usage_is_left_out_where_look_ups_are_few():
    few = [record(runs.BASE, lookups_per_slot=9.9)]
    rows = ChapterState(CHAPTER, few).table("table3_position")["rows"]
    cells = {cell["column"]: cell["values"] for cell in rows[4]["cells"]}
    assert cells["ppl"] == {"cpu": 30.0} and cells["usage_percent"] == cells["kl"] == {}


# --- claims ----------------------------------------------------------------------------------------------------


def test_every_claim_of_the_paper_is_tested():
    assert {claim.fact for claim in CHAPTER.claims} == {fact.id for fact in FACTS.claims}
    arithmetic = [claim for claim in CHAPTER.claims if claim.kind == "arithmetic"]
    assert all(claim.counted for claim in arithmetic), "printed cells are unverified"


def test_claims_hold_on_numbers_like_the_paper_s():
    found = {name: verdict.verdict for name, verdict in verdicts(like_the_paper()).items()}
    # in print, too, the smaller memories gain from size, so nothing is left out
    assert found == dict.fromkeys(found, HOLDS)


def changed(experiment, **metrics):
    """The paper's numbers, with one experiment's changed."""
    kept = [r for r in like_the_paper() if r.data["experiment"] != experiment]
    return kept + seeds_of(experiment, 5, **metrics)


@pytest.mark.parametrize(
    ("claim", "experiment", "metrics"),
    [
        ("memory_beats_depth", "depth/d1024_l12_m1", {"perplexity_test": 16.5}),
        ("more_memories_help_2", "depth/d1024_l12_m2", {"perplexity_test": 15.9}),
        ("bn_usage_usage", runs.keys_id(1024), {"usage": 20.0}),
        ("bn_usage_kl", runs.keys_id(1024), {"kl": 3.0}),
        ("bn_usage_more_so", runs.keys_id(128, False), {"usage": 10.0}),
        ("bn_usage_more_so_kl", runs.keys_id(128, False), {"kl": 2.5}),
        ("size_helps_768", runs.keys_id(768), {"perplexity_test": 20.5}),
        ("position_middle_first_3", runs.position_id(3), {"perplexity_test": 22.0}),
        ("position_middle_first_6", runs.position_id(1), {"perplexity_test": 20.0}),
        ("position_middle_top", runs.position_id(6), {"perplexity_test": 19.0}),
        ("position_middle_upper", runs.position_id(2), {"perplexity_test": 19.0}),
        (
            "size_helps_facts_64",
            runs.facts_id(16384, "keys32"),
            {"stored_bits": 50000.0, "table_bits": 98304.0},
        ),
        (
            "exact_search",
            runs.facts_id(16384, "keys64"),
            {"search_exact": 0.99, "stored_bits": 44800.0, "table_bits": 98304.0},
        ),
    ],
)
def test_claims_fail_on_other_numbers(claim, experiment, metrics):
    assert verdicts(changed(experiment, **metrics))[claim].verdict == FAILS


RESTS_ON_THE_MEMORY = (
    "size_helps_256", "size_helps_1024", "position_middle_first_2", "position_middle_top", "position_middle_upper",
    "bn_usage_perplexity",
)  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "experiment", "metrics"),
    [
        ("memory_beats_depth", "depth/d1024_l12_m0", {"perplexity_test": 15.9}),  # depth does nothing
        ("bn_usage_usage", runs.keys_id(1024), {"lookups_per_slot": 5.0}),
        ("bn_usage_more_so_kl", runs.keys_id(1024), {"lookups_per_slot": 5.0}),
        (
            "exact_search",
            runs.facts_id(16384, "keys64"),
            {"short_search_exact": 0.9, "stored_bits": 44800.0, "table_bits": 98304.0},
        ),
        ("more_memories_help_1", "depth/d1024_l24_m0", {"perplexity_test": 18.0}),  # the same
        ("more_memories_help_3", "depth/d1024_l12_m1", {"perplexity_test": 17.7}),  # a memory does nothing
        *((name, runs.WITHOUT, {"perplexity_test": 19.7}) for name in RESTS_ON_THE_MEMORY),
        (
            "size_helps_facts_128",
            runs.facts_id(16384, "none"),
            {"stored_bits": 90000.0, "table_bits": 98304.0},
        ),
    ],
)
def test_without_the_control_nothing_is_said(claim, experiment, metrics):
    assert verdicts(changed(experiment, **metrics))[claim].verdict == NOT_TESTED


class Run:
    """What a claim on perplexities reads of a record."""

    def __init__(self, cost):
        self.cost = cost

    def metric(self, name):
        return self.cost


def decided(difference, *, spread=1.0, n_draws=1500, n_seeds=3):
    """How often the interval lies above 0, and below, where the place of a memory changes nothing but noise."""
    rng = np.random.default_rng(0)
    sides = np.zeros(2)
    for costs in rng.normal(0, spread, (n_draws, n_seeds, len(POSITIONS))) + rng.normal(
        0, 9, (n_draws, n_seeds, 1)
    ):
        runs_of = [{runs.position_id(place): Run(cost) for place, cost in zip(POSITIONS, seed, strict=True)}
                   for seed in costs]  # fmt: skip
        low, high = t_interval([difference(each) for each in runs_of])
        sides += low > 0, high < 0
    return sides / n_draws


POSITIONS = [row["position"] for row in FACTS.table("table3_position").rows]
OF_POSITIONS = [claim for claim in CHAPTER.claims if claim.fact == "position_middle"]


@pytest.mark.parametrize("claim", OF_POSITIONS, ids=lambda claim: claim.id)
def test_where_all_layers_are_alike_a_place_is_found_no_better_than_by_chance(claim):
    """Each side is to come out in 2.5 percent of the cases."""
    assert all(0.012 < share < 0.04 for share in decided(claim.difference))


def test_a_layer_beside_the_best_of_the_others_loses_by_chance():
    """What the tests of places leave alone: the top layer, less the best of four, is above 0 far too often."""

    def beside_the_best(of):
        costs = [of[runs.position_id(place)].metric("perplexity_test") for place in POSITIONS]
        return costs[-1] - min(costs[1:-1])

    assert decided(beside_the_best)[0] > 0.1


def test_places_are_compared_layer_by_layer_and_the_top_with_the_best_in_print():
    found = {claim.id: set(claim.experiments) for claim in OF_POSITIONS}
    assert [name for name in found if "first" in name] == [f"position_middle_first_{n}" for n in range(2, 7)]
    assert found["position_middle_top"] == {runs.position_id(6), runs.position_id(5), runs.WITHOUT}


def test_costs_are_judged_on_what_is_counted(monkeypatch):
    """Neither on records nor on printed cells."""
    assert verdicts([])["product_vs_flat_speed_counted"].verdict == HOLDS
    assert concepts.search_growth(flat=False) == (1, 1, 0) and concepts.search_growth(flat=True) == (2, 1, 0)
    for_all = concepts.search_growth(flat=True)
    monkeypatch.setattr(claims, "search_growth", lambda flat: for_all)
    assert verdicts([])["product_vs_flat_speed_counted"].verdict == FAILS


def with_products_of_pairs(query, sub_keys, topk):
    """Every one of the k^2 pairs is scored anew, by d_q products one by one."""
    scores, slots = product_key_topk(query, sub_keys, topk)
    keys = cartesian_keys(sub_keys[:, :, :topk])  # as many as there are pairs [H, k * k, E]
    (query.unsqueeze(2) * keys).sum(-1)
    return scores, slots


def through_all_keys(query, sub_keys, topk):
    """No matrix product: each query beside each key by broadcasting."""
    scores, slots = (query.unsqueeze(2) * cartesian_keys(sub_keys)).sum(-1).topk(topk)
    return scores, slots


def in_place(query, sub_keys, topk):
    """The same, a head and number at a time into one tensor."""
    keys = cartesian_keys(sub_keys)
    sums = query.new_zeros(*query.shape[:2], keys.shape[1])
    for number in range(query.shape[2]):
        sums.addcmul_(query[..., number : number + 1], keys[..., number])
    scores, slots = sums.topk(topk)
    return scores, slots


@pytest.mark.parametrize("search", [with_products_of_pairs, through_all_keys, in_place])
def test_a_search_with_more_multiplications_fails_whatever_they_are_done_by(monkeypatch, search):
    monkeypatch.setattr(kernels, "product_key_topk", search)
    assert verdicts([])["product_vs_flat_speed_counted"].verdict == FAILS


def test_facts_stored_without_a_memory_are_no_evidence_for_one():
    """More than a tenth of the table is stored without one, too: the larger memory has to store more than that."""
    both = {"stored_bits": 15000.0, "table_bits": 98304.0}
    kept = [r for r in like_the_paper() if r.data["experiment"] not in map(facts, ("none", "keys32"))]
    records = kept + seeds_of(facts("none"), **both) + seeds_of(facts("keys32"), **both)
    assert verdicts(records)["size_helps_facts_32"].verdict == NOT_TESTED


def facts(model):
    return runs.facts_id(16384, model)


def test_no_claim_is_judged_by_the_speed_of_a_run():
    records = like_the_paper()
    before = verdicts(records)
    for number, each in enumerate(records):
        each.data["run"]["units_per_second"] = 10.0 + number % 7
    assert verdicts(records) == before


def test_the_effects_of_deviations_are_told():
    names = {"value_rate": runs.VALUE_RATE, "norm_position": runs.POST_NORM}
    assert set(names) <= {deviation.id for deviation in FACTS.deviations}
    for effect in CHAPTER.effects:
        undone = names[effect.deviation]
        records = {runs.BASE: [record(runs.BASE)], undone: [record(undone, perplexity_test=33.0)]}
        said = effects_text([effect], lambda name, profile, of=records: of[name] if profile == "cpu" else [])
        assert "30 per subword (1 seed) here, 33 per subword" in said[effect.deviation]


def test_bands_name_live_experiments():
    live = {e.id for e in CHAPTER.experiments if "ci" in e.configs}
    assert {band.experiment for band in BANDS} == live == {WITH, WITHOUT}


def test_no_run_can_pass_for_both_a_memory_and_none():
    """What is above the level with a memory has to be below the same one without."""
    assert [(band.level, band.value, band.above) for band in RECALL] == [
        (band.level, band.value, True) for band in BASELINE
    ]
    assert not any(band.above for band in BASELINE)
    assert {band.experiment for band in RECALL} == {WITH} and {b.experiment for b in BASELINE} == {WITHOUT}


# --- what is computed ------------------------------------------------------------------------------------------


def test_the_drawn_search_is_one():
    found = concepts.halves()
    assert (np.diff(found.left) <= 0).all() and (np.diff(found.right) <= 0).all()
    assert (
        found.best.sum() == 5
        and (found.best <= found.needed).all()
        and (found.needed <= found.candidates).all()
    )
    np.testing.assert_allclose(np.sort(found.sums[found.best]), np.sort(found.sums.ravel())[-5:], rtol=1e-6)
    texts = [text.get_text() for text in figures.halves(found).axes[0].texts]
    assert texts[:2] == [f"{number:.1f}" for number in found.sums[0, :2]] and "-0.0" not in texts


def test_counts_are_those_of_the_facts():
    assert all(item.stated == item.counted for item in concepts.counted_facts())
    assert "✗" not in repr(counts.counted_table())
    memory = [item.stated for item in concepts.counted_facts() if "queries of 256" in item.what]
    assert len(memory) == 5 and sum(memory[:-1]) == memory[-1] == 270_011_392
    assert concepts.needed_sums(32) == 119
    found = concepts.costs((4, 8), key_dim=6, topk=2)
    assert found.flat.tolist() == [96, 384] and found.product.tolist() == [28, 52]
    assert len(figures.costs(found).axes[0].lines) == 2


def differing_counts():
    return {item.what for item in concepts.counted_facts() if item.stated != item.counted}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (kernels, {"multiply-accumulates of a search by halves", "the latter over those by halves"}),
        (attn.product_keys, {"sums of pairs after it, all k^2 of them"}),
    ],
    ids=["fused", "plain"],
)
def test_searches_are_counted_while_they_run(monkeypatch, module, expected):
    def wasteful(query, sub_keys, topk):
        _ = query * 2.0 + query * 3.0
        return product_key_topk(query, sub_keys, topk)

    monkeypatch.setattr(module, "product_key_topk", wasteful)
    assert differing_counts() == expected


def test_slots_are_counted_as_rows_of_the_values(monkeypatch):
    def short(**sizes):
        memory = printed_memory(**sizes)
        memory.values = torch.nn.Parameter(memory.values[1:])
        return memory

    monkeypatch.setattr(concepts, "printed_memory", short)
    slots = {f"slots, {row['row']}" for row in FACTS.table("table2_batchnorm").rows}
    assert {what for what in differing_counts() if what.startswith("slots")} == slots


def test_three_codebooks_take_fewer_products_and_more_sums():
    size = {"n_slots": 512**2, "key_dim": 512, "topk": 32}
    cost = search_cost(n_keys=512, key_dim=512, topk=32)
    assert concepts.codebook_costs(2, **size) == (cost.product, cost.sums)
    assert concepts.codebook_costs(3, **size) == (64 * 512, 2 * 32**2)
    with pytest.raises(ValueError, match="n_slots must be a whole number to the power 3; got 100"):
        concepts.codebook_costs(3, n_slots=100, key_dim=6, topk=2)
    two, three, fewer = counts.codebook_words()
    assert "262,144 multiplications" in two and "32,768 multiplications and at most 2,048 sums" in three
    assert fewer.startswith("8 times")


def test_what_a_memory_replaces_is_taken_off():
    found = {item.d_model: item for item in concepts.replaced()}
    assert list(found) == [512, 1024, 1600]
    wide = found[1024]
    (layer,) = FACTS.exact_fact("feed_forward_params")["values"]
    assert wide.gained == 271_587_328 - layer["total"] == 263_193_600
    width = 4 * 512  # heads, and numbers of a query
    assert wide.memory == 1024 * width + 512 * width + 4 * 32 * 1024 and wide.feed_forward == 8 * 1024**2
    narrow, middle, _ = counts.replaced_words()
    assert "adds 263,193,600 parameters" in middle and "0.39 times the 8,388,608" in middle
    assert "1.03 times" in narrow, "what a search costs does not shrink with the width"


def test_a_count_that_differs_is_marked(monkeypatch):
    wrong = concepts.Counted("slots", 4, 5)
    monkeypatch.setattr(counts, "counted_facts", lambda: [wrong])
    assert "✗ no" in repr(counts.counted_table())


def test_the_bound_on_the_divergence_is_checked():
    rows = FACTS.table("table2_batchnorm").rows
    assert concepts.bound_violations(rows) == []
    assert concepts.bound_violations([{**rows[-1], "kl_bn": 0.1}]) == ["1M, bn"]
    assert concepts.even_use(8, 2) == pytest.approx((0.25, np.log(4)))


def test_a_forward_pass_is_counted():
    cpu = {name: CHAPTER.experiment(f"depth/d1024_l12_m{name}").configs["cpu"] for name in (0, 1)}
    plain, memory = (
        concepts.multiplications(config.model, vocab_size=10, block=8) for config in cpu.values()
    )
    model = cpu[1].model
    replaced = 2 * model.d_model * model.d_ff
    size = model.memory
    width = size.n_heads * size.key_dim
    added = model.d_model * width + size.n_keys * width + size.n_heads * size.topk * model.d_model
    assert memory == plain - replaced + added
    assert memory < plain, "the memory is cheaper than what it replaces"


# --- figures and words -----------------------------------------------------------------------------------------


def test_depth_has_a_line_for_each_number_of_memories():
    groups = {0: {3: seeds_of("depth/d1024_l12_m0"), 6: seeds_of("depth/d1024_l24_m0")},
              1: {3: seeds_of("depth/d1024_l12_m1"), 6: []}}  # fmt: skip
    drawing = figures.depth(groups)
    assert [text.get_text() for text in drawing.legends[0].texts] == ["no memory", "1 memory"]
    assert sum(len(line.get_xdata()) == 3 for line in drawing.axes[0].lines) == 3  # seeds of each cell


def test_sweeps_show_every_seed_and_the_bound():
    groups = {"with": {16: seeds_of(runs.BASE), 64: seeds_of(runs.keys_id(1024), lookups_per_slot=3.0)}}
    drawing = figures.sweeps(groups, xlabel="slots", bound=True, level=seeds_of(runs.WITHOUT))
    top, usage, divergence = drawing.axes
    assert top.lines[-1].get_ydata()[0] == pytest.approx(30)
    assert [list(line.get_xdata()) for line in usage.lines][1] == [], "too few look-ups to be shown"
    assert divergence.lines[-1].get_ydata()[0] == pytest.approx(np.log(100 / 90))


def test_speed_is_that_of_the_benchmark():
    groups = {"a": seeds_of(runs.BASE), "b": [], "c": seeds_of(runs.WITHOUT), "d": seeds_of(runs.JOINED)}
    drawing = figures.speed(groups, {"a": 500.0, "b": 600.0, "c": 700.0})
    assert [text.get_text() for text in drawing.legends[0].texts] == ["a", "c"]
    assert [set(line.get_ydata()) for line in drawing.axes[0].lines] == [{500.0}] * 2 + [{700.0}] * 2
    assert figures.speed(groups, {}) is None


def test_flat_keys_are_drawn_from_records():
    seeds = [record(runs.flat_id(128), seed, speed=speed) for seed, speed in enumerate((100.0, 500.0, 20.0))]
    product = [record(runs.keys_id(128), speed=500.0)]
    times = figures.flat_and_product({"product": {16: product}, "flat": {16: seeds}, "none": {16: []}})
    assert all(line.get_ydata().tolist() == [2000] for line in times.axes[1].lines), "of the fastest seed"
    assert [text.get_text() for text in times.legends[0].texts] == ["product", "flat"]


def arrays(layer=5):
    return {
        f"curve_layer{layer}": np.linspace(3, 0, 16), f"map_layer{layer}": np.ones((4, 4)),
        f"slots_layer{layer}": np.array([130]), f"words_layer{layer}": np.array([["▁the", "▁a", "x", "y"]]),
        f"shares_layer{layer}": np.array([[0.5, 0.25, 0.1, 0.001]]),
    }  # fmt: skip


def test_what_is_kept_of_a_memory_is_drawn_and_listed(tmp_path):
    kept = [record(runs.BASE, folder=tmp_path, arrays=arrays())]
    drawing = figures.usage_curves({"with batch norm": kept, "without": []})
    assert [axes.get_title() for axes in drawing.axes] == ["", "with batch norm"]
    said = repr(results.words_table(CHAPTER, {runs.BASE: kept}))
    assert "·the 50%, ·a 25%, x 10%" in said and "y" not in said.split("x 10%")[1].split("\n")[0]
    assert "1, 2" in said  # slot 130 of 128 sub-keys a side
    assert "read at least 20 times and for 4 subwords or more" in said and "0 of the 1 shown" in said
    assert "Subwords: English Wikipedia" in said and "Licence: CC BY-SA 3.0" in said


def test_characters_that_cannot_be_seen_are_named(tmp_path):
    unseen = np.array([["\u2581\xa0", "a\u200b", "\x07", "é"]])
    kept = record(
        runs.BASE,
        folder=tmp_path,
        arrays=arrays() | {"words_layer5": unseen, "shares_layer5": np.full((1, 4), 0.25)},
    )
    said = " ".join(repr(results.words_table(CHAPTER, {runs.BASE: [kept]})).split())
    assert "·[no-break space] 25%, a[zero width space] 25%, [u+0007] 25%, é 25%" in said


def test_use_is_not_drawn_where_look_ups_are_few(tmp_path):
    few = [record(runs.BASE, folder=tmp_path, arrays=arrays(), lookups_per_slot=9.9)]
    assert figures.usage_curves({"with batch norm": few}) is None


def test_words_are_those_of_the_first_model_that_kept_them_and_it_is_named(tmp_path):
    other = [record(runs.GROWN_LIKE, folder=tmp_path, arrays=arrays(layer=2))]
    bare = [record(runs.BASE)]
    said = repr(results.words_table(CHAPTER, {runs.BASE: bare, runs.GROWN_LIKE: other}))
    assert "12 layers of 1024, 1 memory (here 3 of 128), seed 0, memory in layer 2" in " ".join(said.split())
    assert repr(results.words_table(CHAPTER, {runs.BASE: bare})) == "No records yet."


def test_losses_on_a_short_text_are_drawn():
    history = [{"step": 0, "seen": 0, "train_loss": None, "bits_per_token": 9.0},
               {"step": 1, "seen": 512, "train_loss": np.log(2) * 8, "bits_per_token": 8.5}]  # fmt: skip
    data = record(runs.BASE)
    data.data["history"] = history
    lines = figures.memorising({"memory": [data]}).axes[0].lines
    assert [float(line.get_ydata()[0]) for line in lines] == pytest.approx([8.0, 8.5])


def test_facts_are_drawn_with_their_levels():
    by_slots = {"product keys": {n * n: seeds_of(runs.facts_id(16384, f"keys{n}"), stored_bits=50.0 * n, table_bits=98304.0)
                                 for n in (16, 32)}}  # fmt: skip
    level = seeds_of(runs.facts_id(16384, "none"), stored_bits=100.0, table_bits=98304.0)
    drawing = figures.stored({**by_slots, "flat keys": {256: []}}, {"no memory": level}, trunk=level)
    dotted = next(line for line in drawing.axes[0].lines if line.get_linestyle() == ":")
    assert dotted.get_ydata()[[0, -1]].tolist() == pytest.approx([0.1 + 1.536, 0.1 + 6.144], abs=1e-3)
    said = [text.get_text() for text in drawing.legends[0].texts]
    assert said == ["product keys", "no memory, and a fact in every slot", "no memory"]
    assert all(line.get_linestyle() != ":" for line in figures.stored(by_slots, {}, trunk=[]).axes[0].lines)
    sizes = {4096: 24576.0, 8192: 49152.0}
    series = {
        "memory": {
            n: seeds_of(runs.facts_id(n, "keys64"), stored_bits=9.0, table_bits=bits)
            for n, bits in sizes.items()
        }
    }
    diagonal = figures.capacity(series).axes[0].lines[-1]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert diagonal.get_xdata()[0] < 24.576 and 49.152 < diagonal.get_xdata()[1]


EMPTY = {
    "depth": lambda: figures.depth({0: {3: []}}),
    "sweeps": lambda: figures.sweeps({"x": {1: []}}, xlabel="x"),
    "flat": lambda: figures.flat_and_product({"x": {1: []}}),
    "speed": lambda: figures.speed({"x": []}, {"x": 1.0}),
    "usage": lambda: figures.usage_curves({"x": []}),
    "memorising": lambda: figures.memorising({"x": []}),
    "stored": lambda: figures.stored({"x": {1: []}}, {}, trunk=[]),
    "capacity": lambda: figures.capacity({"x": {1: []}}),
}


ONE = {
    "sweeps": lambda: figures.sweeps({"x": {1: [record(runs.BASE)], 2: []}, "y": {1: []}}, xlabel="x"),
    "flat": lambda: figures.flat_and_product({"product": {1: [record(runs.BASE)], 2: [record(runs.BASE)]}, "flat": {1: []}}),
    "capacity": lambda: figures.capacity({"x": {4096: seeds_of(facts("none"), stored_bits=9.0, table_bits=24576.0)}}),
}  # fmt: skip


@pytest.mark.parametrize("draw", ONE.values(), ids=ONE)
def test_nothing_is_drawn_that_compares_nothing(draw):
    assert draw() is None


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_without_records_nothing_is_drawn(draw):
    assert draw() is None


def test_words_are_made_from_records():
    shallow, deep = "depth/d1024_l12_m1", "depth/d1024_l24_m0"
    records = {shallow: [record(shallow)], deep: 2 * [record(deep, perplexity_test=32.0)]}
    (line,) = results.depth_words(CHAPTER, records, [], shallow, deep)
    assert "of 30.0 (1 seed), less than the 32.0 (2 seeds)" in line and "time" not in line
    assert "12 layers of 1024, 1 memory (here 3 of 128)" in line and "no memory (here 6 of 128)" in line
    assert results.depth_words(CHAPTER, {}, [], shallow, deep)[0].endswith("no records of both yet.")
    (line,) = results.search_words({"a text": [record(runs.BASE)], "none": []})
    assert line.startswith("a text, 1 seed: 100.0000%") and "2.0% with only 3 of 8 candidates" in line
    (line,) = results.memorising_words({"memory": [record(runs.BASE)], "none": []})
    assert line == "memory, 1 seed: perplexity 25.0 on text it was trained on, 31.0 on text it was not."
    fact = record(runs.facts_id(16384, "none"), stored_bits=500.0, table_bits=1000.0, recalled=0.4)
    (line,) = results.facts_words({"no memory": [fact]})
    assert line.startswith("no memory, 1 seed: 50.0% of the table's 1,000 bits, 0.50 bits a parameter, 40.0%")
    for empty in (results.search_words({"none": []}), results.facts_words({}),
                  results.memorising_words({}), results.slots_words({256: []}, []), results.joined_words({})):  # fmt: skip
        assert empty == ["No records yet."]


def timed(*seconds, **changes):
    """A run that timed the first of the language models."""
    row = made_up_speed.row(speeds.INFERENCE, seconds=seconds[:2], goal=None, **changes)
    for variant, experiment in zip(row["variants"], runs.TIMED, strict=False):
        variant["name"] = results.stand_in(CHAPTER, experiment)
    return row


def test_arithmetic_is_counted_and_time_is_of_one_run():
    memory, without = runs.TIMED[:2]
    assert (memory, without) == ("depth/d1024_l12_m1", "depth/d1024_l12_m0")
    rows = timed(0.004, 0.002), timed(0.006, 0.002, heap="kept")
    counted, time, why = results.cost_words(CHAPTER, measured(*rows), without, memory)
    assert "0.93 times the multiply-adds" in counted and why.endswith("do not count.")
    assert time.endswith("beside that model: 2.00 times (cpu, default heap), 3.00 times (cpu, kept heap).")
    fast = measured(timed(0.001, 0.002))
    said = results.depth_words(CHAPTER, {}, fast, memory, without)[-1]
    assert said == "Its time of a forward pass beside the deeper model's: 0.50 times (cpu, default heap)."
    assert results.cost_words(CHAPTER, fast, without, memory)[1:] == [
        "Time of a forward pass beside that model: 0.50 times (cpu, default heap)."
    ]
    labels = [results.stand_in(CHAPTER, name) for name in (memory, without)]
    assert speeds.rates(fast) == dict(zip(labels, (1000.0, 500.0), strict=True))


@pytest.mark.parametrize(
    "rows", [(), (made_up_speed.row("layer, 16k slots"),), (timed(0.004, 0.002, disturbed=True),)],
    ids=["none", "without whole models", "disturbed"],
)  # fmt: skip
def test_no_time_is_told_that_was_not_measured_undisturbed(rows):
    found = measured(*rows) if rows else []
    counted, time = results.cost_words(CHAPTER, found, "depth/d1024_l12_m0", "depth/d1024_l12_m1")
    assert "0.93 times the multiply-adds" in counted and time.endswith("is not measured yet.")
    assert speeds.rates(found) == {}


def test_what_a_slot_adds_is_told():
    table = {"table_bits": 98304.0}
    trunk = [record(facts("none"), stored_bits=10000.0, **table)]
    slots = {256: [record(facts("keys16"), stored_bits=17680.0, **table)], 1024: []}
    by_slot, by_parameter = results.slots_words(slots, trunk)
    assert "stores 10,000 of the table's 98,304 bits" in by_slot
    assert f"30.00 of at most {88304 / 256:.2f} with 256 slots; a fact has 6." in by_slot
    many = {16384: [record(facts("keys128"), stored_bits=90000.0, **table)]}
    by_slot, bounded, _ = results.slots_words(many, trunk)
    assert "4.88 of at most 5.39 with 16,384 slots" in by_slot
    assert bounded.startswith("With 16,384 slots the table leaves less than a fact a slot")
    model = slots[256][0].data["config"]["model"]
    d_model, width = model["d_model"], model["memory"]["n_heads"] * model["memory"]["key_dim"]
    own = 256 * d_model + 16 * width + d_model * width + width + 2 * width
    assert counts.memory_parameters(model) == own
    assert by_parameter.endswith(f"{7680 / own:.2f} with 256 slots.")


def test_a_memory_beside_the_feed_forward_layer_is_told():
    costs = {runs.JOINED: 30.0, runs.BASE: 31.0, runs.WITHOUT: 32.0}
    records = {name: [record(name, perplexity_test=cost)] for name, cost in costs.items()}
    (line,) = results.joined_words(records)
    assert line.endswith(
        "30.0 beside the feed-forward layer (1 seed), 31.0 in its place (1 seed), 32.0 without a memory (1 seed)."
    )


def test_what_did_not_reproduce_is_told():
    records = {
        runs.POST_NORM: [record(runs.POST_NORM, perplexity_test=610.0)],
        runs.BASE: [record(runs.BASE)],
    }
    (line,) = departures.post_norm_words(records)
    assert (
        "perplexity of 610.0 (1 seed), with the norm before it 30.0 (1 seed)" in line
        and "alone have 600.0" in line
    )
    (line,) = departures.usage_words(
        CHAPTER, {runs.BASE: [record(runs.BASE, usage=58.0, kl=2.2)], runs.JOINED: []}
    )
    assert "58 percent of the 16,384 slots used, KL 2.2, with batch norm and 50 look-ups a slot" in line
    assert "prints 97.9 and 0.68 for 262k slots" in line
    (line,) = departures.usage_words(CHAPTER, {runs.BASE: [record(runs.BASE, lookups_per_slot=9.9)]})
    assert line.endswith(", 1 seed: 9.9 look-ups for each of 16,384 slots, too few to speak of usage.")
    assert departures.post_norm_words({}) == ["Norm after each sub-layer: no records yet."]
    assert departures.usage_words(CHAPTER, {}) == ["Usage with batch norm: no records yet."]


def test_use_of_the_first_layer_is_set_beside_the_print():
    by_layer = {
        n: [record(runs.position_id(n), usage=use, kl=kl)] for n, use, kl in ((1, 91.0, 1.1), (5, 43.0, 2.4))
    }
    said = departures.layer_words({**by_layer, 6: []})
    assert said.startswith(
        "Table 3 prints the highest divergence from even use for the memory in layer 1, 2.23, beside 0.68"
    )
    assert (
        "Here layer 1 has the lowest of the layers that are recorded. Layer 1, 1 seed: 1.10 to 1.10, 91 percent"
        in said
    )
    assert "layer 5, 1 seed: 2.40 to 2.40, 43 percent" in said
    like = {
        1: [record(runs.position_id(1), kl=2.5)],
        5: by_layer[5],
        6: [record(runs.position_id(6), kl=3.0)],
    }
    assert "Here layer 1 has neither the highest nor the lowest" in departures.layer_words(like)
    assert "has the highest" in departures.layer_words({n: like[n] for n in (1, 5)})
    few = {1: by_layer[1], 5: [record(runs.BASE, lookups_per_slot=9.0)]}
    for missing in ({}, {1: by_layer[1]}, {5: by_layer[5]}, few):
        assert departures.layer_words(missing).endswith("no records of both yet.")


def test_the_speed_of_depth_is_set_beside_the_print():
    memory, without = runs.TIMED[:2]
    said = departures.depth_speed_words(CHAPTER, measured(timed(0.001, 0.002)), memory, without)
    assert "unverified, has 12 layers with memory about twice as fast as 24 layers without" in said
    assert (
        "12 layers of 1024, 1 memory (here 3 of 128) is 2.0 times as fast (cpu, default heap) as 12 layers"
        in said
    )
    assert departures.depth_speed_words(CHAPTER, [], memory, without).endswith("Here it is not measured yet.")


def measured(*rows):
    return [Speed("speed/product_keys/cpu.json", made_up_speed.result(*rows, benchmark="product_keys"))]


def test_the_use_table_leaves_out_what_may_be_chance():
    found = repr(
        results.use_table({"much": [record(runs.BASE)], "little": [record(runs.BASE, lookups_per_slot=2.0)]})
    )
    assert repr(results.use_table({"none": []})) == "No records yet."
    assert "90.0" in found and "not interpreted" in found and found.count("0.70") == 1
    much = next(line for line in found.splitlines() if line.startswith("much"))
    assert much.split()[-1] == "1", "how many seeds the means are over"


def test_what_a_model_reads_is_told():
    said = results.run_words(CHAPTER, runs.BASE)
    assert said.endswith("3,000 updates of 8 segments of 64 subwords, each read without what came before it.")
    assert "memory in layer 5, 16,384 slots, 4 heads, k = 8;" in said
    assert "20,000 updates of 32 segments of 256 subwords" in results.run_words(
        CHAPTER, runs.BASE, profile="gpu"
    )


def test_passes_over_the_training_text_are_those_of_a_record():
    kept = record(runs.BASE)
    kept.data["run"]["seen"] = 1500
    definition = "as perplexity_test, on the same 90 tokens to predict, each at its frequency in the 1,200 tokens of a text"
    kept.data["metrics"]["unigram_perplexity_test"]["definition"] = definition
    assert results.passes_words([kept]).endswith("1,500 tokens of a training text of 1,200: 1.25 passes.")
    assert results.passes_words([]) == "No records yet."


def sized(costs, count=3):
    return {slots: [record(runs.BASE, seed, perplexity_test=cost + spread * seed) for seed in range(count)]
            for slots, (cost, spread) in costs.items()}  # fmt: skip


def test_the_ends_of_the_sweep_are_compared_by_seed():
    said = results.ends_words(sized({64: (30.0, 0.5), 4: (34.0, 0.2), 16: (32.0, -1.5)}))
    low, high = t_interval([4.0, 3.7, 3.4])
    assert f"4 slots minus with 64, paired by seed, 3.70 [{low:.2f}, {high:.2f}], 3 seeds" in said
    assert (
        "Of 2 pairs of neighbouring sizes, none are told apart" in said
        and "the ends of the sweep are:" in said
    )
    said = results.ends_words(sized({4: (31.0, -2.0), 16: (32.0, 0.0), 64: (30.0, 0.01)}))
    assert "1 is told apart" in said and "the ends of the sweep are not:" in said
    for few in (
        {},
        sized({4: (30.0, 0.0), 16: (31.0, 0.0)}),
        sized({4: (3.0, 0.0), 16: (3.0, 0.0), 64: (3.0, 0.0)}, 1),
    ):
        assert results.ends_words(few).startswith("Too few sizes and seeds")


def test_small_models_are_told_from_the_printed_ones():
    name = "depth/d1024_l12_m1"
    assert results.stand_in(CHAPTER, name) == "12 layers of 1024, 1 memory (here 3 of 128)"
    assert results.stand_in(CHAPTER, runs.BASE, profile="gpu") == CHAPTER.experiment(runs.BASE).label
    sizes, memory = results.stand_in_words(CHAPTER)
    assert "3 of 128 for 12 of 1024" in sizes and "6 of 64 for 6 of 512" in sizes
    assert "262,144 slots, of which a head reads 32, stands one of 16,384, of which it reads 8" in memory
    assert "(here 3 of 128)" in results.baselines_table(CHAPTER, {name: [record(name)]}).html
    rows = {row["label"]: row for row in ChapterState(CHAPTER, [record(name)]).table("table1")["rows"]}
    (cell,) = [
        c
        for c in rows["12 layers, 1 memories, width 1024 (at cpu 3 of 128)"]["cells"]
        if c["column"] == "test_ppl"
    ]
    assert cell["values"] == {"cpu": 30.0} and "24 layers, 3 memories, width 1024" in rows
    slots = [row["label"] for row in ChapterState(CHAPTER, []).table("table2_batchnorm")["rows"]]
    assert "262k (at cpu 16,384)" in slots


def test_baselines_stand_with_and_without_records():
    names = ("depth/d1024_l12_m0", "depth/d1024_l12_m1")
    table = repr(results.baselines_table(CHAPTER, {names[0]: [record(names[0])], names[1]: []}))
    config = CHAPTER.experiment(names[1]).configs["cpu"]
    assert f"{results._sizes(config)[0]:,}" in table and "30.0" in table
    with_records, without = (line for line in table.splitlines() if line.startswith("12 layers"))
    assert with_records.split()[-1] == "1" and without.split()[-1] != "0"
    assert table.count("frequencies of subwords alone") == 1 and "600.0" in table
    assert "frequencies" not in repr(results.baselines_table(CHAPTER, {names[1]: []}))
    assert "5,000" not in table, "tokens a second of different runs are not set side by side"
    assert perplexity(record(names[0])) == 30.0


def test_texts_are_shown_with_source_and_licence():
    said = " ".join(repr(results.data_table()).split())
    for profile, budget in FACTS.budgets["text"].items():
        assert profile in said and f"{budget['text']['vocab_size']:,}" in said
    assert "CC BY-SA 3.0" in said and "https://dumps.wikimedia.org/enwiki/" in said and "4,000,000" in said


def test_the_values_are_counted_beside_the_words_of_the_text():
    said = results.extract_words()
    assert (
        "134,217,728 numbers in its values: about 15 for each word of the training text, which is 90% of"
        in said
    )
    assert said.endswith("of 10,093,462 words.")


def test_the_place_of_a_memory_is_read_from_the_printed_rows():
    said = results.place_words()
    assert "lowest perplexity with the memory in layer 5 of 6, which is above the middle" in said
    assert "highest in layer 1 (unverified)" in said


def test_sizes_of_facts_are_those_of_the_budget():
    models = FACTS.budgets["facts"]["cpu"]["models"]
    for kind in ("keys", "flat"):
        for n_keys in runs.facts_sizes(claims.RECALL_FACTS, kind):
            assert f"{kind}{n_keys}" in models[claims.RECALL_FACTS]
    assert claims.RECALL_KEYS == (16, 32, 64, 128)
    assert runs.facts_amounts("keys64") == tuple(sorted(models)) and runs.facts_amounts("keys16") == (16384,)


def test_it_is_said_how_far_the_arithmetic_of_a_sweep_differs():
    names = [runs.topk_id(n) for n in runs.TOPK_TRIED]
    costs = [results._sizes(CHAPTER.experiment(name).configs["cpu"]) for name in names]
    said = results.sweep_words(CHAPTER, names)
    assert (
        f"have {costs[0][0]:,} parameters and take {min(costs)[1]:,} to {max(costs)[1]:,} multiply-adds"
        in said
    )
    few, many = (results._sizes(CHAPTER.experiment(runs.flat_id(n)).configs["cpu"]) for n in runs.FLAT_TRIED)
    said = results.sweep_words(CHAPTER, map(runs.flat_id, runs.FLAT_TRIED))
    assert f"{few[0]:,} to {many[0]:,} parameters" in said and f"{many[1] / few[1]:.2f} times" in said
    assert results.sweep_words(CHAPTER, [runs.WIDER], profile="gpu") == "No such models at profile gpu."


def test_it_is_said_what_the_tests_that_hold_are_about():
    def said(records):
        found = verdicts(records)
        return results.holding_words(CHAPTER, list(found.values())), sum(
            v.verdict == HOLDS for v in found.values()
        )

    assert said([])[0] == (
        "Of the 1 tests that hold, none is on a text or its perplexity; on key-value facts, a task of ours: 0; on what "
        "the code counts, without training: 1."
    )
    line, held = said([r for r in like_the_paper() if r.data["experiment"].startswith("facts/")])
    assert held == 5 and "5 tests that hold, none is on a text" in line and "ours: 4; on what" in line
    line, held = said(like_the_paper())
    assert line.startswith(f"Of the {held} tests that hold, {held - 5} are on a text or its perplexity; ")
    assert results.holding_words(CHAPTER, []) == "No test holds yet."
