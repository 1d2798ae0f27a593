"""What the deviations of the Transformer's chapter change, where it is measured."""

from __future__ import annotations

from attn.experiments.transformer.runs import GRID, PAPER
from attn.reproduction.experiment import Effect
from attn.reproduction.facts import load_papers


def _norm_position(measure: str, unit: str, metric: str) -> Effect:
    return Effect(
        deviation="norm_position",
        measure=f"{measure} of table 3's base model",
        unit=unit,
        ours=f"{GRID}/base",
        undone="table3_pre_norm/base",
        otherwise="with pre-norm",
        value=lambda record: record.metric(metric),
    )


def _longer(kind: str, positions: str) -> Effect:
    """Share of the longest test's targets that are copied without an error, with positions shifted in training."""
    longest = max(load_papers()[PAPER].budgets["lengths"]["cpu"]["test_lengths"])
    return Effect(
        deviation="longer_sentences",
        measure=f"copied letters with {positions}: targets of {longest} letters without an error, medians",
        unit="of all",
        ours=f"lengths/{kind}_shifted",
        undone=f"lengths/{kind}",
        otherwise="without shifts in training",
        value=lambda record: record.metric(f"whole_{longest}"),
    )


EFFECTS = (
    _longer("sinusoids", "sinusoids"),
    _longer("learned", "learned positions"),
    _norm_position(
        "validation perplexity (medians; the interval of paired seeds stands where the norms are drawn)",
        "per subword",
        "perplexity",
    ),
    _norm_position("validation BLEU", "BLEU", "bleu_validation"),
)
