"""Which text a run is trained on."""

import pytest
import torch

from attn.data import text
from attn.data.generated_text import GeneratedText
from attn.data.language_text import TextConfig, load
from attn.data.tokenisation import EOS

SMALL = {"train_size": 6000, "valid_size": 900, "test_size": 700}


@pytest.fixture
def python_source(monkeypatch):
    """Three splits of made-up letters in place of a corpus file."""
    load.cache_clear()
    words = [b"alpha", b"beta", b"gamma", b"delta", b"<doc id=1>", b"", b"epsilon"]
    order = torch.randint(0, len(words), (4000,), generator=torch.Generator().manual_seed(0)).tolist()
    raw = b" ".join(words[index] + (b"\n" if index % 3 == 2 else b"") for index in order)

    def made_up(corpus, representation, *, download):
        ids = torch.tensor(list(raw), dtype=torch.uint8)
        splits = dict(zip(text.SPLITS, text.cut(ids), strict=True))
        symbols = bytes(range(256))
        return {
            name: text.CharacterText(f"{corpus}/{name}", part, symbols, checksums={"file": "1", name: "2"})
            for name, part in splits.items()
        }

    monkeypatch.setattr(text, "load", made_up)
    yield raw
    load.cache_clear()


def test_a_generated_text_has_three_different_splits_of_these_sizes():
    found = load(TextConfig(corpus="generated", **SMALL))
    assert [len(found.splits[name]) for name in ("train", "valid", "test")] == [6000, 900, 700]
    assert found.vocab_size == GeneratedText().vocab_size
    assert not torch.equal(found.splits["train"][:700], found.splits["test"])
    assert torch.isfinite(GeneratedText().optimal_bits(found.splits["valid"])).all()


def test_the_beginning_of_each_split_is_taken(python_source):
    found = load(TextConfig(corpus="wikipedia-extract", **SMALL))
    assert bytes(found.splits["train"].tolist()) == python_source[:6000]
    start = round(len(python_source) * 0.9)
    assert bytes(found.splits["valid"].tolist()) == python_source[start : start + 900]
    assert found.checksums == {"file": "1", "train": "2", "valid": "2", "test": "2"}
    assert "Wikipedia" in found.title and found.bytes_per_token["test"] == 1


def test_subwords_come_from_the_training_text_alone_and_lines_end(python_source, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = load(TextConfig(corpus="wikipedia-extract", representation="subwords", vocab_size=300, **SMALL))
    assert found.vocab_size == 300
    train = found.splits["train"].tolist()
    lines = [
        line for line in python_source[:6000].decode().splitlines() if line.strip() and line[:5] != "<doc "
    ]
    assert train.count(EOS) == len(lines)
    assert found.tokeniser.decode(train[: train.index(EOS)]) == lines[0]
    size = sum(len(line.encode()) + 1 for line in lines)
    assert found.bytes_per_token["train"] == pytest.approx(size / len(train))
    assert {"tokeniser/bpe-300", "subwords/train", "file"} <= set(found.checksums)


def test_the_same_config_is_read_once():
    config = TextConfig(corpus="generated", **SMALL)
    assert load(config) is load(TextConfig(corpus="generated", **SMALL))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"corpus": "novels", "representation": "words"},
            "representation must be one of bytes, 27 characters",
        ),
        ({"corpus": "novels", "representation": "subwords"}, "vocab_size must be given for subwords"),
        ({"corpus": "novels", "vocab_size": 300}, "vocab_size must be given for subwords, and only for them"),
        ({"corpus": "novels", "train_size": 0}, "train_size must be"),
        (
            {"corpus": "generated", "train_size": 5, "valid_size": 5},
            "test_size must be given for a generated",
        ),
    ],
)
def test_a_wrong_config_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**settings)


def test_more_than_there_is_is_refused(python_source):
    with pytest.raises(
        ValueError, match="size must be at most .* the symbols of wikipedia-extract/valid; got 10,000,000"
    ):
        load(TextConfig(corpus="wikipedia-extract", train_size=100, valid_size=10_000_000))
