"""Chapter 3: adaptive attention span."""

from __future__ import annotations

from attn.experiments.adaptive_span.claims import CLAIMS
from attn.experiments.adaptive_span.effects import EFFECTS
from attn.experiments.adaptive_span.runs import EXPERIMENTS, PAPER
from attn.experiments.adaptive_span.tables import TABLES
from attn.reproduction.experiment import Chapter

CHAPTER = Chapter(
    paper=PAPER,
    number=3,
    short_title="Adaptive span",
    notebook="03_adaptive_span",
    experiments=EXPERIMENTS,
    tables=TABLES,
    claims=CLAIMS,
    effects=EFFECTS,
)
