"""What chapter 5 shows as tables and words: baselines, use of the memories, and what slots are read for.

What came out otherwise than in print is in `departures`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import log
from statistics import fmean

import numpy as np

from attn.data import registry
from attn.experiments.product_keys.concepts import multiplications
from attn.experiments.product_keys.counts import memory_parameters
from attn.experiments.product_keys.inside import LEAST_READS, N_WORDS_SHOWN, short_list
from attn.experiments.product_keys.runs import (
    BASE,
    JOINED,
    KEYS,
    MODELS,
    PAPER,
    TOPK,
    WITHOUT,
    n_parameters,
    trunk,
)
from attn.experiments.product_keys.speeds import listed, time_ratios
from attn.experiments.product_keys.tables import LEAST_LOOKUPS, memory_metric, perplexity
from attn.experiments.product_keys.texts import OWN
from attn.experiments.product_keys.workloads import TextRunConfig
from attn.reproduction.claims import HOLDS, Verdict, t_interval
from attn.reproduction.experiment import BOOK_PROFILE, Chapter
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import BLANK, Cell, Grid, Html, linked, plain
from attn.reproduction.records import Record
from attn.reproduction.speed import Speed

Seeds = Sequence[Record]
_NONE_YET = ["No records yet."]
_NOT_TIMED = "The time of a forward pass is not measured yet."
_NOTHING = Html('<p class="attn-note">No records yet.</p>', "No records yet.")


# --- what holds ----------------------------------------------------------------------------------------------------


def holding_words(chapter: Chapter, verdicts: Sequence[Verdict]) -> str:
    """What the tests that hold are about, a sentence: texts, key-value facts, or what is counted."""
    about = {
        claim.id: {chapter.experiment(name).task for name in claim.experiments} for claim in chapter.claims
    }
    held = [about[verdict.id] for verdict in verdicts if verdict.verdict == HOLDS]
    counted = sum(not tasks for tasks in held)
    facts = sum(tasks == {"facts"} for tasks in held)
    text = len(held) - counted - facts
    if not held:
        return "No test holds yet."
    return (
        f"Of the {len(held)} tests that hold, {text or 'none'} {'are' if text > 1 else 'is'} on a text or its "
        f"perplexity; on key-value facts, a task of ours: {facts}; on what the code counts, without training: {counted}."
    )


# --- models that stand for printed ones ----------------------------------------------------------------------------


def stand_in(chapter: Chapter, experiment: str, *, profile: str = BOOK_PROFILE) -> str:
    """A model by its printed sizes, and by those it has at a profile where they are others."""
    label, printed = chapter.experiment(experiment).label, MODELS[experiment]
    model = chapter.experiment(experiment).config(profile).model
    if (model.n_layers, model.d_model) == (printed.layers, printed.dim):
        return label
    return f"{label} (here {model.n_layers} of {model.d_model})"


def stand_in_words(chapter: Chapter, *, profile: str = BOOK_PROFILE) -> list[str]:
    """Which sizes stand for which printed ones, in sentences."""
    sizes: dict[str, str] = {}
    for name, printed in MODELS.items():
        if printed.grown or profile not in chapter.experiment(name).configs:
            continue
        model = chapter.experiment(name).config(profile).model
        sizes[f"{printed.layers} of {printed.dim}"] = f"{model.n_layers} of {model.d_model}"
    memory = chapter.experiment(BASE).config(profile).model.memory
    pairs = "; ".join(f"{ours} for {printed}" for printed, ours in sizes.items())
    return [
        f"Models at {profile} and the printed ones that they stand for, layers and width: {pairs}.",
        f"For a memory of {KEYS**2:,} slots, of which a head reads {TOPK}, stands one of {memory.n_keys**2:,}, of which "
        f"it reads {memory.topk}; other memories are smaller in the same ratio.",
    ]


def run_words(chapter: Chapter, experiment: str, *, profile: str = BOOK_PROFILE) -> str:
    """What a model with a memory is and reads in training, a sentence."""
    config = chapter.experiment(experiment).config(profile)
    model, memory = config.model, config.model.memory
    return (
        f"{stand_in(chapter, experiment, profile=profile)}: memory in layer {', '.join(map(str, model.memories))}, "
        f"{memory.n_keys**2:,} slots, {memory.n_heads} heads, k = {memory.topk}; {config.training.max_steps:,} updates "
        f"of {config.n_rows} segments of {config.block} subwords, each read without what came before it."
    )


# --- the texts -------------------------------------------------------------------------------------------------


def data_table() -> Html:
    """What the language models read, by profile: sizes, source and licence."""
    columns = ["Profile", "Text", "Subwords", "Training", "Validation", "Test", "Source", "Licence"]
    grid = Grid(plain("Texts of the language models; sizes in bytes from the start of each split"), columns)
    for profile, budget in load_papers()[PAPER].budgets["text"].items():
        text = budget["text"]
        title, licence, home = _origin(text["corpus"])
        sizes = [_size(text[f"{split}_size"]) for split in ("train", "valid", "test")]
        if short := budget["small_text"].get("train_size"):
            sizes[0] += f"; {_size(short)} where a short text is read many times"
        grid.add(
            [linked(cell) for cell in (profile, title, f"{text['vocab_size']:,}", *sizes, home, licence)]
        )
    grid.notes = [
        plain("Facts to be recalled are drawn by a program: they have no source, and need no licence.")
    ]
    return grid.render()


def _size(size: int | None) -> str:
    return "all" if size is None else f"first {size:,}"


def _origin(corpus: str) -> tuple[str, str, str]:
    """Title, licence and home of a text; a stand-in for the paper's is called one."""
    if corpus == OWN:
        return "a text of your own", "that of your text", BLANK
    found = registry.get(corpus)
    return f"{found.title}, in the place of the paper's news articles", found.licence, found.home


def extract_words() -> str:
    """How many numbers the values of a memory at profile gpu hold for each word of the training text, a sentence."""
    budget = load_papers()[PAPER].budgets["text"]["gpu"]
    model, corpus = trunk(MODELS[BASE], budget), registry.get(budget["text"]["corpus"])
    n_numbers, train = model.memory.n_keys**2 * model.d_model, corpus.split("train")
    n_words, share = _number_before(" words", corpus.about), train.stop - train.start
    return (
        f"At gpu, a memory has {n_numbers:,} numbers in its values: about {n_numbers / (share * n_words):.0f} for each "
        f"word of the training text, which is {share:.0%} of {corpus.title}, of {n_words:,} words."
    )


def passes_words(seeds: Seeds) -> str:
    """How often runs of one config read their training text, a sentence."""
    if not seeds:
        return _NONE_YET[0]
    record = seeds[0]
    n_tokens = _number_before(" tokens of", record.data["metrics"]["unigram_perplexity_test"]["definition"])
    seen = record.data["run"]["seen"]
    return (
        f"At {record.data['profile']}, a run of the ablation model reads {seen:,} tokens of a training text of "
        f"{n_tokens:,}: {seen / n_tokens:.2f} passes."
    )


def _number_before(unit: str, text: str) -> int:
    """The number that stands first before a unit."""
    return int(re.search(rf"([\d,]+){re.escape(unit)}", text)[1].replace(",", ""))


# --- baselines -------------------------------------------------------------------------------------------------


def baselines_table(chapter: Chapter, records: Mapping[str, Seeds], *, profile: str = BOOK_PROFILE) -> Html:
    """Models of a profile beside each other: what they have, what they cost and what they reach, by experiment."""
    columns = ["Model", "Parameters", "Multiply-adds a token", "Test perplexity", "Bits per byte",
               "Perplexity on training text", "Seeds"]  # fmt: skip
    grid = Grid(plain(f"Models of profile {profile}, means over seeds"), columns)
    for experiment, seeds in records.items():
        if profile not in chapter.experiment(experiment).configs:
            continue
        config = chapter.experiment(experiment).config(profile)
        parameters, cost = _sizes(config)
        metrics = {"perplexity_test": ".1f", "bits_per_byte_test": ".3f", "perplexity_train": ".1f"}
        means = [_mean(seeds, name, form) for name, form in metrics.items()]
        label = stand_in(chapter, experiment, profile=profile)
        cells = (label, f"{parameters:,}", f"{cost:,}", *means, len(seeds) or BLANK)
        grid.add(list(map(plain, cells)))
    unigrams = {record.metric("unigram_perplexity_test") for seeds in records.values() for record in seeds}
    for unigram in sorted(unigrams):  # one, where all models are scored on one text
        cells = ("frequencies of subwords alone", BLANK, BLANK, f"{unigram:.1f}", BLANK, BLANK, BLANK)
        grid.add(list(map(plain, cells)))
    grid.notes = [
        plain("Multiply-adds: products of a forward pass and the sums of values; attention scores left out."),
        plain(
            "Perplexity on training text: after training, on segments evenly spaced over what a run read in its first "
            "pass, together about as long as the validation text."
        ),
    ]
    return grid.render()


@cache
def _sizes(config: TextRunConfig) -> tuple[int, int]:
    vocab_size = config.text.vocab_size
    parameters = n_parameters(config.model, vocab_size=vocab_size, max_len=config.block)
    return parameters, multiplications(config.model, vocab_size=vocab_size, block=config.block)


def seeds_text(seeds: Seeds) -> str:
    """How many runs there are, in words."""
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"


def _mean(seeds: Seeds, metric: str, form: str) -> str:
    return format(fmean(record.metric(metric) for record in seeds), form) if seeds else BLANK


def sweep_words(chapter: Chapter, names: Iterable[str], *, profile: str = BOOK_PROFILE) -> str:
    """How far parameters and arithmetic of some models differ, a sentence."""
    names = [name for name in names if profile in chapter.experiment(name).configs]
    if not names:
        return f"No such models at profile {profile}."
    sizes = [_sizes(chapter.experiment(name).config(profile)) for name in names]
    (few, many), (least, most) = ((min(side), max(side)) for side in zip(*sizes, strict=True))
    parameters = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    return (
        f"These models have {parameters} parameters and take {least:,} to {most:,} multiply-adds a token, the dearest "
        f"{most / least:.2f} times as many as the cheapest."
    )


def ends_words(by_slots: Mapping[int, Seeds]) -> str:
    """What the smallest memory costs beside the largest, and how many neighbours are told apart, in sentences.

    Args:
        by_slots: runs by slots; those of the seeds that all sizes have are compared.
    """
    costs = {
        slots: {r.seed: perplexity(r) for r in by_slots[slots]}
        for slots in sorted(by_slots)
        if by_slots[slots]
    }
    seeds = sorted(set.intersection(*map(set, costs.values()))) if costs else []
    if len(costs) < 3 or len(seeds) < 2:
        return "Too few sizes and seeds are recorded to compare the ends of the sweep."

    def difference(few: int, many: int) -> list[float]:
        return [costs[few][seed] - costs[many][seed] for seed in seeds]

    few, *_, many = costs
    low, high = t_interval(difference(few, many))
    neighbours = [t_interval(difference(*pair)) for pair in pairwise(costs)]
    n_apart = sum(not least <= 0 <= most for least, most in neighbours)
    ends = f"the ends of the sweep {'are not' if low <= 0 <= high else 'are'}"
    return (
        f"Of {len(neighbours)} pairs of neighbouring sizes, {n_apart or 'none'} {'is' if n_apart == 1 else 'are'} told "
        f"apart by the interval of their difference; {ends}: test perplexity with {few:,} slots minus with {many:,}, "
        f"paired by seed, {fmean(difference(few, many)):.2f} [{low:.2f}, {high:.2f}], {len(seeds)} seeds. This "
        "comparison was set after the records were there, and decides no verdict."
    )


def cost_words(
    chapter: Chapter, found: Sequence[Speed], without: str, other: str, *, profile: str = BOOK_PROFILE
) -> list[str]:
    """Arithmetic and time of a model beside those of the same model without a memory, in sentences."""
    costs = [_sizes(chapter.experiment(name).config(profile))[1] for name in (other, without)]
    labels = [stand_in(chapter, name, profile=profile) for name in (other, without)]
    arithmetic = costs[0] / costs[1]
    times = time_ratios(found, *labels)
    lines = [f"{labels[0]}: {arithmetic:.2f} times the multiply-adds a token of {labels[1]}."]
    if not times:
        return [*lines, _NOT_TIMED]
    lines.append(f"Time of a forward pass beside that model: {listed(times)}.")
    if min(times.values()) > arithmetic:
        lines.append(
            "Finding the highest scores and fetching rows take time that multiply-adds do not count."
        )
    return lines


def depth_words(
    chapter: Chapter,
    records: Mapping[str, Seeds],
    found: Sequence[Speed],
    shallow: str,
    deep: str,
    *,
    profile: str = BOOK_PROFILE,
) -> list[str]:
    """The model with a memory beside the deeper one without, in sentences; nothing of a time that was not measured."""
    labels = [stand_in(chapter, name, profile=profile) for name in (shallow, deep)]
    times = time_ratios(found, *labels)
    said = [f"Its time of a forward pass beside the deeper model's: {listed(times)}."] if times else []
    if not (records.get(shallow) and records.get(deep)):
        return [f"{labels[0]}, beside {labels[1]}: no records of both yet.", *said]
    costs = [fmean(map(perplexity, records[name])) for name in (shallow, deep)]
    order = "less" if costs[0] < costs[1] else "more"
    return [
        f"The shallow model with a memory, {labels[0]}, has a test perplexity of {costs[0]:.1f} "
        f"({seeds_text(records[shallow])}), {order} than the {costs[1]:.1f} ({seeds_text(records[deep])}) of the model "
        f"of twice the depth without, {labels[1]}.",
        *said,
    ]


def joined_words(records: Mapping[str, Seeds]) -> list[str]:
    """A memory beside the feed-forward sub-layer, in its place, and none, in a sentence."""
    if not (records.get(BASE) and records.get(JOINED)):
        return _NONE_YET
    names = {JOINED: "beside the feed-forward layer", BASE: "in its place", WITHOUT: "without a memory"}
    parts = [
        f"{fmean(map(perplexity, records[name])):.1f} {where} ({seeds_text(records[name])})"
        for name, where in names.items()
        if records.get(name)
    ]
    return [f"Test perplexity of the ablation model, means over seeds: {', '.join(parts)}."]


# --- use -----------------------------------------------------------------------------------------------------


def use_table(groups: Mapping[str, Seeds]) -> Html:
    """Look-ups a slot, usage and divergences by both definitions, means over seeds."""
    columns = ["Memory", "Look-ups a slot", "Usage, percent", "KL, nats", "KL of counts", "log(1 / usage)",
               "Seeds"]  # fmt: skip
    grid = Grid(plain("Use of the memories over the validation text, means over seeds"), columns)
    for name, seeds in groups.items():
        if seeds:
            grid.add([plain(name), *_use_cells(seeds), plain(len(seeds))])
    if not grid.rows:
        return _NOTHING
    grid.notes = [
        plain(
            f"Below {LEAST_LOOKUPS} look-ups a slot, a slot may be unused by chance, and usage is not interpreted."
        ),
        plain(
            "KL is of the slots' shares of all softmax weight, KL of counts of their shares of all selections, each "
            "counted as one."
        ),
    ]
    return grid.render()


def _use_cells(seeds: Seeds) -> list[Cell]:
    def mean(name: str) -> float:
        return fmean(memory_metric(record, name) for record in seeds)

    lookups = mean("lookups_per_slot")
    if lookups < LEAST_LOOKUPS:
        return [plain(f"{lookups:.1f}"), plain("not interpreted"), *[plain(BLANK)] * 3]
    numbers = (mean("kl"), mean("unweighted_kl"), log(100 / mean("usage")))
    return [plain(f"{lookups:.0f}"), plain(f"{mean('usage'):.1f}"), *(plain(f"{x:.2f}") for x in numbers)]


def words_table(chapter: Chapter, records: Mapping[str, Seeds]) -> Html:
    """Slots that are read for few subwords, of the first experiment with a record that kept them.

    Args:
        chapter: its declaration.
        records: by experiment, the most wanted first.
    """
    for experiment, seeds in records.items():
        for record in seeds:
            if arrays := record.artifact():
                label = stand_in(chapter, experiment, profile=record.data["profile"])
                return _words_table(f"{label}, seed {record.seed}", record, arrays)
    return _NOTHING


def _words_table(label: str, record: Record, arrays: Mapping[str, np.ndarray]) -> Html:
    config = record.data["config"]
    layer, n_keys = min(config["model"]["memories"]), config["model"]["memory"]["n_keys"]
    grid = Grid(
        plain(f"Slots that fire for few subwords: {label}, memory in layer {layer}"),
        ["Slot", "Left and right sub-key", "Subwords, share of its reads"],
    )
    for slot, words, shares in zip(
        *(arrays[f"{name}_layer{layer}"] for name in ("slots", "words", "shares")), strict=True
    ):
        said = ", ".join(f"{_word(w)} {s:.0%}" for w, s in zip(words, shares, strict=True) if s >= 0.005)
        grid.add([plain(slot), plain(f"{slot // n_keys}, {slot % n_keys}"), plain(said)])
    title, licence, _ = _origin(config["text"]["corpus"])
    grid.notes = [
        plain(
            "Counted is, for each head and token, the slot of the highest weight. A dot marks a space before a piece."
        ),
        plain(_chosen_words(arrays[f"shares_layer{layer}"])),
        linked(f"Subwords: {title}. Licence: {licence}"),
    ]
    return grid.render()


def _chosen_words(shares: np.ndarray) -> str:
    """How the slots that are shown were chosen, given the shares of their subwords [S, W]."""
    whole = int((shares.sum(1) > 1 - 1e-4).sum())
    return (
        f"Chosen among slots that were read at least {LEAST_READS} times and for {N_WORDS_SHOWN} subwords or more: "
        f"those whose {N_WORDS_SHOWN} most frequent ones make up most of their reads, each with another in front. "
        f"{whole} of the {len(shares)} shown were read for exactly {N_WORDS_SHOWN} subwords; more slots may have been, "
        "and slots read for fewer are not shown at all."
    )


def _word(piece: str) -> str:
    """A subword; characters that cannot be seen are named."""
    shown = str(piece).replace("\u2581", "·")
    return "".join(c if c.isprintable() and not c.isspace() else f"[{_character(c)}]" for c in shown)


def _character(character: str) -> str:
    return unicodedata.name(character, f"U+{ord(character):04X}").lower()


def search_words(records: Mapping[str, Seeds]) -> list[str]:
    """Whether searches of trained memories were exact, in a sentence for each label with records."""
    lines = []
    for label, seeds in records.items():
        if seeds:
            exact = fmean(memory_metric(record, "search_exact") for record in seeds)
            short = fmean(memory_metric(record, "short_search_exact") for record in seeds)
            topk = seeds[0].data["config"]["model"]["memory"]["topk"]
            lines.append(
                f"{label}, {seeds_text(seeds)}: {exact:.4%} of the searches by halves find the k highest scores of all "
                f"slots, {short:.1%} with only {short_list(topk)} of {topk} candidates of each half."
            )
    return lines or _NONE_YET


def facts_words(records: Mapping[str, Seeds]) -> list[str]:
    """Bits stored by each model, in a sentence each."""
    lines = []
    for label, seeds in records.items():
        if seeds:
            stored, table = (fmean(r.metric(name) for r in seeds) for name in ("stored_bits", "table_bits"))
            parameters = fmean(r.data["run"]["parameters"] for r in seeds)
            lines.append(
                f"{label}, {seeds_text(seeds)}: {stored / table:.1%} of the table's {table:,.0f} bits, "
                f"{stored / parameters:.2f} bits a parameter, "
                f"{fmean(r.metric('recalled') for r in seeds):.1%} of the facts recalled."
            )
    return lines or _NONE_YET


def slots_words(by_slots: Mapping[float, Seeds], trunk: Seeds) -> list[str]:
    """What each slot adds to what the same model stores without a memory, beside the bits of a fact."""
    if not (trunk and any(by_slots.values())):
        return _NONE_YET
    alone = fmean(record.metric("stored_bits") for record in trunk)
    table, n_facts = trunk[0].metric("table_bits"), trunk[0].data["config"]["facts"]["n_facts"]
    added = {
        slots: (
            fmean(record.metric("stored_bits") for record in seeds) - alone,
            memory_parameters(seeds[0].data["config"]["model"]),
        )
        for slots, seeds in by_slots.items()
        if seeds
    }
    left, a_fact = table - alone, table / n_facts
    by_slot = ", ".join(
        f"{bits / slots:.2f} of at most {left / slots:.2f} with {slots:,}"
        for slots, (bits, _) in added.items()
    )
    by_parameter = ", ".join(f"{bits / own:.2f} with {slots:,}" for slots, (bits, own) in added.items())
    return [
        f"Without a memory, the model stores {alone:,.0f} of the table's {table:,.0f} bits. Bits that a slot adds to "
        f"that, of those that the table leaves: {by_slot} slots; a fact has {a_fact:g}.",
        *_bounded([slots for slots in added if left / slots < a_fact]),
        f"The same bits for each parameter of the memory alone, its values, sub-keys and queries: {by_parameter} slots.",
    ]


def _bounded(sizes: Sequence[float]) -> list[str]:
    """That the table holds too few facts for memories of these numbers of slots, a sentence; none without any."""
    if not sizes:
        return []
    return [
        f"With {' and '.join(f'{slots:,}' for slots in sizes)} slots the table leaves less than a fact a slot: what a "
        "slot adds there is bounded by the table, and says nothing of what a slot could hold."
    ]


def memorising_words(records: Mapping[str, Seeds]) -> list[str]:
    """Perplexity on training and development text after many passes, in a sentence each."""
    lines = []
    for label, seeds in records.items():
        if seeds:
            train, dev = (
                fmean(r.metric(f"perplexity_{split}") for r in seeds) for split in ("train", "valid")
            )
            lines.append(
                f"{label}, {seeds_text(seeds)}: perplexity {train:.1f} on text it was trained on, {dev:.1f} on "
                "text it was not."
            )
    return lines or _NONE_YET


def place_words() -> str:
    """Where the remembered table 3 has its lowest and its highest perplexity, beside "in the middle"."""
    rows = load_papers()[PAPER].table("table3_position").rows
    best, worst = (choose(rows, key=lambda row: row["ppl"])["position"] for choose in (min, max))
    middle = (rows[0]["position"] + rows[-1]["position"]) / 2
    where = "above" if best > middle else "below" if best < middle else "in"
    return (
        f"Accounts of the paper say that a memory is best placed in the middle. Table 3, as remembered, has its lowest "
        f"perplexity with the memory in layer {best} of {len(rows)}, which is {where} the middle, and its highest in "
        f"layer {worst} (unverified)."
    )
