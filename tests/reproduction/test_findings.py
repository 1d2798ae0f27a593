"""Claims by what came of their tests taken together."""

from collections import Counter

import pytest

from attn.reproduction.findings import HEADINGS, findings, findings_list

STATES = {"h": "holds", "c": "contradicted", "u": "undecided", "n": "not tested at this scale"}


def ended(statement, letters, kind="order"):
    """A claim's tests, by the first letter of how they end."""
    return [
        {
            "statement": statement,
            "kind": kind,
            "verdict": "fails" if letter in "cu" else STATES[letter],
            "contradicted": letter == "c" if letter in "cu" else None,
        }
        for letter in letters
    ]


@pytest.mark.parametrize(
    ("letters", "kind", "said"),
    [
        ("h", "holds", "1 test"),
        ("hhh", "holds", "3 tests"),
        ("hhu", "in part", "2 of 3 tests hold, 1 is undecided"),
        ("hn", "in part", "1 of 2 tests holds, 1 is not tested at this scale"),
        ("hhcunn", "against", "2 of 6 tests hold, 1 is contradicted, 1 is undecided, 2 are not tested at this scale"),
        ("cc", "against", "2 tests"),
        ("unn", "open", "1 of 3 tests is undecided, 2 are not tested at this scale"),
        ("nn", "untested", "2 tests"),
    ],
)  # fmt: skip
def test_a_claim_is_what_its_tests_are_together(letters, kind, said):
    (found,) = findings(ended("It works.", letters))
    assert (found.statement, found.kind, found.said) == ("It works.", kind, said)


def test_a_claim_that_no_run_decides_says_so():
    claims = [*ended("A", "h", "arithmetic"), *ended("B", "h", "arithmetic"), *ended("B", "h")]
    assert [each.said for each in findings(claims)] == ["1 test, printed or counted numbers alone", "2 tests"]


def test_tests_of_one_claim_are_taken_together_wherever_they_stand():
    claims = [*ended("A", "h"), *ended("B", "n"), *ended("A", "u")]
    assert [(each.statement, each.kind) for each in findings(claims)] == [("A", "in part"), ("B", "untested")]


def test_all_claims_stand_once_under_their_headings():
    chapters = [
        ("1 One", [*ended("Fast.", "h"), *ended("Small & good", "c")]),
        ("2 Two", [*ended("Deep", "n"), *ended("Wide", "hh")]),
    ]
    piece = findings_list(chapters)
    assert piece.text.splitlines() == [
        "✓ Holds in every test (2 of 4 claims):",
        "- 1 One: Fast (1 test)",
        "- 2 Two: Wide (2 tests)",
        "",
        "✗ Contradicted, wholly or in part (1 of 4 claims):",
        "- 1 One: Small & good (1 test)",
        "",
        "○ Not tested at this scale (1 of 4 claims):",
        "- 2 Two: Deep (1 test)",
    ]
    assert "Small &amp; good" in piece.html and piece.html.count("<li>") == 4
    assert piece.html.count("<details") == 1, "what nothing is known of is folded"
    order = [piece.html.index(HEADINGS[kind]) for kind in ("holds", "against", "untested")]
    assert order == sorted(order)


def test_without_a_name_the_claim_stands_alone():
    assert "- It works (1 test)" in findings_list([("", ended("It works.", "h"))]).text
    assert findings_list([("", [])]).html == ""


def test_every_claim_of_the_book_has_one_place(tmp_path):
    from attn.experiments import chapters
    from attn.reproduction.scoreboard import collect

    status = collect(chapters(), tmp_path)
    shown = findings_list((str(chapter["number"]), chapter["claims"]) for chapter in status).text
    facts = Counter(claim["statement"] for chapter in status for claim in chapter["claims"])
    assert shown.count("\n- ") == len(facts) > 30
