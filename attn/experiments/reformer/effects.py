"""What the deviations of the Reformer's chapter change, where it is measured."""

from __future__ import annotations

from statistics import fmean

from attn.experiments.reformer.runs import LABELS
from attn.experiments.reformer.workloads import ROUNDS
from attn.reproduction.experiment import Effect
from attn.reproduction.records import Record


def _hashed(record: Record) -> float:
    return 100 * fmean(record.metric(f"accuracy_lsh{rounds}") for rounds in ROUNDS)


def _full(attention: str) -> Effect:
    return Effect(
        deviation="full_convention",
        measure="trained with full attention, symbols right under LSH, mean over 8, 4, 2 and 1 rounds",
        unit="percent",
        ours="duplication/full",
        undone=f"duplication/{attention}",
        otherwise=f"with {LABELS[attention]}",
        value=_hashed,
    )


EFFECTS = tuple(
    _full(attention) for attention in ("full_with_self", "full_raw_keys", "full_plain", "separate")
)
