import hashlib
import io
import logging
import random
import sys

import pytest
import sentencepiece

from attn.data import tokenisation
from attn.data.errors import MissingExtra, UnreadableFile
from attn.data.tokenisation import BOS, EOS, LEAST_SIZE, PAD, UNK, Tokeniser

LINES = [
    "the house by the lake",
    "the houses by the lakes",
    "das Haus am See",
    "die H\u00e4user an den Seen",
] * 3
NASTY = [
    "", " ", "  two  spaces ", "\t", "line\nends\r\n", "\0", "</s>", "<s><pad><unk>", "<0x41>", "\u2581", "a\u2581 \u2581b",
    "\u2047", "e\u0301 \u00e9", "\ufb01", "\ufeff", "\u2028\x85\u00a0\u3000\u200b", "\u65e5\u672c", "\U0001f469\u200d\U0001f4bb", "\ufffd", "\U0010ffff",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokeniser():
    return Tokeniser.train(LINES, vocab_size=300, cache=False)


def train(lines=LINES, vocab_size=300, **kwargs):
    return Tokeniser.train(lines, vocab_size=vocab_size, **kwargs)


def random_texts(n_texts, seed):
    """Characters from all of Unicode and from the training text, half surrogates left out."""
    rng = random.Random(seed)
    known = sorted(set("".join(LINES)) | {"\u2581"})

    def character():
        code = rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])
        return rng.choice([chr(code), rng.choice(known)])

    return ["".join(character() for _ in range(rng.randrange(20))) for _ in range(n_texts)]


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_any_text_comes_back(tokeniser, text):
    ids = tokeniser.encode(text)
    assert tokeniser.decode(ids) == text
    assert not {PAD, BOS, EOS, UNK} & set(ids)


def test_random_text_comes_back(tokeniser):
    texts = random_texts(300, seed=1)
    for text, ids in zip(texts, tokeniser.encode_all(texts), strict=True):
        assert tokeniser.decode(ids) == text
        assert ids == tokeniser.encode(text)


def test_chunks_do_not_show(tokeniser, monkeypatch):
    texts = random_texts(7, seed=2)
    whole = list(tokeniser.encode_all(texts))
    monkeypatch.setattr(tokenisation, "_CHUNK_LINES", 3)
    assert list(tokeniser.encode_all(texts)) == whole
    assert list(tokeniser.encode_all([])) == []


def test_frequent_words_become_one_token_and_others_do_not(tokeniser):
    assert tokeniser.pieces(tokeniser.encode("the the")) == ["\u2581the", "\u2581the"]
    assert len(tokeniser.encode("zebra")) > 3
    assert tokeniser.vocab_size == 300


def test_one_vocabulary_for_both_sides(tokeniser):
    """A stretch that both languages share is one token in both."""
    english, german = tokeniser.pieces(tokeniser.encode("house")), tokeniser.pieces(tokeniser.encode("Haus"))
    alone = train(LINES[:2] * 3, vocab_size=275, cache=False)
    assert len(german) < len(alone.encode("Haus")) and len(english) < len("house")


def test_ids_of_special_and_byte_tokens_are_fixed(tokeniser):
    assert tokeniser.pieces([PAD, BOS, EOS, UNK]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    assert tokeniser.encode("\u65e5")[-3:] == [4 + byte for byte in "\u65e5".encode()]


def test_decoding_leaves_out_the_frame(tokeniser):
    ids = tokeniser.encode("the lake")
    assert tokeniser.decode([BOS, *ids, EOS, *ids, PAD]) == "the lake"
    assert tokeniser.decode([*ids[:1], PAD, *ids[1:]]) == "the lake"
    assert tokeniser.decode([EOS]) == tokeniser.decode([]) == ""
    assert tokeniser.decode([4 + 0xE2]) == "\ufffd"


def test_training_is_deterministic_and_depends_on_lines_and_size(tokeniser):
    assert train(cache=False).sha256 == tokeniser.sha256
    assert train([*LINES, "the sea"], cache=False).sha256 != tokeniser.sha256
    assert train(vocab_size=290, cache=False).sha256 != tokeniser.sha256


def test_lines_that_the_library_would_leave_out_are_learnt_from():
    """Those with a tab, and long ones."""
    assert len(train(["abab\tabab"] * 3, vocab_size=266, cache=False).encode("abab")) == 1
    assert len(train(["abab " * 4000], vocab_size=266, cache=False).encode("abab")) == 1


def test_a_saved_tokeniser_is_one_file_that_the_library_reads(tokeniser, tmp_path):
    path = tmp_path / "deep" / "bpe.model"
    tokeniser.save(path)
    assert [p.name for p in path.parent.iterdir()] == ["bpe.model"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == tokeniser.sha256
    assert tokeniser.checksums == {"tokeniser/bpe-300": tokeniser.sha256}
    plain = sentencepiece.SentencePieceProcessor(model_file=str(path))
    text = "the house am See, \u65e5"
    assert Tokeniser.load(path).encode(text) == tokeniser.encode(text) == plain.encode(" " + text)


def test_training_is_done_once(cache, monkeypatch):
    first = train()
    (path,) = (cache / "tokenisers").iterdir()
    monkeypatch.setattr(tokenisation, "_train", lambda *args: pytest.fail("trained again"))
    assert train().sha256 == first.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_whatever_changes_the_result_changes_the_cached_file(cache, monkeypatch):
    train()
    train(vocab_size=290)
    train(LINES[1:])
    train(LINES[::-1])
    train(["".join(LINES[:2]), *LINES[2:]])  # the same text cut differently
    monkeypatch.setattr(sentencepiece, "__version__", "99")
    train()
    monkeypatch.setitem(tokenisation._SETTINGS, "character_coverage", 1.0)
    train()
    assert len(list((cache / "tokenisers").iterdir())) == 7


def test_a_damaged_cached_file_is_named_not_replaced(cache):
    train()
    (path,) = (cache / "tokenisers").iterdir()
    whole = path.read_bytes()
    path.write_bytes(b"junk")
    with pytest.raises(UnreadableFile, match=r"bpe-300-\w+\.model is no tokeniser .*: delete it and train"):
        train()
    other = train(vocab_size=290, cache=False)
    other.save(path)
    with pytest.raises(UnreadableFile, match="has 290 tokens where 300 were trained: delete it"):
        train()
    path.write_bytes(whole)
    assert train().vocab_size == 300


def test_a_cache_that_cannot_be_written_is_told_and_no_hindrance(tmp_path, monkeypatch, caplog, tokeniser):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATTN_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert train().sha256 == tokeniser.sha256
    assert "the tokeniser is not kept for the next time: cannot write" in caplog.text


def test_an_interrupted_write_leaves_nothing(tokeniser, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenisation.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokeniser.save(tmp_path / "bpe.model")
    assert list(tmp_path.glob("**/*.part")) + list(tmp_path.glob("*.model")) == []


@pytest.mark.parametrize(
    ("lines", "vocab_size", "complaint"),
    [
        (LINES, 260, rf"vocab_size must be a whole number of at least {LEAST_SIZE} .*; got 260"),
        (LINES, 300.0, "vocab_size must be a whole number .*; got 300.0"),
        (LINES, 5000, r"vocab_size must be at most \d+ for this text, .*; got 5000"),
        (LINES, 270, r"vocab_size must be at least \d+ for this text, to hold its characters; got 270"),
        ([], 300, "lines must hold at least one word to learn from; got none"),
        (["", "  \t"], 300, "lines must hold at least one word to learn from; got none"),
        (["half \ud83d"], 300, "text must be such that UTF-8 can write it; got 'half"),
    ],
)
def test_what_cannot_be_trained_on_is_told(lines, vocab_size, complaint):
    for cache in (False, True):
        with pytest.raises(ValueError, match=complaint) as caught:
            train(lines, vocab_size, cache=cache)
        assert "\n" not in str(caught.value)


def test_the_bounds_it_names_are_right():
    with pytest.raises(ValueError, match="at most") as caught:
        train(vocab_size=5000, cache=False)
    most = int(str(caught.value).split("at most ")[1].split()[0])
    with pytest.raises(ValueError, match="at least") as caught:
        train(vocab_size=270, cache=False)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert [train(vocab_size=size, cache=False).vocab_size for size in (least, most)] == [least, most]
    with pytest.raises(ValueError, match="at most"):
        train(vocab_size=most + 1, cache=False)
    with pytest.raises(ValueError, match="at least"):
        train(vocab_size=least - 1, cache=False)


def test_ids_and_texts_are_checked(tokeniser):
    for call in (tokeniser.decode, tokeniser.pieces):
        with pytest.raises(ValueError, match="ids must be from 0 to 299; got 300"):
            call([5, 300])
        with pytest.raises(ValueError, match="ids must be from 0 to 299; got -1"):
            call([-1])
    with pytest.raises(ValueError, match="text must be such that UTF-8 can write it"):
        tokeniser.encode("\ud83d")


def foreign_model(**settings):
    model = io.BytesIO()
    settings = {"vocab_size": 40, "model_type": "bpe", "minloglevel": 2, **settings}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=model, **settings)
    return model.getvalue()


IDS = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "model must number <pad>, <s>, </s>, <unk> as 0, 1, 2, 3; this one has -1, 1, 2, 0"),
        (IDS, "model must bring any text back as it is"),
        ({**IDS, "byte_fallback": True, "vocab_size": 300}, "model must bring any text back as it is"),
    ],
    ids=["ids", "bytes", "normalisation"],
)
def test_models_of_another_kind_are_refused(settings, complaint, tmp_path):
    (tmp_path / "other.model").write_bytes(foreign_model(**settings))
    with pytest.raises(UnreadableFile, match=f"other.model is no tokeniser .{complaint}.*: delete it"):
        Tokeniser.load(tmp_path / "other.model")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="these bytes cannot be parsed"):
        Tokeniser(b"junk")
    with pytest.raises(ValueError, match="model must number"):
        Tokeniser(b"")
    with pytest.raises(UnreadableFile, match="absent.model cannot be read"):
        Tokeniser.load(tmp_path / "absent.model")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtra, match="pip install sentencepiece.*`repro`"):
        train()
