"""The chapter's live check: what small runs on generated texts must show."""

from __future__ import annotations

from collections.abc import Callable

from attn.data.generated_text import GeneratedText
from attn.experiments.all_attention.runs import budgets, text_config
from attn.reproduction.live import Band
from attn.reproduction.runner import LiveRun


def _metric(name: str) -> Callable[[LiveRun], float]:
    return lambda run: run.outcome.metrics[name].value


def _gain_from_cache(run: LiveRun) -> float:
    metrics = run.outcome.metrics
    return metrics["valid_bits_without_cache"].value - metrics["valid_bits"].value


_ALL, _FF, _FACTS, _FF_FACTS = "letters/all", "letters/ff", "facts/all", "facts/ff"
_BITS = _metric("valid_bits")
# On the text with repeats attention alone does as well; on facts it stays above the band.
BANDS = (
    Band(_ALL, "All-attention: bits per symbol of new text", _BITS, 1.8),
    Band(_ALL, "All-attention: bits that the cache of earlier blocks saves", _gain_from_cache, 0.02, above=True),
    Band(_FF, "Attention and feed-forward: bits per symbol of new text", _BITS, 1.8),
    Band(_FACTS, "Facts, all-attention: bits per symbol", _BITS, 3.55),
    Band(_FF_FACTS, "Facts, attention and feed-forward: bits per symbol", _BITS, 3.55),
)  # fmt: skip


def optimum_words() -> str:
    """The least possible bits on the texts of the live check, in a sentence."""
    ci = budgets("letters")["ci"]
    spans = [text_config(ci, name).model for name in ci["models"]]
    sight = max(model.n_layers * model.max_span for model in spans)
    source = GeneratedText()
    facts = text_config(budgets("facts")["ci"], "all")
    return (
        f"Least possible: {source.entropy_rate():.3f} bits on the text with repeats, {source.entropy_rate(sight):.3f} "
        f"with the {sight} symbols in sight that all layers together can see; {facts.least_bits:.3f} on facts, where "
        f"whoever knows all keys and no value pays {facts.unknown_bits:.3f}."
    )
