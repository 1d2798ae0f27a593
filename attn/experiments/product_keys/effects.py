"""What the deviations of the chapter on product-key memory change, where it is measured."""

from __future__ import annotations

from attn.experiments.product_keys.runs import BASE, VALUE_RATE
from attn.experiments.product_keys.tables import perplexity
from attn.reproduction.experiment import Effect

EFFECTS = (
    Effect(
        deviation="value_rate",
        measure="test perplexity of the ablation model",
        unit="per subword",
        ours=BASE,
        undone=VALUE_RATE,
        otherwise="at the paper's rate",
        value=perplexity,
    ),
)
