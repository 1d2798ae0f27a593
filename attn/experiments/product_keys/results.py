"""What chapter 5 shows as tables and words: counts, baselines, use of the memories, and what slots are read for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import log
from statistics import fmean
from typing import Any

from attn.experiments.product_keys.concepts import counted_facts, multiplications
from attn.experiments.product_keys.inside import short_list
from attn.experiments.product_keys.runs import (
    BASE,
    JOINED,
    KEYS,
    MODELS,
    PAPER,
    POST_NORM,
    TOPK,
    WITHOUT,
    n_parameters,
)
from attn.experiments.product_keys.tables import LEAST_LOOKUPS, memory_metric, perplexity
from attn.experiments.product_keys.workloads import TextRunConfig
from attn.reproduction.experiment import Chapter
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import BLANK, Cell, Grid, Html, plain
from attn.reproduction.records import Record
from attn.reproduction.speed import Speed, of_benchmark, reached, speed_table

Seeds = Sequence[Record]
_NONE_YET = ["No records yet."]
_NOTHING = Html('<p class="attn-note">No records yet.</p>', "No records yet.")


def counted_table() -> Html:
    """Slots, parameters and search costs at the paper's size: as the facts state them, and as the code counts them."""
    grid = Grid(plain("At the paper's size"), ["What", "Stated", "Counted here", "Equal"])
    for item in counted_facts():
        equal = "✓ yes" if item.stated == item.counted else "✗ no"
        grid.add([plain(item.what), plain(f"{item.stated:,}"), plain(f"{item.counted:,}"), plain(equal)])
    return grid.render()


# --- models that stand for printed ones ----------------------------------------------------------------------------


def stand_in(chapter: Chapter, experiment: str, *, profile: str = "cpu") -> str:
    """A model by its printed sizes, and by those it has at a profile where they are others."""
    label, printed = chapter.experiment(experiment).label, MODELS[experiment]
    model = chapter.experiment(experiment).config(profile).model
    if (model.n_layers, model.d_model) == (printed.layers, printed.dim):
        return label
    return f"{label} (here {model.n_layers} of {model.d_model})"


def stand_in_words(chapter: Chapter, *, profile: str = "cpu") -> list[str]:
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


# --- baselines -------------------------------------------------------------------------------------------------


def baselines_table(chapter: Chapter, records: Mapping[str, Seeds], *, profile: str = "cpu") -> Html:
    """Models beside each other: what they have, what they cost and what they reach, by experiment."""
    columns = ["Model", "Parameters", "Multiply-adds a token", "Test perplexity", "Bits per byte",
               "Perplexity on training text", "Tokens a second, inference"]  # fmt: skip
    grid = Grid(plain(f"Models of profile {profile}, means over seeds"), columns)
    for experiment, seeds in records.items():
        config = chapter.experiment(experiment).config(profile)
        parameters, cost = _sizes(config)
        metrics = {"perplexity_test": ".1f", "bits_per_byte_test": ".3f", "perplexity_train": ".1f"}
        means = [_mean(seeds, name, form) for name, form in metrics.items()]
        speed = f"{_fastest(seeds):,.0f}" if seeds else BLANK
        label = stand_in(chapter, experiment, profile=profile)
        grid.add([plain(text) for text in (label, f"{parameters:,}", f"{cost:,}", *means, speed)])
    grid.notes = [
        plain("Multiply-adds: products of a forward pass and the sums of values; attention scores left out."),
        plain("Tokens a second are those of the fastest seed, on a machine that other runs share."),
    ]
    return grid.render()


@cache
def _sizes(config: TextRunConfig) -> tuple[int, int]:
    vocab_size = config.text.vocab_size
    parameters = n_parameters(config.model, vocab_size=vocab_size, max_len=config.block)
    return parameters, multiplications(config.model, vocab_size=vocab_size, block=config.block)


def _mean(seeds: Seeds, metric: str, form: str) -> str:
    return format(fmean(record.metric(metric) for record in seeds), form) if seeds else BLANK


def _fastest(seeds: Seeds) -> float:
    """Tokens a second of a forward pass in the seed that was disturbed least."""
    return max(record.metric("inference_tokens_per_second") for record in seeds)


def cost_words(
    chapter: Chapter, records: Mapping[str, Seeds], without: str, other: str, *, profile: str = "cpu"
) -> list[str]:
    """Arithmetic and time of a model beside those of the same model without a memory, in a sentence."""
    if not (records.get(without) and records.get(other)):
        return _NONE_YET
    costs = [_sizes(chapter.experiment(name).config(profile))[1] for name in (other, without)]
    speeds = [_fastest(records[name]) for name in (other, without)]
    labels = [stand_in(chapter, name, profile=profile) for name in (other, without)]
    arithmetic, time = costs[0] / costs[1], speeds[1] / speeds[0]
    counts = [len(records[name]) for name in (other, without)]
    words = (
        f"{labels[0]}: {arithmetic:.2f} times the multiply-adds a token of {labels[1]}, and {time:.2f} times the time "
        f"of a forward pass (fastest seed of {counts[0]} and of {counts[1]})."
    )
    if time > arithmetic:
        words += " Finding the highest scores and fetching rows take time that multiply-adds do not count."
    return [words]


def depth_words(chapter: Chapter, records: Mapping[str, Seeds], shallow: str, deep: str) -> list[str]:
    """The model with a memory beside the deeper one without, in sentences."""
    if not (records.get(shallow) and records.get(deep)):
        return ["Beside the model of twice the depth: no records yet."]
    costs = [fmean(map(perplexity, records[name])) for name in (shallow, deep)]
    speeds = [_fastest(records[name]) for name in (shallow, deep)]
    order = "less" if costs[0] < costs[1] else "more"
    return [
        f"The shallow model with a memory, {stand_in(chapter, shallow)}, has a test perplexity of {costs[0]:.1f}, "
        f"{order} than the {costs[1]:.1f} of the model of twice the depth without, {stand_in(chapter, deep)}, and "
        f"reads {speeds[0] / speeds[1]:.2f} times as many tokens a second "
        "(fastest seed of each)."
    ]


def joined_words(records: Mapping[str, Seeds]) -> list[str]:
    """A memory beside the feed-forward sub-layer, in its place, and none, in a sentence."""
    if not (records.get(BASE) and records.get(JOINED)):
        return _NONE_YET
    names = {JOINED: "beside the feed-forward layer", BASE: "in its place", WITHOUT: "without a memory"}
    parts = [
        f"{fmean(map(perplexity, records[name])):.1f} {where}"
        for name, where in names.items()
        if records.get(name)
    ]
    return [f"Test perplexity of the ablation model, means over seeds: {', '.join(parts)}."]


# --- use -----------------------------------------------------------------------------------------------------


def use_table(groups: Mapping[str, Seeds]) -> Html:
    """Look-ups a slot, usage and divergences by both definitions, means over seeds."""
    columns = ["Memory", "Look-ups a slot", "Usage, percent", "KL, nats", "KL of counts", "log(1 / usage)"]
    grid = Grid(plain("Use of the memories over the validation text, means over seeds"), columns)
    for name, seeds in groups.items():
        if seeds:
            grid.add([plain(name), *_use_cells(seeds)])
    if not grid.rows:
        return _NOTHING
    grid.notes = [
        plain(
            f"Below {LEAST_LOOKUPS} look-ups a slot, a slot may be unused by chance, and usage is not interpreted."
        )
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


def words_table(seeds: Seeds) -> Html:
    """Slots that are read for few words, of the first record that kept them."""
    grid = Grid(
        plain("Slots that fire for few words"),
        ["Slot", "Left and right sub-key", "Words, share of its reads"],
    )
    for record in seeds:
        arrays = record.artifact()
        if arrays:
            layer, n_keys = (
                min(record.data["config"]["model"]["memories"]),
                record.data["config"]["model"]["memory"]["n_keys"],
            )
            rows = zip(
                *(arrays[f"{name}_layer{layer}"] for name in ("slots", "words", "shares")), strict=True
            )
            for slot, words, shares in rows:
                said = ", ".join(
                    f"{_word(w)} {s:.0%}" for w, s in zip(words, shares, strict=True) if s >= 0.005
                )
                place = f"{slot // n_keys}, {slot % n_keys}"
                grid.add([plain(slot), plain(place), plain(said)])
            break
    if not grid.rows:
        return _NOTHING
    grid.notes = [
        plain(
            "Counted is, for each head and token, the slot of the highest weight. A dot marks a space before a piece."
        )
    ]
    return grid.render()


def _word(piece: str) -> str:
    return str(piece).replace("\u2581", "·")


def search_words(seeds: Seeds) -> list[str]:
    """Whether searches of trained memories were exact."""
    if not seeds:
        return _NONE_YET
    exact = fmean(memory_metric(record, "search_exact") for record in seeds)
    short = fmean(memory_metric(record, "short_search_exact") for record in seeds)
    topk = seeds[0].data["config"]["model"]["memory"]["topk"]
    return [
        f"On queries of {len(seeds)} trained memories, {exact:.4%} of the searches by halves find the k highest "
        f"scores of all slots. A search that keeps only {short_list(topk)} of {topk} candidates of each half finds them "
        f"in {short:.1%}."
    ]


def facts_words(records: Mapping[str, Seeds]) -> list[str]:
    """Bits stored by each model, in a sentence each."""
    lines = []
    for label, seeds in records.items():
        if seeds:
            stored, table = (fmean(r.metric(name) for r in seeds) for name in ("stored_bits", "table_bits"))
            parameters = fmean(r.data["run"]["parameters"] for r in seeds)
            lines.append(
                f"{label}: {stored / table:.0%} of the table's {table:,.0f} bits, {stored / parameters:.2f} bits a "
                f"parameter, {fmean(r.metric('recalled') for r in seeds):.0%} of the facts recalled."
            )
    return lines or _NONE_YET


def slots_words(by_slots: Mapping[float, Seeds], trunk: Seeds) -> list[str]:
    """What each slot adds to what the same model stores without a memory, beside the bits of a fact."""
    if not (trunk and any(by_slots.values())):
        return _NONE_YET
    alone = fmean(record.metric("stored_bits") for record in trunk)
    table, n_facts = trunk[0].metric("table_bits"), trunk[0].data["config"]["facts"]["n_facts"]
    parts = [
        f"{(fmean(record.metric('stored_bits') for record in seeds) - alone) / slots:.1f} with {slots:,}"
        for slots, seeds in by_slots.items()
        if seeds
    ]
    return [
        f"Without a memory, the model stores {alone:,.0f} of the table's {table:,.0f} bits. Bits that a slot adds to "
        f"that: {', '.join(parts)} slots; a fact has {table / n_facts:g}."
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
                f"{label}: perplexity {train:.1f} on text it was trained on, {dev:.1f} on text it was not."
            )
    return lines or _NONE_YET


# --- what did not reproduce ------------------------------------------------------------------------------------


def post_norm_words(records: Mapping[str, Seeds]) -> list[str]:
    """What the norm after each sub-layer does to the ablation model, in a sentence."""
    post, ours = records.get(POST_NORM), records.get(BASE)
    if not (post and ours):
        return ["Norm after each sub-layer: no records yet."]
    rate = load_papers()[PAPER].budgets["text"]["cpu"]["training"]["lr"]["undone"]
    sides = [fmean(map(perplexity, seeds)) for seeds in (post, ours)]
    unigram = fmean(record.metric("unigram_perplexity_test") for record in post)
    return [
        f"With the norm after each sub-layer and a rate of {rate:g}, the ablation model has a test perplexity of "
        f"{sides[0]:.1f}, with the norm before it {sides[1]:.1f}; the frequencies of subwords alone have {unigram:.1f}."
    ]


def usage_words(chapter: Chapter, records: Mapping[str, Seeds]) -> list[str]:
    """How much of their memories models with batch norm use, beside the print's table 2, a sentence each."""
    (row,) = [row for row in load_papers()[PAPER].table("table2_batchnorm").rows if row["n_keys"] == KEYS]
    lines = []
    for name, seeds in records.items():
        if seeds:
            share, divergence = (fmean(memory_metric(r, metric) for r in seeds) for metric in ("usage", "kl"))
            slots = seeds[0].data["config"]["model"]["memory"]["n_keys"] ** 2
            lines.append(
                f"{stand_in(chapter, name)}: {share:.0f} percent of the {slots:,} slots used, KL {divergence:.1f}, with "
                f"batch norm; table 2 prints {row['usage_bn']:g} and {row['kl_bn']:g} for {row['row']} slots "
                "(unverified)."
            )
    return lines or ["Usage with batch norm: no records yet."]


def missed_words(found: Sequence[Speed]) -> list[str]:
    """Rows of the benchmark that miss their figure, in a sentence each."""
    results = of_benchmark(found, "product_keys")
    if not results:
        return ["Speed of the layer: not measured yet."]
    lines = [line for result in results for line in _missed(result)]
    return lines or ["The layer's benchmark reaches all of its figures."]


def _missed(result: Speed) -> Iterator[str]:
    for row in result.data["rows"]:
        for variant in row["variants"]:
            if reached(row, variant) is False:
                yield (
                    f"{row['name']}, {row['heap']} heap: {variant['name']} takes {variant['ratio']:.2f} times as long "
                    f"as the book's layer; {row['goal']['ratio']:g} was to be reached."
                )


def growth_words(found: Sequence[Speed]) -> list[str]:
    """How a step grows with the number of slots, and which part of that is the search, a sentence for each heap."""
    lines = []
    for result in of_benchmark(found, "product_keys"):
        rows = {(row["heap"], row["name"]): row for row in result.data["rows"]}
        for heap in dict.fromkeys(heap for heap, _ in rows):
            pair = [_ends(rows.get((heap, f"{what} over slots"))) for what in ("step", "search")]
            if all(pair):
                lines.append(_growth(result.data["environment"]["device"], heap, *pair))
    return lines or ["Not measured yet."]


def _ends(row: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Seconds with the fewest and with the most slots; a row begins with the most."""
    return row and (row["variants"][-1]["seconds"], row["variants"][0]["seconds"])


def _growth(device: str, heap: str, step: tuple[float, float], search: tuple[float, float]) -> str:
    few, many = (1000 * seconds for seconds in step)
    return (
        f"{device}, {heap} heap: from the fewest to the most slots, a step grows from {few:.1f} to {many:.1f} ms, "
        f"{many / few:.1f}-fold, and the search in it {search[1] / search[0]:.1f}-fold; the search is "
        f"{(search[1] - search[0]) / (step[1] - step[0]):.0%} of what is added."
    )


def speed_tables(found: Sequence[Speed]) -> Html:
    """The benchmark of this chapter, if it was measured."""
    results = of_benchmark(found, "product_keys")
    if not results:
        return Html('<p class="attn-note">Not measured yet.</p>', "Not measured yet.")
    tables = [speed_table(result) for result in results]
    return Html("".join(table.html for table in tables), "\n\n".join(table.text for table in tables))
