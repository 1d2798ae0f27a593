"""Corpora of words for tests."""

from types import SimpleNamespace

import pytest
import torch

from attn.data import words
from attn.data.text import CharacterText


def made_up(content):
    tokens = torch.frombuffer(bytearray(content.encode()), dtype=torch.uint8)
    return CharacterText("made up", tokens, bytes(range(256)), checksums={"made up": "0"})


@pytest.fixture
def word_corpus(monkeypatch):
    """Replaces every corpus by these splits."""

    def use(**splits):
        monkeypatch.setattr(
            words.text, "load", lambda *_: {name: made_up(part) for name, part in splits.items()}
        )
        monkeypatch.setattr(words.registry, "get", lambda name: SimpleNamespace(title=name, licence="none"))
        words.load_words.cache_clear()

    yield use
    words.load_words.cache_clear()
