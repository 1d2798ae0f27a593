"""What the pages say in words agrees with the code and the records."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from attn.experiments import chapters
from attn.reproduction import staleness
from attn.reproduction.paths import PAPERS
from attn.reproduction.runner import REPLAY_STEPS
from attn.reproduction.tables import CLAIM_STATES

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
NUMBERS = {3: "three", 5: "five"}


def words(name):
    """A page's text with single spaces."""
    return " ".join((BOOK / name).read_text("utf-8").split())


def test_the_seeds_that_claims_need():
    claims = {chapter.number: chapter.claims for chapter in chapters()}
    few, many = (
        {claim.seeds_needed for found in claims.values() for claim in found if claim.headline is headline}
        for headline in (False, True)
    )
    without = sorted(number for number, found in claims.items() if not any(claim.headline for claim in found))
    said = re.search(
        r"At least (\w+) seeds are needed, (\w+) for .* chapters? ([\d, and]+) marks? none",
        words("how_to_read.md"),
    )
    assert [{number for number, word in NUMBERS.items() if word == each} for each in said.groups()[:2]] == [
        few,
        many,
    ]
    assert list(map(int, re.findall(r"\d+", said[3]))) == without


def test_what_a_replay_is():
    assert f"A replay is the first {NUMBERS[REPLAY_STEPS]} updates of the run" in words("how_to_read.md")


@cache
def names_in_code():
    """Every name, attribute, argument, parameter and string of the library."""
    found = set()
    for path in (ROOT / "attn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            values = [getattr(node, name, None) for name in ("id", "attr", "arg", "name", "value")]
            found.update(value for value in values if isinstance(value, str) and value.isidentifier())
    return found


@cache
def names_in_records():
    """Every metric that a record of the book holds."""
    records = (path for path in (ROOT / "results").glob("*/**/seed*.json") if ".valid." not in path.name)
    return {name for path in records for name in json.loads(path.read_text("utf-8")).get("metrics", ())}


@pytest.mark.parametrize("section", ["Names", "Units"])
def test_every_name_of_the_notation_exists(section):
    page = (BOOK / "notation.md").read_text("utf-8")
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0].replace("```", "")
    shown = [name for code in re.findall(r"`([^`]+)`", text) for name in re.findall(r"[a-z]\w+", code)]
    assert len(shown) > 5
    assert [name for name in shown if name not in names_in_code() | names_in_records()] == []


def test_the_glossary_has_the_words_of_verdicts_and_cells():
    terms = re.findall(r"^(\S.*)\n  \S", (BOOK / "glossary.md").read_text("utf-8"), re.MULTILINE)
    assert len(terms) == len(set(terms)) > 60
    wanted = {
        "not rerun",
        "recomputed cell",
        "exact cell",
        "measured cell",
        "quoted cell",
        "unverified",
        "fitted",
    }
    decided = set(CLAIM_STATES) - {"holds", "not tested at this scale"}  # told under "verdict"
    assert wanted | decided | set(staleness.STATES) <= set(terms)


def test_contributing_names_every_key_of_the_facts():
    schema = json.loads((PAPERS.parent / "facts.schema.json").read_text("utf-8"))
    keys = {*schema["properties"], *schema["$defs"]["table"]["properties"]}
    shown = set(re.findall(r"`(\w+)`", words("contributing.md")))
    assert keys - shown == set()
    assert {"`kind: quoted`", "`kind: not rerun`", "`variation`", "`unverified`"} <= set(
        re.findall(r"`[^`]+`", words("contributing.md"))
    )
