"""Chapter 4: all-attention with persistent memory."""

from __future__ import annotations

from attn.experiments.all_attention.claims import CLAIMS
from attn.experiments.all_attention.effects import EFFECTS
from attn.experiments.all_attention.runs import EXPERIMENTS, PAPER
from attn.experiments.all_attention.tables import TABLES
from attn.reproduction.experiment import Chapter

CHAPTER = Chapter(
    paper=PAPER,
    number=4,
    short_title="All-attention",
    notebook="04_all_attention",
    experiments=EXPERIMENTS,
    tables=TABLES,
    claims=CLAIMS,
    effects=EFFECTS,
)
