"""What the deviations of the all-attention chapter change, where it is measured."""

from __future__ import annotations

from attn.experiments.all_attention.runs import LABELS
from attn.reproduction.experiment import Effect


def _from_max(model: str) -> Effect:
    return Effect(
        deviation="short_spans",
        measure=f"validation bits, {LABELS[model]}",
        unit="bits per character",
        ours=f"letters/{model}",
        undone=f"letters/{model}_from_max",
        otherwise="with spans from the maximum",
        value=lambda record: record.metric("valid_bits"),
    )


EFFECTS = (_from_max("ff"), _from_max("all"))
