"""Chapter 5: product-key memory."""

from __future__ import annotations

from attn.experiments.product_keys.claims import CLAIMS
from attn.experiments.product_keys.effects import EFFECTS
from attn.experiments.product_keys.runs import EXPERIMENTS, PAPER
from attn.experiments.product_keys.tables import TABLES
from attn.reproduction.experiment import Chapter

CHAPTER = Chapter(
    paper=PAPER,
    number=5,
    short_title="Product-key memory",
    notebook="05_product_keys",
    experiments=EXPERIMENTS,
    tables=TABLES,
    claims=CLAIMS,
    effects=EFFECTS,
)
