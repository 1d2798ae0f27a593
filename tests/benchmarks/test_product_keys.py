"""What the benchmark of product-key memory calls and how its rows are named. How fast is no matter here."""

from dataclasses import replace

import pytest
import torch

from attn.experiments.product_keys import CHAPTER, results, speeds
from attn.experiments.product_keys.runs import TIMED
from attn.product_keys import FlatKeys
from attn.reproduction.speed import Speed, check_speed
from benchmarks import product_keys, timing
from tests.reproduction import made_up_speed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Layers of a few numbers, two language models, and one call a round."""
    sizes = {"D_MODEL": 8, "D_FF": 16, "N_HEADS": 2, "TOPK": 2, "KEY_DIM": 4, "FEW_QUERIES": 64}
    for name, size in sizes.items():
        monkeypatch.setattr(product_keys, name, size)
    config = product_keys.timed_config
    monkeypatch.setattr(product_keys, "TIMED", TIMED[:2])
    monkeypatch.setattr(product_keys, "timed_config", lambda name: replace(config(name), evaluation_rows=2))
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(timing, "probe", lambda device: 100.0)


def rows():
    return {row.name: row for row in product_keys.rows()}


def measured(row):
    """A result with this row, as the page reads it."""
    found = {"heap": "default", "disturbed": False, **timing.measure(row, CPU, rounds=1)}
    data = made_up_speed.result(found, benchmark="product_keys")
    check_speed(data)
    return [Speed("speed/product_keys/cpu.json", data)]


def test_rows_have_names_of_their_own():
    assert len(rows()) == len(product_keys.rows())


def test_language_models_are_timed_by_the_names_that_the_page_reads():
    row = rows()[speeds.INFERENCE]
    config = product_keys.timed_config(TIMED[0])
    assert row.units == 2 * config.block and config.model == CHAPTER.experiment(TIMED[0]).configs["cpu"].model
    found = measured(row)
    labels = [results.stand_in(CHAPTER, name) for name in TIMED[:2]]
    assert list(speeds.rates(found)) == labels
    (ratio,) = speeds.time_ratios(found, *labels).values()
    assert ratio == pytest.approx(1 / found[0].data["rows"][0]["variants"][1]["ratio"])


@pytest.mark.parametrize("kind", ["flat", "flat step"])
def test_flat_keys_are_the_other_variant_and_nothing_is_asked_of_them(kind):
    row = rows()[f"{kind}, 16k slots"]
    variants = product_keys.build_flat_step(CPU, 4) if "step" in kind else product_keys.build_flat(CPU, 4)
    assert list(variants) == [product_keys.OURS, product_keys.FLAT] and row.peak is None
    assert row.goal is None, "a figure of 1 could not be missed"
    for call in variants.values():
        call()


def test_a_flat_step_updates_keys_and_values(monkeypatch):
    made, make = [], product_keys.ours

    def remembering(n_keys, **settings):
        made.append(make(n_keys, **settings))
        return made[-1]

    monkeypatch.setattr(product_keys, "ours", remembering)
    step = product_keys.build_flat_step(CPU, 4)[product_keys.FLAT]
    (flat,) = [memory for memory in made if isinstance(memory.keys, FlatKeys)]
    before = [parameter.detach().clone() for parameter in (flat.keys.keys, flat.values)]
    step()
    moved = [(a != b).any().item() for a, b in zip(before, (flat.keys.keys, flat.values), strict=True)]
    assert moved == [True, True]


@pytest.mark.parametrize("what", speeds.GROWTH)
def test_a_growing_step_is_named_by_the_rows_it_touches(monkeypatch, what):
    monkeypatch.setattr(product_keys, "SLOTS", {"16k": 3, "65k": 4, "262k": 6, "1M": 12})
    monkeypatch.setattr(torch.nn.Module, "zero_grad", lambda self: None)  # so that gradients can be looked at
    made, make = [], product_keys.ours
    monkeypatch.setattr(product_keys, "ours", lambda n_keys: made.append(make(n_keys)) or made[-1])
    row = rows()[f"step {what}"]
    steps = row.build(CPU)
    for (name, call), memory in zip(steps.items(), made, strict=True):
        call()
        touched = len(memory.values.grad.coalesce().values())
        assert name.endswith(f" slots, {touched} rows")
    smallest = list(steps)[-1]
    assert row.goal.against == smallest and row.goal.ratio == 0.25 and row.units == speeds.GROWTH[what]
    names = [f"search, {name} slots" for name in ("1M", "262k", "65k", "16k")]
    assert list(rows()[f"search {what}"].build(CPU)) == names
