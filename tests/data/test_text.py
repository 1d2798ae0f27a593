import hashlib

import pytest
import torch

from attn.data import text
from attn.data.errors import UnknownSplit
from attn.data.text import (
    TrainingSegments,
    cut,
    evaluation_segments,
    load,
    to_letters,
    wikipedia_letters,
)

NAMES = {"train": [0.0, 0.9], "valid": [0.9, 0.95], "test": [0.95, 1.0]}
SHARES = {name: {"files": ["text"], "share": share} for name, share in NAMES.items()}


# --- Training segments -------------------------------------------------------------------------------------


def segments(n_tokens=103, batch_size=4, block=5, seed=0):
    return TrainingSegments(torch.arange(n_tokens), batch_size=batch_size, block=block, seed=seed)


def test_the_first_pass_reads_each_row_in_order():
    stream = (
        segments()
    )  # rows of 25 tokens: 4 blocks of 5, and 5 tokens are too few for a fifth with its targets
    assert stream.steps_per_pass == 4
    for step in range(1, 5):
        batch = stream.at(step)
        for row in range(4):
            start = 25 * row + 5 * (step - 1)
            assert batch.tokens[row].tolist() == list(range(start, start + 5))
            assert batch.targets[row].tolist() == list(range(start + 1, start + 6))
        assert batch.scored.all() and batch.is_start == (step == 1)


def test_later_passes_start_at_random_offsets_within_a_block():
    stream = segments(n_tokens=84, batch_size=2, block=10)  # rows of 42
    step, offsets = 1, []
    for number in range(200):
        found, offset = stream.place(step)
        assert found == number and stream.at(step).is_start
        offsets.append(offset)
        n_blocks = (41 - offset) // 10
        places = [stream.place(step + k) for k in range(n_blocks)]
        assert places == [(number, offset + 10 * k) for k in range(n_blocks)]
        assert not any(stream.at(step + k).is_start for k in range(1, n_blocks))
        assert stream.at(step + n_blocks - 1).targets[0, -1] <= 41
        step += n_blocks
    assert offsets[0] == 0 and set(offsets) == set(range(10))


def test_a_batch_is_a_function_of_its_step():
    whole, resumed = segments(seed=3), segments(seed=3)
    steps = list(range(1, 60))
    expected = [whole.at(step) for step in steps]
    for step in reversed(steps):  # asked out of order
        found = resumed.at(step)
        assert found.tokens.equal(expected[step - 1].tokens)
        assert found.is_start == expected[step - 1].is_start
    others = [segments(seed=4).at(step).tokens for step in steps]
    assert not all(one.tokens.equal(other) for one, other in zip(expected, others, strict=True))


def test_parts_keep_their_rows():
    stream = segments()
    for step in (1, 2, 7):
        batch = stream.at(step)
        for part in range(2):
            piece = stream.at(step, part, 2)
            assert piece.tokens.equal(batch.tokens[part::2]) and piece.tokens.equal(
                batch.part(part, 2).tokens
            )
            assert piece.is_start == batch.is_start


def test_bytes_become_ids():
    tokens = torch.arange(100).to(torch.uint8)
    batch = TrainingSegments(tokens, batch_size=2, block=8, seed=0).at(1)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"n_tokens": 39},
            "tokens must be at least 40, 10 for each of 4 rows; got 39: lower batch_size or block",
        ),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1; got 0"),
        ({"block": 0}, "block must be a whole number of at least 1; got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
    ],
)
def test_bad_segments(options, message):
    with pytest.raises(ValueError, match=message):
        segments(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "step must be a whole number of at least 1; got 0"),
        ((1, 0, 3), "n_parts, which must divide batch_size=4; got part=0 and n_parts=3"),
        ((1, 2, 2), "part must be below n_parts.* got part=2 and n_parts=2"),
    ],
)
def test_bad_steps(arguments, message):
    with pytest.raises(ValueError, match=message):
        segments().at(*arguments)


@pytest.mark.parametrize("tokens", [torch.zeros(50), torch.zeros(5, 10, dtype=torch.int64)])
def test_tokens_that_are_none(tokens):
    with pytest.raises(ValueError, match="tokens must be whole numbers"):
        TrainingSegments(tokens, batch_size=2, block=5, seed=0)


# --- Evaluation segments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_tokens", [41, 42, 43, 60])
@pytest.mark.parametrize("keep_remainder", [False, True])
def test_evaluation_reads_everything_once_in_order(n_tokens, keep_remainder):
    found = list(
        evaluation_segments(torch.arange(n_tokens), batch_size=2, block=10, keep_remainder=keep_remainder)
    )
    length = n_tokens // 2  # of a row
    n_scored = length - 1 if keep_remainder else (length - 1) // 10 * 10
    for row in range(2):
        first = row * length
        read = torch.cat([batch.tokens[row] for batch in found])
        said = torch.cat([batch.targets[row] for batch in found])
        assert read.tolist() == list(range(first, first + n_scored))
        assert said.tolist() == list(range(first + 1, first + n_scored + 1))
    assert sum(batch.n_scored for batch in found) == 2 * n_scored
    assert [batch.is_start for batch in found] == [True] + [False] * (len(found) - 1)
    assert all(batch.tokens.shape[1] == 10 for batch in found[:-1])


def test_a_text_too_short_to_evaluate():
    with pytest.raises(ValueError, match="tokens must be at least 22, 11 for each of 2 rows; got 21"):
        list(evaluation_segments(torch.arange(21), batch_size=2, block=10))
    (only,) = evaluation_segments(torch.arange(21), batch_size=2, block=10, keep_remainder=True)
    assert only.tokens.shape == (2, 9)


# --- Cutting -----------------------------------------------------------------------------------------------


def test_shares_cut_without_gap():
    tokens = torch.arange(1001)
    parts = cut(tokens)
    assert [len(part) for part in parts] == [901, 50, 50]
    assert torch.cat(parts).equal(tokens)
    assert [len(part) for part in cut(tokens, (0.5, 0.5))] == [500, 501]


@pytest.mark.parametrize("shares", [(0.9, 0.2), (1.0, 0.0), ()])
def test_bad_shares(shares):
    with pytest.raises(ValueError, match="shares must be above 0 and sum to 1; got"):
        cut(torch.arange(10), shares)


# --- Characters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"Hello, World!", b" hello world"),
        (b"in 1998", b" in one nine nine eight"),
        (b"a1b", b" a one b"),
        (b"don't--stop\r\n\tnow", b" don t stop now"),
        ("Caf\u00e9 M\u00fcller \u2014 \u03c0".encode(), b" caf m ller"),
        (b"  already clean ", b" already clean"),
        (b"...", b""),
        (b"", b""),
    ],
)
def test_letters(given, expected):
    assert to_letters(given) == expected


def test_the_digits_words():
    assert to_letters(b"0123456789") == b" zero one two three four five six seven eight nine"


PAGE = b"""<mediawiki>
  <page>
    <title>Not text</title>
    <text xml:space="preserve">'''Anarchism''' has 2 roots&lt;ref&gt;a footnote 7&lt;/ref&gt; &amp;mdash; see
[[William Godwin|Godwin]] &amp; [[Proudhon]].
[[Image:Bakunin.jpg|thumb|left|150px|A caption]]
{| table |}{{stub}}
&lt;b&gt;Bold&lt;/b&gt; [http://example.org/x the site] [[de:Anarchismus]]
[[Category:Politics|*]]</text>
  </page>
  <page>
    <text xml:space="preserve">#REDIRECT [[Elsewhere]]</text>
  </page>
  <page>
    <text xml:space="preserve">Second.</text>
  </page>
</mediawiki>
"""


def test_what_a_reader_of_wikipedia_sees():
    # The ref's text goes with its tags; a caption, names of categories and words of links stay.
    assert wikipedia_letters(PAGE) == (
        b" anarchism has two roots see godwin proudhon a caption bold the site politics second"
    )


def test_the_whole_prefix_of_enwik8_becomes_the_beginning_of_text8(real_data):
    found = load("enwik8-prefix", "27 characters", download=False)
    assert [len(found[name]) for name in NAMES] == [668528, 37141, 37140]
    letters = b"".join(bytes(found[name].symbols[i] for i in found[name].tokens.tolist()) for name in NAMES)
    # of the output of the filter's own program for this file
    assert hashlib.sha256(letters).hexdigest() == EXPECTED
    assert letters.startswith(
        b" anarchism originated as a term of abuse first used against early working class"
    )


EXPECTED = "383a4041bb884e93db46357da6d65baaca197d46cad72dc1b7a6189bf8513219"

# --- Corpora -----------------------------------------------------------------------------------------------


@pytest.fixture
def small(make_corpus, mirror):
    """A registered text of 200 bytes, kept below `$ATTN_DATA`."""

    def make(content, splits=None):
        (mirror / "small").mkdir(exist_ok=True)
        (mirror / "small/text.txt").write_bytes(content)
        return make_corpus(content, splits=SHARES if splits is None else splits)

    return make


CONTENT = bytes(range(256)) * 2


def test_bytes_of_a_corpus(small):
    found = load(small(CONTENT))
    assert list(found) == ["train", "valid", "test"]
    assert torch.cat([part.tokens for part in found.values()]).tolist() == list(CONTENT)
    train = found["train"]
    assert (train.vocab_size, train.tokens.dtype, len(train)) == (256, torch.uint8, 461)
    assert train.name == "small/train, bytes" and train.title == "Small" and train.licence == "none"
    assert train.checksums == {
        "small/text.txt": hashlib.sha256(CONTENT).hexdigest(),
        "small/train, bytes": hashlib.sha256(CONTENT[:461]).hexdigest(),
    }


def test_letters_of_a_corpus_are_cut_after_they_are_made(small):
    content = b"The 1st half; " * 10
    found = load(small(content), "27 characters")
    letters = to_letters(content)
    ids = torch.cat([part.tokens for part in found.values()])
    assert [" abcdefghijklmnopqrstuvwxyz"[index] for index in ids.tolist()] == list(letters.decode())
    assert len(found["valid"]) == round(0.95 * len(letters)) - round(0.9 * len(letters))
    assert found["test"].vocab_size == 27
    assert found["train"].decode(found["train"].tokens[:17]) == " the one st half "


def test_some_splits_only(small):
    assert list(load(small(CONTENT), splits=["test"])) == ["test"]
    with pytest.raises(UnknownSplit, match="no split 'dev'"):
        load(small(CONTENT), splits=["dev"])


def test_a_file_is_read_once(small, monkeypatch):
    calls, read = [], text.reading.read_bytes
    monkeypatch.setattr(
        text.reading, "read_bytes", lambda *args, **kw: calls.append(args) or read(*args, **kw)
    )
    load(small(CONTENT))
    assert len(calls) == 1


def test_bytes_that_are_no_utf8_are_shown_all_the_same(small):
    part = load(small(CONTENT))["train"]
    assert part.decode(torch.tensor([97, 255, 98])) == "a\ufffdb"


def test_ranges_of_bytes_do_not_fit_letters(small):
    splits = {"train": {"files": ["text"], "bytes": [0, 20]}}
    with pytest.raises(ValueError, match="representation must be 'bytes' for split 'train' of 'small'"):
        load(small(b"Some text, 3 words. And more.", splits), "27 characters", splits=["train"])
    # text that is such letters already, as text8, stays as long as it is
    assert (
        len(load(small(b" only letters and spaces", splits), "27 characters", splits=["train"])["train"])
        == 20
    )


def test_splits_by_sentence_are_no_text(small):
    splits = {"train": {"files": ["text"], "first_column_share": [0.0, 0.5]}}
    with pytest.raises(
        ValueError, match="splits must go by place in the text; 'train' of 'small' goes by sentence"
    ):
        load(small(b"a\tb\n", splits), splits=["train"])


def test_another_representation():
    with pytest.raises(ValueError, match="representation must be 'bytes' or '27 characters'; got 'words'"):
        load("novels", "words")


def test_tags_of_extracted_articles_go(make_corpus, mirror, monkeypatch):
    content = b'<doc id="1" url="x" title="A <b> title">\nA title\n\nText 1.\n\n</doc>\nAfter\n'
    (mirror / "small").mkdir()
    (mirror / "small/text.txt").write_bytes(content)
    monkeypatch.setitem(text._LETTERS_OF, "small", text._LETTERS_OF["wikipedia-extract"])
    found = load(make_corpus(content, splits=SHARES), "27 characters")
    assert "".join(part.decode(part.tokens) for part in found.values()) == " a title text one after"


def test_the_source_of_python_is_a_text_everywhere():
    found = load("python-stdlib", splits=["valid"], download=False)["valid"]
    assert len(found) > 100_000 and len(found.checksums) == 2
    assert found.decode(found.tokens).count("import ") > 20
