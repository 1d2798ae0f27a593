"""Chapter 1: the Transformer."""

from __future__ import annotations

from attn.experiments.transformer.claims import CLAIMS
from attn.experiments.transformer.effects import EFFECTS
from attn.experiments.transformer.runs import EXPERIMENTS, PAPER
from attn.experiments.transformer.tables import TABLES
from attn.reproduction.experiment import Chapter

CHAPTER = Chapter(
    paper=PAPER,
    number=1,
    short_title="Transformer",
    notebook="01_transformer",
    experiments=EXPERIMENTS,
    tables=TABLES,
    claims=CLAIMS,
    effects=EFFECTS,
)
