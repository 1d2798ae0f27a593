"""Text as words."""

import pytest

from attn.data import words
from attn.data.language_text import TextConfig

EXTRACT = "<doc id=1>\nThe cat, the dog.\n\nthe end\n</doc>\n"


def test_words_of_a_tokenised_text_are_what_blanks_separate(word_corpus):
    word_corpus(train="a b a ,\n\na c\n", valid="c a\n", test="b\n")
    found = words.load_words(TextConfig(corpus="x"), None, True)
    # three ends of lines, three a's, and the rest once, in alphabetical order where equal
    assert found.words == ("<eos>", "a", ",", "b", "c")
    assert [found.words[i] for i in found.text.splits["train"].tolist()] == (
        ["a", "b", "a", ",", "<eos>", "<eos>", "a", "c", "<eos>"]
    )
    assert found.text.splits["valid"].tolist() == [4, 1, 0]
    assert found.text.vocab_size == 5 and found.text.checksums == {"made up": "0"}


def test_markup_and_empty_lines_of_an_extract_are_left_out(word_corpus):
    word_corpus(train=EXTRACT, valid=EXTRACT, test=EXTRACT)
    found = words.load_words(TextConfig(corpus="x"), None, False)
    read = [found.words[i] for i in found.text.splits["train"].tolist()]
    assert read == ["The", "cat", ",", "the", "dog", ".", "<eos>", "the", "end", "<eos>"]


def test_rare_words_are_one(word_corpus):
    word_corpus(train="a a a b b c d\n", valid="a z\n", test="b\n")
    found = words.load_words(TextConfig(corpus="x"), 4, True)
    assert found.words == ("a", "<unk>", "b", "<eos>")
    assert found.text.splits["train"].tolist() == [0, 0, 0, 2, 2, 1, 1, 3]
    assert found.text.splits["valid"].tolist() == [0, 1, 3]


def test_a_word_outside_the_vocabulary_is_named(word_corpus):
    word_corpus(train="a b\n", valid="zebra\n", test="b\n")
    with pytest.raises(ValueError, match="no <unk>; got 'zebra'"):
        words.load_words(TextConfig(corpus="x"), None, True)


def test_sizes_count_bytes(word_corpus):
    word_corpus(train="a b c d e\n", valid="a\n", test="b\n")
    found = words.load_words(TextConfig(corpus="x", train_size=3), None, True)
    assert sorted(found.words) == ["<eos>", "a", "b"]
