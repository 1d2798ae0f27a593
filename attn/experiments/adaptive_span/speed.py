"""The layer that the benchmarks of chapters 3 and 4 time, and what must be known of it to read their tables."""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from attn.adaptive_span import flops_per_step

D_MODEL, N_HEADS = 512, 8
BATCH_SIZE, BLOCK = 2, 256  # sequences, and tokens of each that a call reads
SPANS = (32, 32, 32, 32, 64, 128, 256, 896)  # of the heads in tokens, with the ramp
PERSISTENT_LIMIT = 2048  # S of the layers with persistent vectors


def layer_words() -> str:
    """Sizes of the layer, and where its spans come from, in sentences."""
    spans = ", ".join(f"{span} ({n} heads)" if n > 1 else f"{span}" for span, n in Counter(SPANS).items())
    return (
        f"The layer is {D_MODEL} wide, with {N_HEADS} heads, and reads {BLOCK} tokens of {BATCH_SIZE} sequences. Its "
        f"spans are no model's: they are made up, in the manner of the paper's figure 4, as {spans} tokens with the "
        f"ramp, {fmean(SPANS):.0f} on average where the limit allows them all. Other spans would give other ratios."
    )


def layer_span(limit: int) -> float:
    """Mean of the layer's learned spans, with the ramp, as far as a limit allows them; all in tokens."""
    return fmean(min(span, limit) for span in SPANS)


def rule_ratio(limit: int) -> float:
    """Operations of the layer with fixed spans over those with learned ones, by the rule for attention alone."""
    fixed, learned = (
        flops_per_step(n_layers=1, d_model=D_MODEL, span=span) for span in (limit, layer_span(limit))
    )
    return fixed / learned


def rewriting_words() -> str:
    """Whose code the benchmark's "one reach a layer" is, in a sentence."""
    return (
        "'One reach a layer' is this book's own rewriting of what the paper and its public code do, all heads cut to "
        "the layer's longest span and the mask applied after the softmax. It is not that code; the benchmark sees that "
        "its outputs equal ours before it times anything."
    )
