"""The bibliography and the facts name the same papers in the same words."""

import re
from pathlib import Path

import pytest

from attn.reproduction.facts import load_papers

BIB = (Path(__file__).parents[2] / "book/references.bib").read_text("utf-8")
ENTRIES = dict(re.findall(r"@\w+\{(\w+),(.*?)\n\}", BIB, flags=re.DOTALL))


@pytest.mark.parametrize("paper", load_papers().values(), ids=lambda paper: paper.id)
def test_every_paper_is_in_the_bibliography_as_the_facts_have_it(paper):
    entry = ENTRIES[paper.bibtex_key]
    assert f"title = {{{{{paper.title}}}}}" in entry
    assert f"author = {{{' and '.join(paper.authors)}}}" in entry
    assert f"year = {{{paper.year}}}" in entry
    assert paper.arxiv is None or f"eprint = {{{paper.arxiv}}}" in entry


def test_keys_are_unique():
    keys = re.findall(r"@\w+\{(\w+),", BIB)
    assert len(keys) == len(set(keys)) == len(ENTRIES)
