"""Chapter 6's claims on made-up records: each holds, fails, and is not tested without its control."""

import pytest

from attn.experiments.ntm import CHAPTER, claims
from attn.experiments.ntm.claims import CLAIMS
from attn.reproduction.claims import FAILS, HOLDS, NOT_TESTED, judge
from attn.reproduction.records import Record
from tests.experiments.made_up import GOOD, PAPER, POOR, record, run_of, seeds_of

TRAINED = [claim for claim in CLAIMS if claim.kind != "arithmetic"]
every_claim = pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.id)


def bits_at(**costs):
    return {f"bits_per_bit_at_{size.lstrip('_')}": value for size, value in costs.items()}


# Copy's NTM with feed-forward controller, whose metrics no claim reads.
COPY_FF = seeds_of("copy/ntm_ff", 5, costs=(9, 0.02))
# Runs like the paper's: what each experiment's learning curve goes from and to, and its metrics.
ENDS = {"right_ends_at_10x10": 0.98, "right_ends_at_10x20": 0.1}
CONTEXT = {"context_free_bits_per_sequence": 186.0, "optimal_bits_per_sequence": 132.0}
LIKE_THE_PAPER = {
    "repeat_copy/ntm_lstm": ((20, 0.1), bits_at(_10x10=0.001, _20x10=0.05, _10x20=0.04) | ENDS),
    "repeat_copy/ntm_ff": ((20, 0.2), bits_at(_10x10=0.001, _20x10=0.1, _10x20=0.1) | ENDS),
    "repeat_copy/lstm": ((20, 0.3), bits_at(_10x10=0.01, _20x10=0.9, _10x20=0.3) | ENDS),
    "associative/ntm_ff": ((18, 0.01), bits_at(_6=0.001, _12=0.01, _20=0.4)),
    "associative/ntm_lstm": ((18, 1), bits_at(_6=0.001, _12=0.2, _20=0.5)),
    "associative/lstm": ((18, 8), bits_at(_6=0.3, _12=1.5, _20=2.0)),
    "ngrams/ntm_lstm": ((200, 134), {"bits_per_sequence": 134.0, "bits_above_optimal": 2.0} | CONTEXT),
    "ngrams/ntm_ff": ((200, 135), {"bits_per_sequence": 135.0, "bits_above_optimal": 3.0} | CONTEXT),
    "ngrams/lstm": ((200, 138), {"bits_per_sequence": 138.0, "bits_above_optimal": 6.0} | CONTEXT),
    "priority_sort/ntm_lstm": ((128, 18), {}),
    "priority_sort/ntm_ff": ((128, 20), {}),
    "priority_sort/lstm": ((128, 58), {}),
    "priority_sort_batch1/ntm_lstm": ((128, 19), {}),
    "priority_sort_batch1/ntm_ff": ((128, 20), {}),
    "priority_sort_batch1/lstm": ((128, 57), {}),
    "priority_sort_one_head/ntm_ff": ((128, 60), {}),
}


def runs(n_seeds=3, changes=None, **options):
    """Records of every experiment but those of copy; `changes` replace costs, metrics or evaluations of some."""
    found = []
    for experiment, (ends, metrics) in LIKE_THE_PAPER.items():
        new_ends, new_metrics, *evaluations = (changes or {}).get(experiment, (None, {}))
        shorter = dict(evaluations=evaluations[0]) if evaluations else {}
        found += seeds_of(
            experiment,
            n_seeds,
            spread=1e-3,
            costs=new_ends or ends,
            metrics=metrics | new_metrics,
            **shorter,
            **options,
        )
    return found


def copy_runs(changes=None):
    """Records of copy, with other costs at some lengths or another learning curve."""
    found = []
    for one in GOOD + COPY_FF + POOR:
        ends, metrics = (changes or {}).get(one.key[1], (None, {}))
        entries = {
            name: entry | {"value": metrics.get(name, entry["value"])}
            for name, entry in one.data["metrics"].items()
        }
        history = record("lstm", costs=ends).history if ends else one.history
        found.append(Record(one.path, one.data | {"metrics": entries, "history": history}))
    return found


def made(claim, changes=None):
    return copy_runs(changes) if claim.id.startswith("copy") else runs(changes=changes)


def verdict(claim, records):
    return judge(claim, PAPER, records, lambda record: "fresh")


def swapped(records, one, other):
    """The records with two experiments' names exchanged."""
    names = {one: other, other: one}
    return [
        Record(r.path, r.data | {"experiment": names.get(r.data["experiment"], r.data["experiment"])})
        for r in records
    ]


# --- verdicts ------------------------------------------------------------------------------------------------


@every_claim
def test_claims_hold_on_runs_like_the_paper_s(claim):
    found = verdict(claim, made(claim))
    assert (found.verdict, found.seeds, found.profile) == (HOLDS, claim.seeds_needed, "cpu"), found.reason
    assert found.control["shown"] and found.estimate == pytest.approx(sum(found.interval) / 2)


SWAPPED = {
    "copy_faster_area": ("copy/ntm_lstm", "copy/lstm"),
    "copy_faster_final": ("copy/ntm_lstm", "copy/lstm"),
    "copy_faster_area_ff": ("copy/ntm_ff", "copy/lstm"),
    "copy_faster_final_ff": ("copy/ntm_ff", "copy/lstm"),
    "copy_generalises_30": ("copy/ntm_lstm", "copy/lstm"),
    "copy_generalises_50": ("copy/ntm_lstm", "copy/lstm"),
    "copy_generalises_120": ("copy/ntm_lstm", "copy/lstm"),
    "copy_generalises_unharmed": ("copy/ntm_lstm", "copy/lstm"),
    "repeat_both_solve_faster_ntm_lstm": ("repeat_copy/ntm_lstm", "repeat_copy/lstm"),
    "repeat_both_solve_faster_ntm_ff": ("repeat_copy/ntm_ff", "repeat_copy/lstm"),
    "repeat_both_solve_length": ("repeat_copy/ntm_lstm", "repeat_copy/lstm"),
    "repeat_both_solve_repeats": ("repeat_copy/ntm_lstm", "repeat_copy/lstm"),
    "assoc_order_controllers": ("associative/ntm_lstm", "associative/ntm_ff"),
    "assoc_order_lstm": ("associative/ntm_lstm", "associative/lstm"),
    "ngram_between_ntm_lstm": ("ngrams/ntm_lstm", "ngrams/lstm"),
    "ngram_between_ntm_ff": ("ngrams/ntm_ff", "ngrams/lstm"),
    "sort_order_ntm_lstm": ("priority_sort/ntm_lstm", "priority_sort/lstm"),
    "sort_order_ntm_ff": ("priority_sort/ntm_ff", "priority_sort/lstm"),
    "sort_order_batch1_ntm_lstm": ("priority_sort_batch1/ntm_lstm", "priority_sort_batch1/lstm"),
    "sort_order_batch1_ntm_ff": ("priority_sort_batch1/ntm_ff", "priority_sort_batch1/lstm"),
    "sort_order_heads": ("priority_sort_batch1/ntm_ff", "priority_sort_one_head/ntm_ff"),
}

# Claims without another side: what would speak against them.
BAD = {
    "copy_generalises_lstm_breaks": {"copy/lstm": (None, {"bits_per_bit_at_30": 0.05})},
    "copy_generalises_50_kept": {"copy/ntm_lstm": (None, {"bits_per_bit_at_50": 0.11})},
    "copy_generalises_120_kept": {"copy/ntm_lstm": (None, {"bits_per_bit_at_120": 0.11})},
    "repeat_both_solve_ntm_lstm": {"repeat_copy/ntm_lstm": ((20, 1.5), {})},
    "repeat_both_solve_ntm_ff": {"repeat_copy/ntm_ff": ((20, 1.5), {})},
    "repeat_both_solve_lstm": {"repeat_copy/lstm": ((20, 1.5), {})},
    "repeat_both_solve_length_kept": {"repeat_copy/ntm_lstm": (None, bits_at(_20x10=0.11))},
    "repeat_both_solve_repeats_kept": {"repeat_copy/ntm_lstm": (None, bits_at(_10x20=0.11))},
    "repeat_both_solve_no_end": {"repeat_copy/ntm_lstm": (None, {"right_ends_at_10x20": 0.98})},
    "assoc_order_12_items": {"associative/ntm_ff": (None, bits_at(_12=1.1 / 18))},
    "ngram_between_not_optimal": {"ngrams/ntm_ff": (None, {"bits_above_optimal": -0.1})},
}


@pytest.mark.parametrize("name", SWAPPED)
def test_claims_fail_when_the_models_change_places(name):
    (claim,) = [claim for claim in TRAINED if claim.id == name]
    found = verdict(claim, swapped(made(claim), *SWAPPED[name]))
    assert found.verdict == FAILS and found.control["shown"]


@pytest.mark.parametrize("name", BAD)
def test_claims_fail_on_bad_runs(name):
    (claim,) = [claim for claim in TRAINED if claim.id == name]
    found = verdict(claim, made(claim, BAD[name]))
    assert found.verdict == FAILS and found.control["shown"]


# Runs in which the control does not show although the difference is as claimed.
UNLEARNED_20, NOT_LEARNED = {"bits_per_bit_at_20": 0.2}, (None, {"bits_per_bit_at_20": 0.2})
NO_CONTEXT, NO_GAIN = {"bits_per_sequence": 190.0}, {"bits_per_sequence": 187.0}
UNCONTROLLED = {
    "copy_faster_area": {"copy/ntm_lstm": ((0.5, 0.5), {})},
    "copy_faster_final": {"copy/ntm_lstm": ((0.5, 0.5), {})},
    "copy_faster_area_ff": {"copy/ntm_ff": ((0.5, 0.5), {})},
    "copy_faster_final_ff": {"copy/ntm_ff": ((0.5, 0.5), {})},
    "copy_generalises_30": {"copy/ntm_lstm": (None, UNLEARNED_20)},
    "copy_generalises_50": {"copy/ntm_lstm": (None, UNLEARNED_20)},
    "copy_generalises_120": {"copy/ntm_lstm": (None, UNLEARNED_20)},
    "copy_generalises_50_kept": {"copy/ntm_lstm": (None, UNLEARNED_20)},
    "copy_generalises_120_kept": {"copy/ntm_lstm": (None, UNLEARNED_20)},
    "copy_generalises_unharmed": {"copy/ntm_lstm": (None, UNLEARNED_20 | {"bits_per_bit_at_30": 0.2})},
    "copy_generalises_lstm_breaks": {"copy/lstm": NOT_LEARNED},
    "repeat_both_solve_ntm_lstm": {"repeat_copy/ntm_lstm": ((0.5, 0.5), {}, 21)},  # 2000 sequences each
    "repeat_both_solve_ntm_ff": {"repeat_copy/ntm_ff": ((0.5, 0.5), {}, 41)},  # 2000 sequences each
    "repeat_both_solve_lstm": {"repeat_copy/lstm": ((0.5, 0.5), {}, 71)},  # 2000 sequences each
    "repeat_both_solve_faster_ntm_lstm": {"repeat_copy/ntm_lstm": ((5, 5), {})},
    "repeat_both_solve_faster_ntm_ff": {"repeat_copy/ntm_ff": ((5, 5), {})},
    **{
        f"repeat_both_solve_{name}": {"repeat_copy/ntm_lstm": (None, bits_at(_10x10=0.2))}
        for name in ("length", "length_kept", "repeats", "repeats_kept")
    },
    "repeat_both_solve_no_end": {"repeat_copy/ntm_lstm": (None, {"right_ends_at_10x10": 0.85})},
    "assoc_order_controllers": {"associative/ntm_ff": ((5, 5), {})},
    "assoc_order_lstm": {"associative/ntm_lstm": ((5, 5), {})},
    "assoc_order_12_items": {"associative/ntm_ff": (None, bits_at(_6=1.1 / 18))},
    "ngram_between_ntm_lstm": {"ngrams/ntm_lstm": (None, NO_GAIN), "ngrams/lstm": (None, NO_CONTEXT)},
    "ngram_between_ntm_ff": {"ngrams/ntm_ff": (None, NO_GAIN), "ngrams/lstm": (None, NO_CONTEXT)},
    "ngram_between_not_optimal": {f"ngrams/{kind}": (None, NO_CONTEXT) for kind in ("ntm_lstm", "ntm_ff")},
    "sort_order_ntm_lstm": {"priority_sort/ntm_lstm": ((18, 18), {})},
    "sort_order_ntm_ff": {"priority_sort/ntm_ff": ((18, 18), {})},
    "sort_order_batch1_ntm_lstm": {"priority_sort_batch1/ntm_lstm": ((19, 19), {})},
    "sort_order_batch1_ntm_ff": {"priority_sort_batch1/ntm_ff": ((19, 19), {})},
    "sort_order_heads": {"priority_sort_batch1/ntm_ff": ((20, 20), {})},
}


@pytest.mark.parametrize("name", UNCONTROLLED)
def test_claims_are_not_tested_without_their_control(name):
    (claim,) = [claim for claim in TRAINED if claim.id == name]
    found = verdict(claim, made(claim, UNCONTROLLED[name]))
    assert found.verdict == NOT_TESTED and found.control is not None and not found.control["shown"]
    assert found.interval[0] > 0 or claim.kind == "equality", "the difference is as claimed"
    assert found.reason == "the positive control does not show at this budget"


def test_every_claim_has_its_cases():
    ids = {claim.id for claim in TRAINED}
    assert set(SWAPPED) | set(BAD) == set(UNCONTROLLED) == ids
    assert not set(SWAPPED) & set(BAD)


@every_claim
def test_as_many_seeds_as_a_claim_needs(claim):
    records = made(claim)
    short = [r for r in records if r.seed < claim.seeds_needed - 1]
    found = verdict(claim, short)
    assert (found.verdict, found.seeds) == (NOT_TESTED, claim.seeds_needed - 1)
    assert f"needs {claim.seeds_needed} seeds" in found.reason
    for experiment in claim.experiments:
        assert verdict(claim, [r for r in records if r.key[1] != experiment]).verdict == NOT_TESTED, (
            experiment
        )


def test_three_seeds_suffice_but_for_copy_s_claims():
    needed = {claim.id: claim.seeds_needed for claim in TRAINED}
    assert needed == {name: 5 if name.startswith("copy") else 3 for name in needed}
    assert [claim.id for claim in CLAIMS if claim.headline] == [
        name for name, seeds in needed.items() if seeds == 5
    ]
    for claim in TRAINED:
        profiles = [CHAPTER.experiment(name).seeds["cpu"] for name in claim.experiments]
        assert min(profiles) >= claim.seeds_needed, "the facts' budget has them"


@every_claim
def test_records_without_what_a_claim_reads_leave_it_untested(claim):
    bare = [Record(r.path, r.data | {"metrics": {}, "history": r.history[:1]}) for r in made(claim)]
    found = verdict(claim, bare)
    assert found.verdict == NOT_TESTED and "do not hold what the claim needs" in found.reason


# --- what they measure -----------------------------------------------------------------------------------------


def difference(name, changes=None):
    """A claim's difference at seed 0, and its unit."""
    (claim,) = [claim for claim in TRAINED if claim.id == name]
    group = {r.key[1]: r for r in made(claim, changes) if r.seed == 0}
    return claim.difference({name: group[name] for name in claim.experiments}), claim.unit


def test_areas_are_differences_of_mean_costs():
    # straight curves: the mean is half-way
    assert difference("copy_faster_area") == (
        pytest.approx((9 + 2) / 2 - (9 + 0.01) / 2),
        "bits per sequence",
    )
    assert difference("assoc_order_lstm")[0] == pytest.approx((18 + 8) / 2 - (18 + 1) / 2)
    assert difference("assoc_order_controllers")[0] == pytest.approx((18 + 1) / 2 - (18 + 0.01) / 2)


def test_final_costs_are_medians_of_the_last_five_evaluations():
    # the third of the last five lies two hundredths before the end of a straight curve
    assert difference("sort_order_ntm_lstm")[0] == pytest.approx((58 - 18) + 0.02 * ((128 - 58) - (128 - 18)))
    assert difference("sort_order_heads")[0] == pytest.approx((60 - 20) + 0.02 * ((128 - 60) - (128 - 20)))


def test_thresholds_are_the_margins_of_the_facts():
    margins = {name: margin["value"] for name, margin in PAPER.margins.items()}
    level = margins["repeat_copy_solved"]
    found = difference("repeat_both_solve_ntm_ff", {"repeat_copy/ntm_ff": ((level, level), {})})
    assert found == (pytest.approx(0), "bits per sequence")
    answer = margins["associative_recalled"]  # of three vectors of six bits
    found = difference("assoc_order_12_items", {"associative/ntm_ff": (None, bits_at(_12=answer / 18))})
    assert found == (pytest.approx(0), "bits per answer")
    kept = difference(
        "repeat_both_solve_repeats_kept",
        {"repeat_copy/ntm_lstm": (None, bits_at(_10x20=margins["repeat_copy_beyond"]))},
    )
    assert kept == (pytest.approx(0), "bits per output bit")
    for length in (50, 120):
        beyond = {f"bits_per_bit_at_{length}": margins["copy_beyond"]}
        found = difference(f"copy_generalises_{length}_kept", {"copy/ntm_lstm": (None, beyond)})
        assert found == (pytest.approx(0), "bits per output bit")
    harmed = {"bits_per_bit_at_20": 0.05, "bits_per_bit_at_30": 0.05 + margins["copy_length_30"]}
    assert difference("copy_generalises_lstm_breaks", {"copy/lstm": (None, harmed)})[0] == pytest.approx(0)


def test_the_n_gram_claims_compare_costs_on_the_same_sequences():
    assert difference("ngram_between_ntm_lstm") == (pytest.approx(4), "bits per sequence")
    assert difference("ngram_between_not_optimal")[0] == pytest.approx(2), "the better NTM"
    nearer = {"ngrams/ntm_ff": (None, {"bits_above_optimal": 0.5})}
    assert difference("ngram_between_not_optimal", nearer)[0] == pytest.approx(0.5)


def test_generalisation_of_repeat_copy_is_measured_at_its_size():
    assert difference("repeat_both_solve_length")[0] == pytest.approx(0.9 - 0.05)
    assert difference("repeat_both_solve_repeats")[0] == pytest.approx(0.3 - 0.04)
    assert difference("repeat_both_solve_no_end") == (pytest.approx(0.98 - 0.1), "share of sequences")


def test_copy_that_both_models_learn_is_no_difference():
    equal = [
        Record(r.path, r.data | {"experiment": experiment})
        for experiment in ("copy/ntm_lstm", "copy/lstm")
        for r in GOOD
    ]
    for name in ("copy_faster_area", "copy_faster_final", *(f"copy_generalises_{n}" for n in (30, 50, 120))):
        (claim,) = [claim for claim in TRAINED if claim.id == name]
        assert verdict(claim, equal).verdict == FAILS, name


# --- declarations ------------------------------------------------------------------------------------------------


def test_claims_name_what_there_is():
    ids = {experiment.id for experiment in CHAPTER.experiments}
    for claim in CLAIMS:
        assert PAPER.claim(claim.fact) and claim.id.startswith(claim.fact)
        assert set(claim.experiments) <= ids
        assert claim.margin is None or PAPER.margins[claim.margin]["unit"] == claim.unit
        assert claim.measure and (claim.unit or claim.kind == "arithmetic")
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert CHAPTER.claims == CLAIMS


def test_margins_say_when_they_were_written():
    """A level that was set when results were known is told so where it stands, and where it is tested."""
    after = {"copy_beyond", "learned", "repeat_copy_beyond"}
    for name, margin in PAPER.margins.items():
        assert "written" in margin["why"], name
        assert ("written when" in margin["why"]) == (name in after), name
    measures = {claim.id: claim.measure for claim in TRAINED}
    for name in ("copy_generalises_50_kept", "copy_generalises_120_kept"):
        assert measures[name].endswith("(a level written after the runs)")
    repeats = ("repeat_both_solve_faster_ntm_lstm", "repeat_both_solve_faster_ntm_ff")
    for name in ("copy_faster_area_ff", "copy_faster_final_ff", *repeats):
        assert measures[name].endswith("(a test written after the runs)")
    for name in ("sort_order_batch1_ntm_lstm", "sort_order_batch1_ntm_ff"):
        assert (
            "added when runs with 16 were known; the LSTM's learning rate rests on one seed" in measures[name]
        )


def test_controls_say_when_they_were_changed():
    changed = {"copy_faster", "sort_order_ntm", "sort_order_batch1", "ngram_between_ntm"}
    changed |= {f"repeat_both_solve_{kind}" for kind in ("ntm", "lstm")}
    for claim in TRAINED:
        said = claim.control.statement.endswith("(a control changed after the runs)")
        assert said == claim.id.startswith(tuple(changed)), claim.id


@every_claim
def test_a_control_is_of_the_model_that_is_said_to_be_better(claim):
    """It needs no record of another model, so that no claim rests on what the worse model learns."""
    better = claim.experiments[0]
    group = {r.key[1]: r for r in made(claim) if r.seed == 0}
    if claim.id != "ngram_between_not_optimal":
        group = {better: group[better]}
    assert claim.control.difference(group) > 0


@pytest.mark.parametrize(("kind", "thousands"), [("ntm_lstm", 50), ("ntm_ff", 100), ("lstm", 150)])
def test_solving_is_tested_from_where_the_paper_s_curve_is_at_its_floor(kind, thousands):
    (claim,) = [claim for claim in TRAINED if claim.id == f"repeat_both_solve_{kind}"]
    for evaluations, readings in ((thousands // 2, 0), (thousands // 2 + 1, 1)):
        run = run_of(f"repeat_copy/{kind}", costs=(20, 0.5), evaluations=evaluations)
        assert claim.control.difference({f"repeat_copy/{kind}": run}) == readings


def test_every_claim_of_the_paper_is_tested():
    assert {claim.fact for claim in CLAIMS} == {fact.id for fact in PAPER.claims}


@every_claim
def test_claims_need_only_metrics_of_recorded_sizes(claim):
    """The made-up records, on which every claim holds, have no others."""
    for made_up in made(claim):
        if made_up.key[1] not in claim.experiments:
            continue
        measured = {name.split("_at_")[1] for name in made_up.data["metrics"] if "_at_" in name}
        configs = CHAPTER.experiment(made_up.key[1]).configs
        for profile in set(configs) - {"ci"}:
            assert measured <= {"x".join(map(str, size)) for size in configs[profile].test_sizes}, profile


def test_parameters_do_not_depend_on_the_number_of_slots(monkeypatch):
    (claim,) = [claim for claim in CLAIMS if claim.kind == "arithmetic"]
    assert verdict(claim, []).verdict == HOLDS
    slots = {"128 x 20": 1, "256 x 20": 2}
    monkeypatch.setattr(claims, "parameters", lambda kind: lambda row: slots[row["memory"]])
    assert verdict(claim, []).verdict == FAILS
