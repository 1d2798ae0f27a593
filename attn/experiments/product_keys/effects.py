"""What the deviations of the chapter on product-key memory change, where it is measured."""

from __future__ import annotations

from attn.experiments.product_keys.runs import BASE, POST_NORM, VALUE_RATE
from attn.experiments.product_keys.tables import perplexity
from attn.reproduction.experiment import Effect


def _on_base(deviation: str, undone: str, otherwise: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure="test perplexity of the ablation model",
        unit="per subword",
        ours=BASE,
        undone=undone,
        otherwise=otherwise,
        value=perplexity,
    )


EFFECTS = (
    _on_base("value_rate", VALUE_RATE, "at the paper's rate"),
    _on_base("norm_position", POST_NORM, "with the norm after each sub-layer"),
)
