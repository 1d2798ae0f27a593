"""What the deviations of the Transformer's chapter change, where it is measured."""

from __future__ import annotations

from attn.reproduction.experiment import Effect


def _norm_position(measure: str, unit: str, metric: str) -> Effect:
    return Effect(
        deviation="norm_position",
        measure=f"{measure} of table 3's base model",
        unit=unit,
        ours="table3/base",
        undone="table3_pre_norm/base",
        otherwise="with pre-norm",
        value=lambda record: record.metric(metric),
    )


EFFECTS = (
    _norm_position("validation perplexity", "per subword", "perplexity"),
    _norm_position("validation BLEU", "BLEU", "bleu_validation"),
)
