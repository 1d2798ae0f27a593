"""What the deviations of the chapter on adaptive spans change, where it is measured."""

from __future__ import annotations

from attn.experiments.adaptive_span.runs import FROM_MAXIMUM
from attn.reproduction.experiment import Effect


def _bits(deviation: str, text: str, ours: str, more: str, otherwise: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure=f"validation bits of {text}, adaptive spans",
        unit="bits per character",
        ours=ours,
        undone=f"{ours}_{more}",
        otherwise=otherwise,
        value=lambda record: record.metric("valid_bits"),
    )


_REAL = ("real text", "limit/adaptive_whole")

EFFECTS = (
    _bits("rate", *_REAL, "fast", "at a rate of 0.07"),
    _bits("no_cache_of_zeros", *_REAL, "zeros", "with a cache of zeros"),
    _bits("span_start", *_REAL, FROM_MAXIMUM, "with spans from the maximum"),
    _bits(
        "clip", "generated text", "copies/adaptive_512", "per_tensor", "with each tensor clipped by itself"
    ),
)
