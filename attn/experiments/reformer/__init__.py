"""Chapter 2: the Reformer."""

from __future__ import annotations

from attn.experiments.reformer import runs, text_runs, translation_runs
from attn.experiments.reformer.claims import CLAIMS
from attn.experiments.reformer.effects import EFFECTS
from attn.experiments.reformer.runs import PAPER
from attn.experiments.reformer.tables import TABLES
from attn.reproduction.experiment import Chapter

CHAPTER = Chapter(
    paper=PAPER,
    number=2,
    short_title="Reformer",
    notebook="02_reformer",
    experiments=(*runs.EXPERIMENTS, *text_runs.EXPERIMENTS, *translation_runs.EXPERIMENTS),
    tables=TABLES,
    claims=CLAIMS,
    effects=EFFECTS,
)
