"""What the benchmark of table 3's models calls, and that the page reads it. How fast is no matter here."""

import pytest
import torch

from attn.experiments.reformer import model_types as page
from attn.reproduction.speed import check_speed
from benchmarks import model_types, timing
from tests.reproduction import made_up_speed

CPU = torch.device("cpu")
SMALL = {
    "l": {"b": 1, "nh": 2, "dff": 8, "dmodel": 8, "nr": 2, "c": 16**2, "nl": 2},
    "nl": {"b": 2, "nh": 2, "l": 32, "dff": 256, "dmodel": 8, "nr": 2, "c": 16**2},
}
VALUES = {"l": (64, 256), "nl": (2, 6)}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Narrow models, short and shallow, and one call a round."""
    for module in (page, model_types):
        monkeypatch.setattr(module, "SIZES", SMALL)
        monkeypatch.setattr(module, "VALUES", VALUES)
    monkeypatch.setattr(page, "HEAD_DIM", 4)
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(timing, "probe", lambda device: 100.0)


def held(size, value, kind):
    step = model_types.steps(CPU, {**SMALL[size], size: value})[kind]
    step()
    return model_types.held(step)


def test_the_page_reads_what_is_measured(tmp_path):
    found = [timing.measure(row, CPU, rounds=1) for row in model_types.rows()]
    data = made_up_speed.result(
        *({"heap": "kept", "disturbed": False, **row} for row in found), benchmark=page.BENCHMARK
    )
    check_speed(data)
    made_up_speed.store(tmp_path, data)
    measured = page.measured(tmp_path)
    assert [*measured] == ["l", "nl"]
    for size, models in measured.items():
        assert [*models] == page.kinds()
        for kind, one in models.items():
            assert one.peak.sizes == one.seconds.sizes == VALUES[size]
            rows = [
                row for row in found if row["name"] in {page.row_name(size, value) for value in VALUES[size]}
            ]
            for what, way in (("peak_bytes", one.peak), ("seconds", one.seconds)):
                assert way.values == tuple(
                    v[what] for row in rows for v in row["variants"] if v["name"] == kind
                )


def test_reversible_models_hold_as_much_whatever_the_depth():
    states = (6 - 2) * torch.get_rng_state().numel()  # kept for each layer that draws rotations
    for kind, kept in (("Reformer", states), ("Reversible Transformer", 0)):
        assert held("nl", 6, kind) - kept < 1.02 * held("nl", 2, kind)
    for kind in ("Transformer", "LSH Transformer"):
        assert held("nl", 6, kind) > 2 * held("nl", 2, kind)


def test_chunks_hold_less_where_the_feed_forward_layer_is_wide():
    assert held("nl", 2, "Chunked Reversible Transformer") < held("nl", 2, "Reversible Transformer")


def test_full_attention_holds_its_weights():
    assert held("l", 256, "Transformer") > 8 * held("l", 64, "Transformer")
    assert held("l", 256, "Reformer") < 5 * held("l", 64, "Reformer")


def test_a_step_computes_every_gradient_and_leaves_none():
    step = model_types.steps(CPU, {**SMALL["nl"], "nl": 2})["Reversible Transformer"]
    parameters = [*step.model.parameters()]
    seen = []
    for number, parameter in enumerate(parameters):
        parameter.register_post_accumulate_grad_hook(lambda p, number=number: seen.append(number))
    step()
    assert sorted(seen) == [*range(len(parameters))]
    assert all(p.grad is None for p in parameters) and step.inputs.grad is None
    layers = [sum(4 * p.numel() for p in block.parameters()) for block in step.model.blocks]
    assert step.done == sum(layers[1:])
