"""A memory in the training loop: with clipping under bf16 autocast, and an update's batch in one part and in several."""

import torch

from attn.data.key_value_facts import KeyValueFacts
from attn.experiments.product_keys.workloads import (
    FactsConfig,
    FactsWorkload,
    MemoryConfig,
    TrunkConfig,
    memories,
)
from attn.training import train
from attn.training.config import TrainingConfig

STEPS, CLIP = 12, 0.5


def facts(*, batch_norm=True, **changes):
    """A small model of facts before training, and how to train it."""
    memory = MemoryConfig(n_keys=8, topk=4, key_dim=16, n_heads=2, batch_norm=batch_norm)
    config = FactsConfig(
        facts=KeyValueFacts(n_facts=24, key_len=2, n_key_tokens=8, n_values=4, facts_per_sequence=4),
        model=TrunkConfig(n_layers=2, d_model=32, n_heads=2, d_ff=64, memories=(2,), memory=memory),
        training=TrainingConfig(
            max_steps=STEPS, batch_size=16, optimizer="adam", lr=5e-3, grad_clip_norm=CLIP, **changes
        ),
    )
    return FactsWorkload(config, 0, torch.device("cpu")), config.training


def trained(**changes):
    """The model's memory after some updates, the losses of all of them, and the history."""
    workload, training = facts(**changes)
    result = train(workload, training, seed=0, record_losses=STEPS)
    (memory,) = memories(workload.model).values()
    return memory, torch.tensor(result.first_losses), result.history


def test_a_memory_trains_by_rows_with_clipping_under_bf16_autocast():
    (half, losses, history), (full, expected, _) = (trained(precision=name) for name in ("bf16", "fp32"))
    assert history[-1]["grad_norm"] > 2 * CLIP, "clipping has something to do"
    assert losses[-3:].mean() < 0.6 * losses[0]
    assert not torch.equal(losses, expected), "autocast has something to do"
    torch.testing.assert_close(losses, expected, rtol=0.02, atol=0)
    assert half.values.dtype == half.keys.sub_keys.dtype == torch.float32
    (start,) = memories(facts()[0].model).values()
    moved, wanted = half.values - start.values, full.values - start.values
    assert (moved - wanted).norm() < 0.4 * wanted.norm() and moved.isfinite().all()


def test_parts_of_a_batch_have_statistics_of_their_own():
    """What the pages say of fewer devices and more accumulation: the same result, but for batch norm of the queries."""
    one, two = (
        [trained(batch_norm=on, grad_accum_steps=parts)[1] for on in (False, True)] for parts in (1, 2)
    )
    torch.testing.assert_close(one[0], two[0], rtol=1e-5, atol=1e-6)
    assert (one[1] - two[1]).abs().max() > 1e-3
