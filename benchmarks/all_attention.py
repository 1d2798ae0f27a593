"""Speed and memory of all-attention, against attention followed by a feed-forward layer of the same cost.

One call is a forward and a backward pass at the papers' sizes (width 512, 8 heads, limit 2048, spans of 184 tokens on
average as in `benchmarks.adaptive_span`) for a block of 256 tokens of 2 sequences with a full cache. N persistent
vectors a head have as many parameters and multiplications as a feed-forward layer of width N, and H N exponentials a
token where that has N maxima.

- "attention and feed-forward": our adaptive-span attention, then our feed-forward layer, without what stands between.
- "attention", "feed-forward": each of these alone.
- "plain version": the equations as they stand, with all weights in one tensor.

`python -m benchmarks.all_attention --memory` prints the largest amount of memory that tensors of a call take.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from attn.adaptive_span import RelativePositions, SpanAttention
from attn.all_attention import AllAttention
from attn.training import set_seed
from attn.transformer import FeedForward
from benchmarks.adaptive_span import BATCH_SIZE, BLOCK, D_MODEL, N_HEADS, block, learned_spans, run, step
from benchmarks.timing import Goal, Row

LIMIT = 2048
PERSISTENT = (256, 1024, 2048)
OURS, TWO_LAYERS = "attn.all_attention", "attention and feed-forward"
GOALS = {2048: Goal(TWO_LAYERS, 1 / 1.15)}  # by N


def build(device: torch.device, n_persistent: int) -> Mapping[str, Callable[[], None]]:
    """Every variant for an N."""
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
    return {
        OURS: step(ours, inputs, lambda: ours(inputs, state)[0]),
        TWO_LAYERS: step(
            nn.ModuleList([attention, feed_forward]),
            inputs,
            lambda: feed_forward(attention(inputs, state)[0]),
        ),
        "attention": step(attention, inputs, lambda: attention(inputs, state)[0]),
        "feed-forward": step(feed_forward, inputs, lambda: feed_forward(inputs)),
        "plain version": step(plain, inputs, lambda: plain(inputs, state)[0]),
    }


def rows() -> list[Row]:
    """Each number of persistent vectors."""
    return [
        Row(
            name=f"N = {n_persistent}",
            units=BATCH_SIZE * BLOCK,
            build=lambda device, n_persistent=n_persistent: build(device, n_persistent),
            goal=GOALS.get(n_persistent),
        )
        for n_persistent in PERSISTENT
    ]


if __name__ == "__main__":
    run(rows(), module="benchmarks.all_attention")
