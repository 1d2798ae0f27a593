"""Chapter 6: the Neural Turing Machine."""

from __future__ import annotations

from attn.experiments.ntm.claims import CLAIMS
from attn.experiments.ntm.effects import EFFECTS
from attn.experiments.ntm.runs import EXPERIMENTS, PAPER
from attn.experiments.ntm.tables import TABLES
from attn.reproduction.experiment import Chapter

CHAPTER = Chapter(
    paper=PAPER,
    number=6,
    short_title="Neural Turing Machine",
    notebook="06_ntm",
    experiments=EXPERIMENTS,
    tables=TABLES,
    claims=CLAIMS,
    effects=EFFECTS,
)
