"""What chapter 5 counts, and what it says of the benchmark: rows that are touched, multiplications, sizes, times."""

import torch

from attn.experiments.product_keys import CHAPTER, concepts, counts, runs, speeds
from attn.product_keys import ProductKeyMemory
from attn.reproduction.facts import load_papers
from attn.reproduction.speed import Speed
from tests.reproduction import made_up_speed

FACTS = load_papers()[runs.PAPER]


def measured(*rows):
    return [Speed("speed/product_keys/cpu.json", made_up_speed.result(*rows, benchmark="product_keys"))]


def test_multiplications_of_numbers_are_counted_and_of_places_are_not():
    left, right = torch.ones(3, 4), torch.ones(4, 5)
    with concepts.Multiplications() as counter:
        left @ right  # 60
        left * 2.0  # 12
        left.addcmul_(left, left)  # 12
        right.mv(torch.ones(5))  # 20
        torch.einsum("ab,ab->a", left, left)  # 12
        left + left
        torch.arange(6) * 7
    assert counter.total == 60 + 12 + 12 + 20 + 12


def test_figures_that_speed_misses_are_listed():
    step = made_up_speed.row("step, 262k slots", seconds=(0.002, 0.003), goal=1.7)
    layer = made_up_speed.row("layer, 16k slots", seconds=(0.002, 0.003), goal=1.15)
    (line,) = speeds.missed_words(measured(step, layer))
    assert line.startswith("step, 262k slots, default heap: theirs takes 1.50 times as long")
    rows = speeds.touched("262k", speeds.STEP_QUERIES)
    assert "1.7 was to be reached. The 1,024 queries of the step read " in line
    assert line.endswith(
        f"{rows:,} of 262,144 rows: a dense update visits {512**2 / rows:.1f} times as many."
    )
    (other,) = speeds.missed_words(measured({**step, "name": "layer, 262k slots"}))
    assert other.endswith("1.7 was to be reached.")
    assert speeds.missed_words(measured(layer)) == ["The layer's benchmark reaches all of its figures."]
    assert speeds.missed_words([]) == ["Speed of the layer: not measured yet."]


def test_optimisers_against_which_a_figure_would_be_reached_are_told():
    row = made_up_speed.row("step, 262k slots", seconds=(0.002, 0.003), goal=1.7)
    theirs = row["variants"][1]
    row["goal"]["against"] = theirs["name"] = "a package, fused Adam"
    for name, seconds in (("a package, Adam", 0.0034), ("a package, SparseAdam", 0.0033), ("plain", 0.008)):
        row["variants"].append({**theirs, "name": name, "seconds": seconds, "ratio": seconds / 0.002})
    (line,) = speeds.missed_words(measured(row))
    assert (
        "1.7 was to be reached. Against the package's layer with Adam (1.70) it would be reached. The 1,024"
        in line
    )


def grown(what, heap="default"):
    return [
        made_up_speed.row(f"{part} {what}", heap, seconds=seconds, goal=None)
        for part, seconds in (("step", (0.150, 0.050)), ("search", (0.080, 0.020)))
    ]


def test_growth_is_split_into_search_and_rest_and_rows_are_counted():
    many, few = speeds.GROWTH
    counted, line, fewest, missing = speeds.growth_words(measured(*grown(many)))
    assert (
        "from 50.0 to 150.0 ms, 3.0-fold, and the search in it 4.0-fold" in line
        and "60% of what is added, and the step without it grows 2.33-fold, more than the rows touched"
        in line
    )
    first, last = (speeds.touched(name, speeds.GROWTH[many]) for name in ("16k", "1M"))
    assert counted.startswith(f"{speeds.GROWTH[many]} queries look up 32,768 rows.")
    assert f"{first:,} with 16k" in counted and counted.endswith(f"1M slots, {last / first:.2f}-fold.")
    assert line.endswith(f"rows touched, {last / first:.2f}-fold.") and last / first < 7 / 3
    assert last > 2 * first, "more queries touch more rows of a larger table"
    assert fewest.startswith(f"{speeds.GROWTH[few]} queries look up 2,048 rows.")
    assert speeds.touched("1M", speeds.GROWTH[few]) < 1.1 * speeds.touched("16k", speeds.GROWTH[few])
    assert missing == "A step with them is not measured yet."
    assert "not measured" not in " ".join(speeds.growth_words(measured(*grown(many), *grown(few))))
    assert sum("not measured" in said for said in speeds.growth_words(measured(grown(many)[0]))) == 2


def test_steps_that_outgrow_their_rows_are_told():
    many, few = speeds.GROWTH
    (line,) = speeds.outgrown_words(measured(*grown(many), *grown(many, "kept")))
    assert line.startswith(
        f"A step of {speeds.GROWTH[many]} queries, the search taken off, grows 2.33-fold (cpu, default"
    )
    assert " and 2.33-fold (cpu, kept heap) from the fewest to the most slots" in line
    step, search = grown(many)
    step["variants"][0]["seconds"] = 0.11  # 0.03 of it without the search, as with the fewest slots
    (_, said, *_) = speeds.growth_words(measured(step, search))
    assert "grows 1.00-fold, no more than the rows touched" in said
    assert speeds.outgrown_words(measured(step, search)) == [] == speeds.outgrown_words([])


def test_rows_that_are_touched_are_counted_once_and_with_one_seed():
    sizes = {"d_model": 8, "topk": 2, "key_dim": 4, "n_heads": 3}
    state = torch.get_rng_state()
    found = concepts.touched_rows(6, 40, **sizes)
    assert torch.equal(torch.get_rng_state(), state), "the page's own draws stay as they are"
    torch.manual_seed(0)
    memory = ProductKeyMemory(n_keys=6, **sizes)
    memory(concepts.drawn_inputs(40, 8).unsqueeze(0)).sum().backward()
    assert len(memory.values.grad.coalesce().values()) == found < 36


def test_what_an_update_touches_is_told_for_each_profile():
    found = {each.profile: each for each in concepts.touched_at_profiles(at_most=64)}
    lookups = {name: each.lookups / each.n_slots for name, each in found.items()}
    assert lookups == {"cpu": 1, "gpu": 4, "paper": 64}
    for profile, each in found.items():
        config = CHAPTER.experiment(runs.BASE).configs[profile]
        assert each.n_tokens == config.training.batch_size and each.n_slots == config.model.memory.n_keys**2
        assert each.counted == 64 and 0 < each.rows <= 64 * 4 * config.model.memory.topk


def test_it_is_said_where_not_all_tokens_of_an_update_were_counted(monkeypatch):
    few = concepts.Touched("paper", 100, 1000, 6400, 50, 970)
    monkeypatch.setattr(counts, "touched_at_profiles", lambda: [few, few._replace(counted=100)])
    part, whole = counts.touched_words()
    assert part.startswith("paper: the 100 subwords of an update (a guess of ours) make")
    assert part.endswith(
        "6.4 a slot, and touch at least 97% of the 1,000 slots, as many as 50 of them touch."
    )
    monkeypatch.setattr(counts, "touched_at_profiles", lambda: [few._replace(profile="cpu")])
    assert counts.touched_words()[0].startswith("cpu: the 100 subwords of an update make")
    assert whole.endswith("6.4 a slot, and touch 97% of the 1,000 slots.")


def test_wide_times_are_told_though_no_probe_was_slow():
    row = made_up_speed.row("step, 1M slots", "kept", seconds=(0.5, 6.6))
    assert speeds.wide_words(measured(row)) == []
    row["variants"][1]["quartiles"] = [4.4, 6.8]
    (line,) = speeds.wide_words(measured(row))
    assert "step, 1M slots, kept heap, theirs [4,400, 6,800]. Ratios" in line and "33% of the median" in line
    assert speeds.wide_words(measured({**row, "disturbed": True})) == [] == speeds.wide_words([])


def test_look_ups_are_read_beside_a_copy():
    rows = [made_up_speed.row(f"lookup, {name} slots", seconds=seconds, goal=None)
            for name, seconds in (("16k", (0.02, 0.01)), ("262k", (0.04, 0.01)))]  # fmt: skip
    line, asked = speeds.lookup_words(measured(*rows))
    assert line.endswith("50% with 16k slots (34 MB, 8.0 reads a row on average) and 25% with 262k slots (537 MB, 0.5 "
                         "reads a row on average).")  # fmt: skip
    assert asked == "On a GPU 60% is to be reached; nothing is asked of a CPU."
    for none in ([], measured({**rows[0], "disturbed": True})):
        assert speeds.lookup_words(none) == ["Reading rows: not measured yet."]


def test_the_most_trained_model_of_facts_and_its_slots():
    assert runs.facts_swept() == "keys64"
    assert [runs.facts_slots(name) for name in ("keys64", "keys64_no_bn", "wide64", "flat32")] == [
        4096,
        4096,
        4096,
        1024,
    ]


def test_every_printed_model_is_counted_at_the_paper_s_size():
    grid = counts._printed_rows()
    n_rows = {table.id: len(table.rows) for table in FACTS.tables}
    assert len(grid) == n_rows["table1"] + 2 * n_rows["table2_batchnorm"] + 1
    said = " ".join(repr(counts.sizes_table()).split())
    for experiment in ("depth/d1024_l12_m0", "depth/d1600_l16_m1", runs.BASE, runs.keys_id(1024, False)):
        config = CHAPTER.experiment(experiment).configs["paper"]
        size = runs.n_parameters(config.model, vocab_size=config.text.vocab_size, max_len=config.block)
        assert f" {size:,} " in said
    (memory, _) = FACTS.exact_fact("memory_params")["values"]
    (cost,) = FACTS.exact_fact("search_cost")["values"]
    assert f" {memory['total']:,} {cost['product']:,} {cost['flat']:,} " in said
    assert f" {2 * memory['total']:,} " in said and "524,288 536,870,912" in said


def test_positions_of_a_memory_do_not_change_a_model_s_size():
    configs = [CHAPTER.experiment(runs.position_id(n)).configs["paper"].model for n in range(1, 7)]
    assert len({runs.n_parameters(config) for config in configs}) == 1


def test_what_a_token_reads_and_what_equal_parameters_would_cost():
    assert counts.read_words().startswith("A token reads 4 heads x 32 = 128 of 262,144 values at most, 0.05%")
    lines = dict(line.split(": ", 1) for line in counts.grown_words())
    assert list(lines) == list(FACTS.budgets["text"])
    assert [profile for profile, line in lines.items() if line.endswith("; left out.")] == ["gpu", "paper"]
    assert (
        lines["cpu"].endswith("; trained.") and "in place of 512, or 13 layers in place of 3" in lines["cpu"]
    )
    wide = CHAPTER.experiment(runs.WIDER).configs["cpu"].model
    assert f"layers of {wide.d_ff:,} units" in lines["cpu"]


def test_the_facts_say_how_much_text_a_prediction_sees_and_what_is_a_guess():
    ours = {deviation.id: deviation.ours for deviation in FACTS.deviations}
    budgets = FACTS.budgets["text"]
    block = {profile: budget["training"]["block"] for profile, budget in budgets.items()}
    assert (
        f"{block['cpu']} tokens at cpu, {block['gpu']} at gpu and {block['paper']} at paper"
        in ours["context"]
    )
    heads = {profile: {*budgets[profile]["sizes"]["heads"].values()} for profile in ("cpu", "gpu")}
    assert heads == {"cpu": {4}, "gpu": {8}}
    at_cpu, at_gpu = ours["sizes"].split("; ")
    assert "4 attention heads" in at_cpu and "8 attention heads" in at_gpu
    paper = budgets["paper"]["training"]
    assert {*paper["steps"].values()} == {200_000} and paper["n_rows"] == 256
    assert "at paper 256 sequences an update and 200,000 updates, a guess" in ours["recipe_unknown"]


def test_the_facts_say_what_batch_norm_takes_its_statistics_of():
    (found,) = [deviation for deviation in FACTS.deviations if deviation.id == "batch_norm_parts"]
    assert "The budgets at cpu read a batch in one part" in found.ours
    assert all(
        e.configs["cpu"].training.grad_accum_steps == 1 for e in CHAPTER.experiments if "cpu" in e.configs
    )
