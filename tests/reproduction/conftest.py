import sys

import pytest

from tests.reproduction.toy import toy_chapter


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A tiny chapter of its own, with no record yet, whose code a test may edit."""
    monkeypatch.setattr(
        sys, "dont_write_bytecode", True
    )  # an edit within a second would meet the old bytecode
    with toy_chapter(tmp_path / "toy") as made:
        yield made
