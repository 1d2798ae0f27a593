"""Generated translation: English sentences about numbers, dates, times and prices, in German or French.

No human wrote these sentences. Numbers in words come from the rules of the Unicode CLDR (package unicode-rbnf), names
of months and weekdays from its locale data (package babel), and a dozen templates below make sentences of them. They
ask of a model what translation asks, in little: words that move (verbs and particles at the end of a German clause,
units before tens, half past three as "halb vier"), agreement, and names that are copied or change.
"""

from __future__ import annotations

import calendar
import functools
import random
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch

from attn.data.errors import MissingExtra
from attn.data.registry import place_of
from attn.data.translation import ParallelText

TARGETS = ("de", "fr")
# A sentence belongs to a split by `place_of` its English side, whatever generator draws it.
SPLITS = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}

_CARDINAL = {"en": "spellout-cardinal", "de": "spellout-numbering", "fr": "spellout-cardinal-masculine"}
_ORDINAL = {"en": "spellout-ordinal", "de": "spellout-ordinal", "fr": "spellout-ordinal-masculine"}


class Phrase(NamedTuple):
    """The same thing said in three languages."""

    en: str
    de: str
    fr: str


def spoken_numbers(
    n_pairs: int, *, target: str, split: str = "train", generator: torch.Generator
) -> ParallelText:
    """Draw sentence pairs, all English sides different.

    Splits are disjoint for all generators: each English sentence belongs to one of them by a hash. (So test
    sentences are new as a whole; their numbers and phrases are not.)

    Args:
        n_pairs: how many, at least 1.
        target: "de" or "fr"; the source is English.
        split: "train", "valid" or "test".
        generator: source of randomness, on the CPU.

    Raises:
        ValueError: if an argument is none of these, or there are not so many sentences.
        MissingExtra: if unicode-rbnf or babel is not installed.
    """
    if type(n_pairs) is not int or n_pairs < 1:
        raise ValueError(f"n_pairs must be a whole number of at least 1; got {n_pairs!r}")
    for name, value, valid in (("target", target, TARGETS), ("split", split, tuple(SPLITS))):
        if value not in valid:
            raise ValueError(f"{name} must be one of {', '.join(valid)}; got {value!r}")
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    start, stop = SPLITS[split]
    pairs: dict[str, str] = {}
    misses = 0
    while len(pairs) < n_pairs:
        sentence = draw_sentence(rng)
        if sentence.en in pairs or not start <= place_of(sentence.en) < stop:
            misses += 1
            if misses > 1000 + 100 * n_pairs:
                raise ValueError(f"n_pairs must be at most about {len(pairs)} in {split}; got {n_pairs}")
            continue
        pairs[sentence.en] = getattr(sentence, target)
    text = ParallelText(
        name=f"spoken-numbers/{split} en-{target}",
        languages=("en", target),
        source=tuple(pairs),
        target=tuple(pairs.values()),
        title="Spoken numbers (generated sentences)",
        licence="Generated; words of numbers and dates from the Unicode CLDR (Unicode License)",
        generated=True,
    )
    return replace(text, checksums={text.name: text.sha256})


# --- words of numbers ---------------------------------------------------------------------------------------


def cardinal(n: int) -> Phrase:
    """A number in words, as one says it when counting: "one", "eins", "un"."""
    return Phrase(*(_spell(n, language, _CARDINAL[language]) for language in Phrase._fields))


def label(n: int) -> Phrase:
    """A number that names one thing, as a page or year; French then has no plural: "page quatre-vingt"."""
    words = cardinal(n)
    return words._replace(fr=re.sub(r"(cent|quatre-vingt)s$", r"\1", words.fr))


def ordinal(n: int) -> Phrase:
    """A rank in words: "third", "dritte", "troisième"."""
    return Phrase(*(_spell(n, language, _ORDINAL[language]) for language in Phrase._fields))


def year(n: int) -> Phrase:
    """A year in words: "nineteen eighty-four", "neunzehnhundertvierundachtzig", "mille neuf cent ..."."""
    words = [_spell(n, language, "spellout-numbering-year") for language in ("en", "de")]
    return Phrase(*words, label(n).fr)  # the rules have the older "dix-neuf-cent"


def day(month: int, number: int) -> Phrase:
    """A day of the year: "the third of May", "dritten Mai" (as after "am"), "trois mai"."""
    english, german, french = (_months(language)[month] for language in Phrase._fields)
    french_number = "premier" if number == 1 else cardinal(number).fr
    rank = ordinal(number)
    return Phrase(f"the {rank.en} of {english}", f"{rank.de}n {german}", f"{french_number} {french}")


def clock(hour: int, minute: int) -> Phrase:
    """A time of day on the twelve-hour clock.

    Args:
        hour: 1 to 11, the hour that is named in English.
        minute: -25 (to the hour) to 30 (past it), in steps of 5.
    """
    english, german, french = cardinal(hour)
    french = "une heure" if hour == 1 else f"{french} heures"
    if minute == 0:
        return Phrase(f"{english} o'clock", "ein Uhr" if hour == 1 else f"{german} Uhr", french)
    if minute == 30:
        return Phrase(f"half past {english}", f"halb {cardinal(hour + 1).de}", f"{french} et demie")
    if minute == 15:
        return Phrase(f"a quarter past {english}", f"Viertel nach {german}", f"{french} et quart")
    if minute == -15:
        return Phrase(f"a quarter to {english}", f"Viertel vor {german}", f"{french} moins le quart")
    number = cardinal(abs(minute))
    if minute > 0:
        return Phrase(f"{number.en} past {english}", f"{number.de} nach {german}", f"{french} {number.fr}")
    return Phrase(f"{number.en} to {english}", f"{number.de} vor {german}", f"{french} moins {number.fr}")


def price(euros: int, cents: int) -> Phrase:
    """An amount of money, 2 or more euros and 0 or 2 or more cents."""
    whole, rest = cardinal(euros), cardinal(cents)
    if not cents:
        return Phrase(f"{whole.en} euros", f"{whole.de} Euro", f"{whole.fr} euros")
    return Phrase(
        f"{whole.en} euros and {rest.en} cents",
        f"{whole.de} Euro und {rest.de} Cent",
        f"{whole.fr} euros et {rest.fr} centimes",
    )


@functools.cache
def _spell(n: int, language: str, rules: str) -> str:
    text = _engine(language).format_number(n, ruleset_names=[rules]).text
    # The French rules write "vingt-et-un" but "cent un": the older spelling has no hyphen in either.
    return text.replace("-et-", " et ") if language == "fr" else text


@functools.cache
def _engine(language: str):
    return _need("unicode_rbnf", "unicode-rbnf").RbnfEngine.for_language(language)


@functools.cache
def _months(language: str) -> dict[int, str]:
    return dict(_need("babel.dates", "babel").get_month_names("wide", locale=language))


@functools.cache
def _weekdays(language: str) -> dict[int, str]:
    return dict(_need("babel.dates", "babel").get_day_names("wide", locale=language))


def _need(module: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"spoken numbers need the package {package}, which is not installed: run `pip install {package}`, "
            f"or install the extra `repro`"
        ) from error


# --- what sentences are made of -----------------------------------------------------------------------------


def _phrases(table: str) -> list[Phrase]:
    """One phrase a line or a semicolon, languages separated by slashes."""
    return [Phrase(*entry.strip().split("/")) for entry in re.split("[;\n]", table.strip())]


# Towns, some with a name of their own in each language.
_TOWNS = _phrases("""
Vienna/Wien/Vienne; Munich/München/Munich; Geneva/Genf/Genève; Cologne/Köln/Cologne; London/London/Londres
Brussels/Brüssel/Bruxelles; Lisbon/Lissabon/Lisbonne; Warsaw/Warschau/Varsovie; Milan/Mailand/Milan
Paris/Paris/Paris; Berlin/Berlin/Berlin; Prague/Prag/Prague
""")
_NAMES = [
    Phrase(*[name] * 3) for name in "Paul Thomas Martin Simon Daniel Robert Victor Oscar Hugo Lucas".split()
]
# One thing with its article, to be priced; many things, to be counted (masculine in French, for "vingt et un").
_ITEMS = _phrases("""
the book/das Buch/le livre; the coat/der Mantel/le manteau; the hat/der Hut/le chapeau; the lamp/die Lampe/la lampe
the table/der Tisch/la table; the bicycle/das Fahrrad/le vélo; the picture/das Bild/le tableau
the clock/die Uhr/l'horloge; the car/das Auto/la voiture; the ticket/die Karte/le billet
""")
_GOODS = _phrases("""
books/Bücher/livres; pencils/Bleistifte/crayons; hats/Hüte/chapeaux; tickets/Karten/billets
stamps/Briefmarken/timbres; pictures/Bilder/tableaux; coats/Mäntel/manteaux; dogs/Hunde/chiens; cats/Katzen/chats
umbrellas/Regenschirme/parapluies
""")

# Each slot is drawn by the entry of its name in `_SLOTS`, once a sentence.
_TEMPLATES = (
    Phrase(
        "on {weekday} the train to {town} leaves at {time}.",
        "am {weekday} fährt der Zug nach {town} um {time} ab.",
        "{weekday}, le train pour {town} part à {time}.",
    ),
    Phrase(
        "{name} was born in {town} on {date}.",
        "{name} wurde am {date} in {town} geboren.",
        "{name} est né à {town} le {date}.",
    ),
    Phrase("{item} costs {price}.", "{item} kostet {price}.", "{item} coûte {price}."),
    Phrase(
        "{name} bought {count} {goods} for {price}.",
        "{name} hat {count} {goods} für {price} gekauft.",
        "{name} a acheté {count} {goods} pour {price}.",
    ),
    Phrase(
        "in {year} {town} had {people} inhabitants.",
        "im Jahr {year} hatte {town} {people} Einwohner.",
        "en {year}, {town} comptait {people} habitants.",
    ),
    Phrase(
        "the meeting on {weekday}, {day}, begins at {time}.",
        "die Sitzung am {weekday}, dem {day}, beginnt um {time}.",
        "la réunion du {weekday} {day} commence à {time}.",
    ),
    Phrase(
        "{name} finished {place} out of {runners} runners.",
        "{name} wurde {place} von {runners} Läufern.",
        "{name} a fini {place} sur {runners} coureurs.",
    ),
    Phrase(
        "the {rank} chapter begins on page {page}.",
        "das {rank} Kapitel beginnt auf Seite {page}.",
        "le {rank} chapitre commence à la page {page}.",
    ),
    Phrase("{sum}.", "{sum}.", "{sum}."),
    Phrase(
        "the shop is closed from {day} to {last_day}.",
        "das Geschäft ist vom {day} bis zum {last_day} geschlossen.",
        "le magasin est fermé du {day} au {last_day}.",
    ),
    Phrase(
        "the castle was built between {years}.",
        "das Schloss wurde zwischen {years} gebaut.",
        "le château a été construit entre {years}.",
    ),
    Phrase(
        "there are {count} offices on the {floor} floor.",
        "im {floor} Stock gibt es {count} Büros.",
        "il y a {count} bureaux au {floor} étage.",
    ),
)
_FIELDS = {template: re.findall(r"\{(\w+)\}", template.en) for template in _TEMPLATES}


def draw_sentence(rng: random.Random) -> Phrase:
    """A random template with its slots filled."""
    template = rng.choice(_TEMPLATES)
    words = {name: _SLOTS[name](rng) for name in _FIELDS[template]}
    return Phrase(*(_sentence(template, words, language) for language in Phrase._fields))


def _sentence(template: Phrase, words: dict[str, Phrase], language: str) -> str:
    slots = {name: getattr(phrase, language) for name, phrase in words.items()}
    text = getattr(template, language).format(**slots)
    return text[0].upper() + text[1:]


def _count(rng: random.Random, most: int) -> Phrase:
    """2 or more of something; not 101, which German cannot say of things without declining it."""
    n = rng.randint(2, most)
    return cardinal(n - 1 if n % 100 == 1 and n > 100 else n)


def _weekday(rng: random.Random) -> Phrase:
    number = rng.randrange(7)
    return Phrase(*(_weekdays(language)[number] for language in Phrase._fields))


def _day(rng: random.Random) -> Phrase:
    month = rng.randint(1, 12)
    return day(month, rng.randint(1, calendar.mdays[month]))


def _date(rng: random.Random) -> Phrase:
    of_year, number = _day(rng), _year(rng)
    return Phrase(f"{of_year.en}, {number.en}", f"{of_year.de} {number.de}", f"{of_year.fr} {number.fr}")


def _year(rng: random.Random) -> Phrase:
    return year(rng.randint(*_YEARS))


def _years(rng: random.Random) -> Phrase:
    first, last = (year(n) for n in sorted(rng.sample(range(*_YEARS), 2)))
    return Phrase(f"{first.en} and {last.en}", f"{first.de} und {last.de}", f"{first.fr} et {last.fr}")


def _price(rng: random.Random) -> Phrase:
    return price(rng.randint(2, 100), rng.choice([0, rng.randint(2, 99)]))


def _place(rng: random.Random) -> Phrase:
    rank = ordinal(rng.randint(1, 19))
    return Phrase(rank.en, f"{rank.de}r".capitalize(), rank.fr)


def _floor(rng: random.Random) -> Phrase:
    rank = ordinal(rng.randint(1, 20))
    return Phrase(rank.en, f"{rank.de}n", rank.fr)


def _sum(rng: random.Random) -> Phrase:
    numbers = rng.randint(2, 99), rng.randint(2, 99)
    a, b, c = (cardinal(n) for n in (*numbers, sum(numbers)))
    return Phrase(
        f"{a.en} plus {b.en} is {c.en}", f"{a.de} plus {b.de} ist {c.de}", f"{a.fr} plus {b.fr} font {c.fr}"
    )


_YEARS = (1800, 2030)
_SLOTS: dict[str, Callable[[random.Random], Phrase]] = {
    "count": lambda rng: _count(rng, 200),
    "date": _date,
    "day": _day,
    "floor": _floor,
    "goods": lambda rng: rng.choice(_GOODS),
    "item": lambda rng: rng.choice(_ITEMS),
    "last_day": _day,
    "name": lambda rng: rng.choice(_NAMES),
    "page": lambda rng: label(rng.randint(2, 400)),
    "people": lambda rng: _count(rng, 99_999),
    "place": _place,
    "price": _price,
    "rank": lambda rng: ordinal(rng.randint(1, 31)),
    "runners": lambda rng: cardinal(rng.randint(20, 99)),
    "sum": _sum,
    "time": lambda rng: clock(rng.randint(1, 11), rng.randrange(-25, 31, 5)),
    "town": lambda rng: rng.choice(_TOWNS),
    "weekday": _weekday,
    "year": _year,
    "years": _years,
}
