"""What the deviations of the chapter on adaptive spans change, where it is measured."""

from __future__ import annotations

from attn.reproduction.experiment import Effect


def _bits(deviation: str, undone: str, otherwise: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure="validation bits of real text, adaptive spans",
        unit="bits per character",
        ours="limit/adaptive_whole",
        undone=f"limit/{undone}",
        otherwise=otherwise,
        value=lambda record: record.metric("valid_bits"),
    )


EFFECTS = (
    _bits("rate", "adaptive_whole_fast", "at a rate of 0.07"),
    _bits("no_cache_of_zeros", "adaptive_whole_zeros", "with a cache of zeros"),
    _bits("span_start", "adaptive_whole_from_max", "with spans from the maximum"),
)
