"""What the deviations of the all-attention chapter change, where it is measured."""

from __future__ import annotations

from attn.experiments.all_attention.runs import FROM_MAXIMUM, LABELS, LONG
from attn.reproduction.experiment import Effect


def _undone(deviation: str, model: str, end: str, otherwise: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure=f"validation bits, {LABELS[model]}, median over seeds",
        unit="bits per character",
        ours=f"letters/{model}",
        undone=f"letters/{model}{end}",
        otherwise=otherwise,
        value=lambda record: record.metric("valid_bits"),
    )


EFFECTS = tuple(
    _undone(deviation, model, end, otherwise)
    for deviation, end, otherwise in (
        ("short_spans", FROM_MAXIMUM, "with spans from the maximum"),
        ("updates", LONG, "after longer training"),
    )
    for model in ("ff", "all")
)
