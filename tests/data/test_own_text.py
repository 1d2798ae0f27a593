"""A text of the user's own is read as any other, and does not have to fit into memory."""

import tracemalloc
from dataclasses import replace

import pytest
import torch

from attn.data import own_text
from attn.data.errors import FileMissing, NotWritable
from attn.data.language_text import TextConfig, subwords
from attn.data.own_text import OWN
from attn.data.tokenisation import EOS, Tokeniser

CONFIG = TextConfig(corpus=OWN, representation="subwords", vocab_size=300)
TEXTS = {
    "train": "the cat sat on the mat\n\nthe dog ate\r\n  \n" * 9,
    "valid": "a cat\x0ba café",
    "test": "a dog\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`TEXTS` where they are looked for, and a cache of its own."""
    monkeypatch.setenv("ATTN_DATA", str(tmp_path))
    monkeypatch.setenv("ATTN_CACHE", str(tmp_path / "cache"))
    (tmp_path / OWN).mkdir()
    for split, content in TEXTS.items():
        (tmp_path / OWN / f"{split}.txt").write_bytes(content.encode())
    own_text.load.cache_clear()
    return tmp_path / OWN


def kept(folder):
    return sorted((folder.parent / "cache" / OWN).iterdir())


def test_it_is_what_reading_it_at_once_gives(folder):
    found = own_text.load(CONFIG)
    lines = {split: [x for x in content.splitlines() if x.strip()] for split, content in TEXTS.items()}
    expected = subwords(lines, 300, checksums={}, title="")
    assert found.vocab_size == expected.vocab_size and found.tokeniser.sha256 == expected.tokeniser.sha256
    for split in TEXTS:
        assert found.splits[split].dtype == torch.int32
        torch.testing.assert_close(found.splits[split], expected.splits[split], rtol=0, atol=0)
    assert found.bytes_per_token == expected.bytes_per_token
    assert expected.checksums.items() <= found.checksums.items()
    assert {f"{OWN}/{split}" for split in TEXTS} <= set(found.checksums)


def test_tokens_are_written_once(folder, monkeypatch):
    first = own_text.load(CONFIG)
    own_text.load.cache_clear()
    monkeypatch.setattr(own_text._Part, "_write", None)  # no other is written
    again = own_text.load(CONFIG)
    assert len(kept(folder)) == 3 and again.checksums == first.checksums
    assert all(torch.equal(again.splits[split], first.splits[split]) for split in TEXTS)


def test_other_text_has_other_tokens(folder):
    first = own_text.load(CONFIG).splits["test"].clone()
    own_text.load.cache_clear()
    (folder / "test.txt").write_text("a mat\n")
    assert not torch.equal(own_text.load(CONFIG).splits["test"], first) and len(kept(folder)) == 4


def test_a_size_may_end_within_a_character(folder):
    size = len("a cat\x0ba café".encode()) - 1
    found = own_text.load(replace(CONFIG, valid_size=size))
    ids = found.splits["valid"].tolist()
    assert ids.count(EOS) == 2 and found.tokeniser.decode(ids[ids.index(EOS) + 1 :]) == "a caf\ufffd"


@pytest.mark.parametrize(
    ("content", "size", "said"),
    [
        (b"a cat\na caf\xe9\na dog\n", None, "byte 12 is not: 0xe9, invalid continuation byte"),
        (b"a cat\na caf\xe9\na dog\n", 13, "byte 12 is not: 0xe9, invalid continuation byte"),
        (
            b"a cat\na caf\xc3",
            None,
            "byte 12 is not: 0xc3, unexpected end of data",
        ),  # the file ends, no size cuts it
        (b"\xff\xfea\x00", None, "byte 1 is not: 0xff, invalid start byte"),
    ],
    ids=["Latin-1", "Latin-1, cut later", "broken off", "UTF-16"],
)
def test_a_text_that_is_not_utf_8_is_refused(folder, content, size, said):
    (folder / "valid.txt").write_bytes(content)
    with pytest.raises(own_text.UnsuitableText, match=f"own-text/valid.txt must be UTF-8; {said}") as refusal:
        own_text.load(replace(CONFIG, valid_size=size))
    assert "\n" not in str(refusal.value)


def test_the_encoding_is_learned_on_the_beginning(folder, monkeypatch):
    monkeypatch.setattr(own_text, "LEARN_BYTES", 40)
    (folder / "train.txt").write_text(TEXTS["train"] + "zebras everywhere\n" * 20)
    found = own_text.load(replace(CONFIG, vocab_size=275))
    first = ["the cat sat on the mat", "the dog ate"]
    assert found.tokeniser.sha256 == Tokeniser.train(first, vocab_size=275).sha256


class Letters:
    """An encoding whose tokens are bytes, and which can break down."""

    sha256 = "letters"

    def __init__(self, lines_until_it_breaks=None):
        self.left = lines_until_it_breaks

    def encode_all(self, lines):
        for line in lines:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
            yield list(line.encode())


def test_a_text_need_not_fit_into_memory(folder):
    size = 1 << 20
    (folder / "train.txt").write_text(("x" * 63 + "\n") * (size // 64))
    tracemalloc.start()
    try:
        tokens = own_text._Part("train", None).tokens(Letters())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tokens) == size and int(tokens[62]) == ord("x") and int(tokens[63]) == EOS
    assert peak < size


def test_a_broken_off_encoding_leaves_nothing_and_is_made_anew(folder):
    part = own_text._Part("train", None)
    with pytest.raises(KeyboardInterrupt):
        part.tokens(Letters(5))
    assert kept(folder) == []
    assert len(part.tokens(Letters())) == part.line_bytes


def test_what_cannot_be_read_is_named(folder):
    (folder / "test.txt").unlink()
    with pytest.raises(FileMissing, match=r"own-text/test.txt is not below \$ATTN_DATA: put train.txt"):
        own_text.load(CONFIG)
    (folder / "test.txt").write_text(" \n\n")
    with pytest.raises(
        own_text.UnsuitableText, match="own-text/test.txt must hold a line of text; got 3 bytes without one"
    ):
        own_text.load(CONFIG)
    said = (
        f"valid_size must be at most {len(TEXTS['valid'].encode())}, the bytes of own-text/valid.txt; got 99"
    )
    with pytest.raises(own_text.UnsuitableText, match=said):
        own_text.load(replace(CONFIG, valid_size=99))
    with pytest.raises(ValueError, match="representation must be 'subwords' for own-text; got 'bytes'"):
        own_text.load(TextConfig(corpus=OWN))


def test_a_text_too_small_for_its_subwords_is_named_with_how_many_it_has(folder):
    said = r"own-text/train.txt does not suit its encoding: vocab_size must be at most \d+ for this text.*; got 60000"
    with pytest.raises(own_text.UnsuitableText, match=said):
        own_text.load(replace(CONFIG, vocab_size=60_000))
    assert not (folder.parent / "cache" / OWN).exists()


def test_a_cache_that_cannot_be_written_to_is_named(folder):
    own_text.load(CONFIG)  # so that the encoding is there
    own_text.load.cache_clear()
    for path in kept(folder):
        path.unlink()
    (folder.parent / "cache" / OWN).rmdir()
    (folder.parent / "cache" / OWN).write_text("a file in the way")
    with pytest.raises(NotWritable, match="set ATTN_CACHE to a folder that can be written to"):
        own_text.load(CONFIG)
