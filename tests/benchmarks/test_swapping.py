"""What the benchmark of swapped parameters copies and calls, and that the page reads it. How fast is no matter here."""

import pytest
import torch

from attn.experiments.reformer import swapping as page
from attn.reproduction.speed import check_speed
from benchmarks import swapping, timing
from tests.reproduction import made_up_speed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A narrow stack, and one call a round."""
    for name, size in {"D_MODEL": 8, "N_HEADS": 2, "D_FF": 16, "DEPTH": 2, "LENGTH": 4}.items():
        for module in (page, swapping):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, size)
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(timing, "probe", lambda device: 100.0)


def test_the_page_reads_what_is_measured(tmp_path):
    found = [timing.measure(row, CPU, rounds=1) for row in swapping.rows()]
    data = made_up_speed.result(
        *({"heap": "kept", "disturbed": False, **row} for row in found), benchmark=page.BENCHMARK
    )
    check_speed(data)
    made_up_speed.store(tmp_path, data)
    (rates,) = page.measured(tmp_path)
    copies, *steps = ({v["name"]: v["seconds"] for v in row["variants"]} for row in found)
    assert rates.copying == pytest.approx(2 * copies[page.FETCHING] + copies[page.SENDING])
    tokens = [4 * batch for batch in page.BATCHES]
    assert rates.steps == tuple(
        page.Step(n, at[page.RESIDENT], at[page.SWAPPED]) for n, at in zip(tokens, steps, strict=True)
    )
    weights = page.count(page.stack())
    assert rates.machine.bandwidth == pytest.approx(3 * 4 * weights / rates.copying)
    assert rates.machine.flops == pytest.approx(8 * weights * tokens[-1] / steps[-1][page.RESIDENT])


def test_copies_move_every_parameter_and_as_much_back(monkeypatch):
    made, copied = [], []
    stack = page.stack
    monkeypatch.setattr(swapping, "stack", lambda: made.append(stack()) or made[-1])
    copy = torch.Tensor.copy_
    variants = swapping.copies(CPU)

    def counting(target, source, **options):
        assert target.data_ptr() != source.data_ptr()
        copied.append(target.numel())
        return copy(target, source, **options)

    monkeypatch.setattr(torch.Tensor, "copy_", counting)
    for call in variants.values():
        copied.clear()
        call()
        assert copied == [p.numel() for p in made[0].parameters()]


def test_a_step_with_swapping_is_one_without():
    found = swapping.steps(CPU, 2)
    swapped, resident = found[page.SWAPPED], found[page.RESIDENT]
    assert [*found] == [page.SWAPPED, page.RESIDENT]
    assert swapped.model.swap_parameters and not resident.model.swap_parameters
    swapped.model.load_state_dict(resident.model.state_dict())
    inputs = torch.randn_like(resident.inputs)
    torch.testing.assert_close(swapped.model(inputs), resident.model(inputs))
    for step in found.values():
        step()
        assert step.inputs.grad is None and all(p.grad is None for p in step.model.parameters())


def test_memory_has_the_parameters_that_stay_on_the_device():
    step = swapping.steps(CPU, 1)[page.RESIDENT]
    weights = 4 * page.count(step.model)
    assert step.resident == weights
    assert swapping.held(step) > 2 * weights  # and their gradients
    away = swapping.Step(step.model.to("meta"), torch.randn(1, 4, 8))  # as on a GPU: parameters are elsewhere
    assert away.resident == 0


def test_sizes_are_those_of_the_stack():
    model = page.stack()
    functions = [page.count(function) for block in model.blocks for function in block]
    assert page.sizes() == (sum(functions), max(functions)) == (page.count(model), max(functions))
