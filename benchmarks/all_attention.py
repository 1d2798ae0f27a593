"""Speed and memory of all-attention, against attention followed by a feed-forward layer of the same cost.

One call is a forward and a backward pass, or in rows called "evaluation" a forward pass alone, at the papers' sizes
(width 512, 8 heads, limit 2048, spans of 184 tokens on average as in `benchmarks.adaptive_span`) for a block of 256
tokens of 2 sequences with a full cache. N persistent vectors a head have as many parameters and multiplications as a
feed-forward layer of width N, and H N exponentials a token where that has N maxima.

- "attention and feed-forward": our adaptive-span attention, then our feed-forward layer, without what stands between.
- "attention", "feed-forward": each of these alone.
- "plain version": the equations as they stand, with all weights in one tensor; held to equal outputs before it is timed.

Rows of training also say the largest amount of memory that tensors of a call take.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from attn.adaptive_span import RelativePositions, SpanAttention
from attn.all_attention import AllAttention
from attn.experiments.adaptive_span.speed import PERSISTENT_LIMIT as LIMIT
from attn.training import set_seed
from attn.transformer import FeedForward
from benchmarks.adaptive_span import (
    BATCH_SIZE,
    BLOCK,
    D_MODEL,
    N_HEADS,
    block,
    learned_spans,
    peak,
    step,
    without_gradient,
)
from benchmarks.timing import Goal, Row, main

PERSISTENT = (256, 1024, 2048)
OURS, TWO_LAYERS, PLAIN = "attn.all_attention", "attention and feed-forward", "plain version"
# By N.
GOALS = {2048: Goal(TWO_LAYERS, 1 / 1.15)}
MEMORY_GOALS = {2048: Goal(PLAIN, 3.5)}
EVALUATED = (2048,)


def build(
    device: torch.device, n_persistent: int, *, is_training: bool = True
) -> Mapping[str, Callable[[], None]]:
    """Every variant for an N: with the backward pass, or without."""
    set_seed(0)
    positions = RelativePositions(head_dim=D_MODEL // N_HEADS, max_span=LIMIT)
    settings = {"d_model": D_MODEL, "n_heads": N_HEADS, "positions": positions}
    ours, plain = (
        learned_spans(AllAttention(**settings, n_persistent=n_persistent, fused=fused)).to(device)
        for fused in (True, False)
    )
    plain.load_state_dict(ours.state_dict())
    attention = learned_spans(SpanAttention(**settings)).to(device)
    feed_forward = FeedForward(d_model=D_MODEL, d_ff=n_persistent).to(device)
    inputs, state = block(device, LIMIT)
    # Equal but for rounding, or the comparison would mean nothing.
    outputs = (module(inputs, state)[0].detach() for module in (ours, plain))
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)
    calls = {
        OURS: (ours, lambda: ours(inputs, state)[0]),
        TWO_LAYERS: (
            nn.ModuleList([attention, feed_forward]),
            lambda: feed_forward(attention(inputs, state)[0]),
        ),
        "attention": (attention, lambda: attention(inputs, state)[0]),
        "feed-forward": (feed_forward, lambda: feed_forward(inputs)),
        PLAIN: (plain, lambda: plain(inputs, state)[0]),
    }
    if not is_training:
        return {name: without_gradient(call) for name, (_, call) in calls.items()}
    return {name: step(module, inputs, call) for name, (module, call) in calls.items()}


def rows() -> list[Row]:
    """Each number of persistent vectors in training, and some in evaluation."""
    training = [
        Row(
            name=f"N = {n_persistent}",
            units=BATCH_SIZE * BLOCK,
            build=partial(build, n_persistent=n_persistent),
            goal=GOALS.get(n_persistent),
            peak=peak,
            memory_goal=MEMORY_GOALS.get(n_persistent),
        )
        for n_persistent in PERSISTENT
    ]
    evaluation = [
        Row(
            name=f"N = {n_persistent}, evaluation",
            units=BATCH_SIZE * BLOCK,
            build=partial(build, n_persistent=n_persistent, is_training=False),
        )
        for n_persistent in EVALUATED
    ]
    return training + evaluation


if __name__ == "__main__":
    main(rows(), module="benchmarks.all_attention", unit="tokens")
