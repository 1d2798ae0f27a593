import random
import re
import sys

import pytest
import torch

from attn.data import spoken_numbers as module
from attn.data.errors import MissingExtra
from attn.data.registry import place_of
from attn.data.spoken_numbers import (
    cardinal,
    clock,
    day,
    draw_sentence,
    label,
    ordinal,
    price,
    spoken_numbers,
    year,
)


def draw(n_pairs, target="de", split="train", seed=0):
    return spoken_numbers(n_pairs, target=target, split=split, generator=torch.Generator().manual_seed(seed))


# --- the words, read back by a parser of their grammar ---

UNITS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
    "de": "null eins zwei drei vier f\u00fcnf sechs sieben acht neun zehn elf zw\u00f6lf dreizehn vierzehn f\u00fcnfzehn sechzehn "
    "siebzehn achtzehn neunzehn",
    "fr": "z\u00e9ro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
}
TENS = {
    "en": "twenty thirty forty fifty sixty seventy eighty ninety",
    "de": "zwanzig drei\u00dfig vierzig f\u00fcnfzig sechzig siebzig achtzig neunzig",
    "fr": "vingt trente quarante cinquante soixante",
}


def values(language):
    words = {word: number for number, word in enumerate(UNITS[language].split())}
    return words | {word: 20 + 10 * i for i, word in enumerate(TENS[language].split())}


def read_spaced(text, words, hundred, thousand):
    """English and French: words add up, a hundred or thousand multiplies what is before it."""
    total = part = 0
    for word in re.split("[ -]", text):
        if word == thousand:
            total, part = max(part, 1) * 1000, 0
        elif word == hundred:
            part = max(part, 1) * 100
        else:
            part += words[word]
    return total + part


def read(text, language):
    words = values(language)
    if language == "en":
        return read_spaced(text, words, "hundred", "thousand")
    if language == "fr":
        text = text.replace(" et ", " ").replace("cents", "cent").replace("quatre-vingts", "quatre-vingt")
        return read_spaced(
            text.replace("quatre-vingt", "huitante"), words | {"huitante": 80}, "cent", "mille"
        )
    for mark, unit in (("tausend", 1000), ("hundert", 100)):
        if mark in text:
            before, _, after = text.partition(mark)
            return read(before, "de") * unit + (read(after, "de") if after else 0)
    if text in words | {"ein": 1}:
        return (words | {"ein": 1})[text]
    one, _, ten = text.partition("und")
    return read(one, "de") + words[ten]


@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_numbers_say_what_they_are(language):
    numbers = [*range(202), *range(202, 99_999, 377), 1000, 80_000, 80_080, 200_000]
    wrong = {
        n: getattr(cardinal(n), language)
        for n in numbers
        if read(getattr(cardinal(n), language), language) != n
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("phrase", "en", "de", "fr"),
    [
        (cardinal(21), "twenty-one", "einundzwanzig", "vingt et un"),
        (cardinal(71), "seventy-one", "einundsiebzig", "soixante et onze"),
        (cardinal(80), "eighty", "achtzig", "quatre-vingts"),
        (cardinal(81), "eighty-one", "einundachtzig", "quatre-vingt-un"),
        (cardinal(1999), "one thousand nine hundred ninety-nine", "eintausendneunhundertneunundneunzig",
         "mille neuf cent quatre-vingt-dix-neuf"),
        (label(80), "eighty", "achtzig", "quatre-vingt"),
        (label(300), "three hundred", "dreihundert", "trois cent"),
        (ordinal(1), "first", "erste", "premier"),
        (ordinal(3), "third", "dritte", "troisi\u00e8me"),
        (ordinal(21), "twenty-first", "einundzwanzigste", "vingt et uni\u00e8me"),
        (year(1987), "nineteen eighty-seven", "neunzehnhundertsiebenundachtzig", "mille neuf cent quatre-vingt-sept"),
        (year(1800), "eighteen hundred", "achtzehnhundert", "mille huit cent"),
        (year(2005), "two thousand five", "zweitausendf\u00fcnf", "deux mille cinq"),
        (day(5, 1), "the first of May", "ersten Mai", "premier mai"),
        (day(8, 21), "the twenty-first of August", "einundzwanzigsten August", "vingt et un ao\u00fbt"),
        (clock(1, 0), "one o'clock", "ein Uhr", "une heure"),
        (clock(1, 10), "ten past one", "zehn nach eins", "une heure dix"),
        (clock(3, 30), "half past three", "halb vier", "trois heures et demie"),
        (clock(11, 30), "half past eleven", "halb zw\u00f6lf", "onze heures et demie"),
        (clock(4, 15), "a quarter past four", "Viertel nach vier", "quatre heures et quart"),
        (clock(4, -15), "a quarter to four", "Viertel vor vier", "quatre heures moins le quart"),
        (clock(4, -10), "ten to four", "zehn vor vier", "quatre heures moins dix"),
        (price(12, 50), "twelve euros and fifty cents", "zw\u00f6lf Euro und f\u00fcnfzig Cent",
         "douze euros et cinquante centimes"),
        (price(80, 0), "eighty euros", "achtzig Euro", "quatre-vingts euros"),
    ],
)  # fmt: skip
def test_phrases(phrase, en, de, fr):
    assert phrase == (en, de, fr)


# --- sentences ---


def test_templates_have_the_same_slots_in_each_language():
    for template in module._TEMPLATES:
        slots = [sorted(re.findall(r"\{(\w+)\}", text)) for text in template]
        assert slots[0] == slots[1] == slots[2] and slots[0]
        assert set(slots[0]) <= set(module._SLOTS)
    used = {name for names in module._FIELDS.values() for name in names}
    assert used == set(module._SLOTS)


def test_every_slot_can_be_filled_in_each_language():
    rng = random.Random(0)
    for name, slot in module._SLOTS.items():
        phrases = [slot(rng) for _ in range(60)]
        assert all(
            text and text == text.strip() and "{" not in text for phrase in phrases for text in phrase
        ), name
        assert len(set(phrases)) >= 6, name


@pytest.mark.parametrize(
    ("drawn", "said"), [(101, "einhundert"), (4501, "viertausendfünfhundert"), (99, "neunundneunzig")]
)
def test_what_is_counted_never_ends_in_one_hundred_one(drawn, said, monkeypatch):
    """German would have to decline it: "hunderteins Bücher" is no German."""
    rng = random.Random(0)
    monkeypatch.setattr(rng, "randint", lambda low, high: drawn)
    assert module._SLOTS["people"](rng).de == said


def test_sentences_are_sentences():
    for sentence in (draw_sentence(random.Random(seed)) for seed in range(300)):
        for text in sentence:
            assert text[0].isupper() and text.endswith(".") and "  " not in text and "{" not in text
            assert text.isprintable() and "\xad" not in text


@pytest.mark.parametrize("target", ["de", "fr"])
def test_there_is_enough_for_bleu(target):
    """Four-grams in every sentence, six words and more on average, and no two English sides alike."""
    text = draw(200, target, "test")
    for side in (text.source, text.target):
        lengths = [len(line.split()) for line in side]
        assert min(lengths) >= 4 and sum(lengths) / len(lengths) >= 8
    assert len(set(text.source)) == len(text) == 200


def test_a_text_is_named_as_generated_and_told_by_its_checksum():
    text = draw(20)
    assert text.generated and "generated" in text.title and text.name == "spoken-numbers/train en-de"
    assert text.languages == ("en", "de")
    assert text.checksums == {"spoken-numbers/train en-de": text.sha256}
    assert draw(20).sha256 == text.sha256 != draw(20, seed=1).sha256


def test_splits_are_disjoint_whatever_generator_draws():
    splits = {}
    for name in module.SPLITS:
        splits[name] = {line for seed in (0, 1) for line in draw(60, split=name, seed=seed).source}
        start, stop = module.SPLITS[name]
        assert all(start <= place_of(line) < stop for line in splits[name])
    assert sum(map(len, splits.values())) == len(set.union(*splits.values()))
    assert draw(60, seed=0).source != draw(60, seed=1).source


def test_one_generator_gives_the_same_sentences_in_both_languages():
    assert draw(50, "de").source == draw(50, "fr").source


def test_pairs_mean_the_same():
    """Numbers of a sum, read back from both sides; and the towns and months that have names of their own."""
    text = draw(800)
    sums = [pair for pair in text if " plus " in pair[0]]
    assert len(sums) > 30
    for english, german in sums:
        left = [read(words.lower(), "en") for words in re.split(" plus | is ", english.rstrip("."))]
        right = [read(words.lower(), "de") for words in re.split(" plus | ist ", german.rstrip("."))]
        assert left == right and left[0] + left[1] == left[2]
    for english, german in (
        ("Vienna", "Wien"),
        ("March", "M\u00e4rz"),
        ("Wednesday", "Mittwoch"),
        ("half past", "halb "),
    ):
        assert [english in line for line in text.source] == [german in line for line in text.target]


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"n_pairs": 0}, "n_pairs must be a whole number of at least 1; got 0"),
        ({"n_pairs": 2.0}, "n_pairs must be a whole number of at least 1; got 2.0"),
        ({"n_pairs": 1, "target": "es"}, "target must be one of de, fr; got 'es'"),
        ({"n_pairs": 1, "split": "dev"}, "split must be one of train, valid, test; got 'dev'"),
    ],
)
def test_bad_arguments_are_named(facts, complaint):
    with pytest.raises(ValueError, match=complaint):
        draw(**facts)


def test_running_out_of_sentences_is_told(monkeypatch):
    monkeypatch.setattr(module, "_TEMPLATES", module._TEMPLATES[2:3])
    monkeypatch.setitem(module._SLOTS, "price", lambda rng: price(rng.randint(2, 5), 0))
    with pytest.raises(ValueError, match=r"n_pairs must be at most about \d\d in train; got 100"):
        draw(100)


@pytest.mark.parametrize(
    ("module_name", "package"), [("unicode_rbnf", "unicode-rbnf"), ("babel.dates", "babel")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module_name, package):
    module._engine.cache_clear(), module._spell.cache_clear(), module._months.cache_clear()
    monkeypatch.setitem(sys.modules, module_name, None)
    with pytest.raises(MissingExtra, match=f"pip install {package}`.*`repro`"):
        day(5, 3)
