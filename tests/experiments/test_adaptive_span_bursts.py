"""A hidden key's derivative by the span, and which runs are said to have had a burst."""

from math import exp
from pathlib import Path

import pytest
import torch

from attn.adaptive_span import soft_span_mask
from attn.experiments.adaptive_span import bursts
from attn.experiments.adaptive_span.runs import PAPER
from attn.reproduction.records import Record
from tests.reproduction.toy import record_data


def run(model, seed, norms, bits):
    """A run of generated text with these mean norms and bits at its evaluations."""
    history = [
        {"step": 400 * i, "grad_norm": norm, "bits_per_token": bit}
        for i, (norm, bit) in enumerate(zip([None, *norms], bits, strict=True))
    ]
    data = record_data(PAPER, f"copies/{model}", seed, {"valid_bits": bits[-1]}, history=history)
    data["config"] = {
        "model": {"span": "fixed" if model.startswith("fixed") else "adaptive", "max_span": 512},
        "training": {"grad_clip_norm": 1.0},
    }
    return Record(Path(f"{model}-{seed}.json"), data)


@pytest.mark.parametrize("mask", [0.0, 1e-9, 1e-3, 0.5])
@pytest.mark.parametrize("score", [-3.0, 0.0, 7.0, 25.0])
def test_the_derivative_is_that_of_the_equation(score, mask):
    found = bursts.hidden_slope(score, mask=mask)
    assert found.weight == pytest.approx(mask * exp(score) / (4 + mask * exp(score)), rel=1e-5, abs=1e-300)
    assert found.by_autograd == pytest.approx(found.by_formula, rel=1e-5)
    if mask:
        assert found.by_autograd == pytest.approx(found.weight * (1 - found.weight) / (32 * mask), rel=1e-5)
        assert found.by_autograd <= 1 / (4 * 32 * mask) * (1 + 1e-5)
    else:
        assert found.by_autograd == pytest.approx(exp(score) / (32 * 4))


def test_other_keys_on_the_ramp_take_from_the_derivative():
    """The general equation, of which `hidden_slope` shows the case of one key; two equal keys at half cancel out."""
    for scores in ([1.0, -2.0, 3.0, 0.5], [0.0, 0.0]):
        span = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        s = torch.tensor(scores, dtype=torch.float64)
        distance = (
            torch.full_like(s, 16.5) if len(scores) == 2 else torch.tensor([0.2, 5.0, 20.0, 32.0]).double()
        )
        masked = soft_span_mask(distance, span, 32) * s.exp()
        total, weights = masked.sum(), masked / masked.sum()
        on_ramp = (distance > 0.5).double()
        for i in range(len(scores)):
            (slope,) = torch.autograd.grad(weights[i], span, retain_graph=True)
            rise = on_ramp[i] * s[i].exp() - weights[i] * (on_ramp * s.exp()).sum()
            assert slope.item() == pytest.approx((rise / total / 32).item(), abs=1e-12)
            assert len(scores) > 2 or slope.item() == pytest.approx(0, abs=1e-15)


def test_runs_with_bursts_are_counted_and_the_one_that_lost_most_is_named():
    records = [
        run("fixed_512", 0, [0.3, 0.4], [4.0, 0.9, 0.8]),
        run("adaptive_512", 0, [0.3, 99.0], [4.0, 0.9, 1.9]),
        run("adaptive_512", 1, [5e6, 0.4], [4.0, 0.9, 0.8]),
        run("adaptive_64", 4, [0.3, 7e3], [4.0, 0.9, 1.5]),
    ]
    first, second = bursts.burst_words(records)
    assert (
        "in 2 of 3 runs with learned spans and in 0 of 1 with fixed ones. The largest was 5.0e+06." in first
    )
    assert second.startswith(
        "Of the 2 runs with learned spans and a burst, 1 ended more than 0.05 bits above"
    )
    assert "adaptive span, S = 64, seed 4, ended farthest above" in second
    assert "1.50 bits after 800 updates, 0.60 above it. Its largest mean norm, 7.0e+03, is" in second


def test_without_bursts_or_records_nothing_is_named():
    (only,) = bursts.burst_words([run("adaptive_512", 0, [0.3, 0.2], [4.0, 0.9, 0.8])])
    assert "0 of 1 runs with learned spans and in 0 of 0" in only
    assert bursts.burst_words([]) == ["No records yet."]


def test_clipping_each_tensor_is_compared_with_clipping_the_whole_gradient():
    whole = [
        run("adaptive_512", 0, [0.3, 999.0], [4.0, 0.9, 1.9]),
        run("adaptive_512", 1, [5e6, 0.4], [4.0, 0.9, 0.8]),
    ]
    each = [run("adaptive_512_per_tensor", 0, [0.3, 0.4], [4.0, 0.9, 0.95])]
    ours, undone = bursts.clip_words(whole, each).split(
        "With each tensor clipped by itself, nothing else changed: "
    )
    assert "limit of 512 tokens" in ours
    assert (
        "2 of 2 runs had a burst (mean norms of up to 5.0e+06), and the worst run ended 1.00 bits above"
        in ours
    )
    assert "0 of 1 runs had a burst, and the worst run ended 0.05 bits above its own best" in undone
    assert "Spoiled are 1 of 2 runs and 0 of 1" in undone and undone.endswith("a probability of 0.67.")
    five = [whole[0], *(run("adaptive_512", seed, [0.3, 0.4], [4.0, 0.9, 0.8]) for seed in range(1, 5))]
    assert bursts.clip_words(five, five[1:] + each).endswith("with a probability of 0.50.")
    assert "chance" not in bursts.clip_words(whole[1:], each)


def test_runs_that_a_burst_spoiled_ended_by_more_than_the_margin_above_their_best():
    records = [
        run("adaptive_512", 0, [0.3, 99.0], [4.0, 0.9, 1.9]),  # no burst
        run("adaptive_512", 1, [5e6, 0.4], [4.0, 0.9, 0.8]),  # none the worse for it
        run("adaptive_512", 2, [0.3, 7e3], [4.0, 0.9, 0.94]),  # within the margin
        run("adaptive_64", 4, [0.3, 7e3], [4.0, 0.9, 1.5]),
        run("fixed_512", 0, [0.3, 7e3], [4.0, 0.9, 1.2]),
    ]
    assert [record.path.stem for record in bursts.ruined(records)] == ["adaptive_64-4", "fixed_512-0"]
    said = bursts.ruined_words(records)
    assert said.startswith(
        "Ended after a burst: adaptive span, S = 64, seed 4, at 1.500 bits, 0.60 above its own best"
    )
    assert "fixed span, S = 512, seed 0, at 1.200" in said
    assert bursts.ruined_words(records[:3]) == "No run ended badly after a burst."
    assert bursts.ruined_words([]).endswith("no records yet.")


@pytest.mark.parametrize("missing", [0, 1])
def test_a_comparison_of_clipping_without_one_side_says_so(missing):
    sides = [[run("adaptive_512", 0, [0.3, 0.4], [4.0, 0.9, 0.8])]] * 2
    sides[missing] = []
    assert bursts.clip_words(*sides).endswith("no records yet.")
