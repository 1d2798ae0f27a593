"""The texts that chapters 3 and 4 read and show: where they come from, and under which licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from attn.data import registry
from attn.data.language_text import GENERATED
from attn.reproduction.grid import Grid, Html, linked, plain
from attn.reproduction.records import Record

_SPLITS = ("train", "valid", "test")


class Reads(NamedTuple):
    """What the runs of one task read."""

    task: str
    budgets: Mapping[str, Mapping[str, Any]]  # by profile
    generated: str = "generated text of known entropy"  # what the text is called that is made here
    symbols: str = ""  # what a loss is counted in bits for; "" for the text's representation
    unit: str = ""  # what sizes count, if not symbols


def texts_table(tasks: Sequence[Reads]) -> Html:
    """What the runs of each task read, by profile; a text in the place of the paper's is called one."""
    columns = ["Runs", "Profile", "Text", "Symbols", "Training", "Validation", "Test", "Source", "Licence"]
    grid = Grid(plain("Texts: symbols in each split, and what a loss is counted in bits for"), columns)
    for reads in tasks:
        for index, (profile, budget) in enumerate(reads.budgets.items()):
            name, symbols, source, licence = _described(reads, budget)
            cells = [profile, name, symbols, *_sizes(budget["text"], reads.unit), source, licence]
            grid.add([None if index else plain(reads.task), *map(linked, cells)])
    return grid.render()


def _described(reads: Reads, budget: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Title, symbols, source and licence."""
    text = budget["text"]
    if text["corpus"] == GENERATED:
        return reads.generated, reads.symbols or "letters and marks", "made by this book", "none needed"
    corpus, meant = (registry.get(one["text"]["corpus"]) for one in (budget, reads.budgets["paper"]))
    title = corpus.title + (f", in the place of {meant.title}" if corpus != meant else "")
    return title, reads.symbols or text["representation"], corpus.home, corpus.licence


def _sizes(text: Mapping[str, Any], unit: str) -> list[str]:
    sizes = (text.get(f"{split}_size") for split in _SPLITS)
    return ["all" if size is None else f"{size:,} {unit}".strip() for size in sizes]


def origin_words(record: Record | None) -> str:
    """Where the text comes from that a page shows of a run, and under which licence, in a sentence."""
    if record is None:
        return "No records yet."
    corpus_id = record.data["config"]["text"]["corpus"]
    if corpus_id == GENERATED:
        return "The text shown is made by this book."
    corpus = registry.get(corpus_id)
    return f"The text shown is from {corpus.title}. Licence: {corpus.licence} ({corpus.home})."
