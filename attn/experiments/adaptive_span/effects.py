"""What the deviations of the chapter on adaptive spans change, where it is measured."""

from __future__ import annotations

from attn.experiments.adaptive_span.runs import FROM_MAXIMUM, model_label
from attn.reproduction.experiment import Effect


def _bits(deviation: str, text: str, ours: str, more: str, otherwise: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure=f"validation bits of {text}, {model_label(ours.split('/')[1])}, median over seeds",
        unit="bits per character",
        ours=ours,
        undone=f"{ours}_{more}",
        otherwise=otherwise,
        value=lambda record: record.metric("valid_bits"),
    )


_REAL = ("real text", "limit/adaptive_whole")
_COPIES = ("generated text", "copies/adaptive_512")
_CLIPPED = ("per_tensor", "with each tensor clipped by itself")
_STARTED = (FROM_MAXIMUM, "with spans from the maximum")

EFFECTS = (
    _bits("rate", *_REAL, "fast", "at a rate of 0.07"),
    _bits("no_cache_of_zeros", *_REAL, "zeros", "with a cache of zeros"),
    _bits("span_start", *_REAL, *_STARTED),
    _bits("span_start", *_COPIES, *_STARTED),
    _bits("clip", *_COPIES, *_CLIPPED),
    _bits("clip", "generated text", "copies/adaptive_512_from_max", *_CLIPPED),
    _bits("clip", "generated text", "copies/fixed_512", *_CLIPPED),
    # What the rows do depends on the span: the longer it is, the more symbols stand behind a half-filled cache.
    Effect(
        deviation="last_symbols",
        measure="bits that generated text costs more when it is read in the rows of training, fixed span of 32, median "
        "over seeds",
        unit="bits per character",
        ours="copies/fixed_32",
        undone="copies/fixed_512",
        otherwise="with a fixed span of 512",
        value=lambda record: record.metric("valid_bits_as_trained") - record.metric("valid_bits"),
    ),
)
