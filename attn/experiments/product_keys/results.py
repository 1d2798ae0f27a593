"""What chapter 5 shows as tables and words: counts, baselines, use of the memories, and what slots are read for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import log
from statistics import fmean

import numpy as np

from attn.experiments.product_keys.concepts import counted_facts, multiplications
from attn.experiments.product_keys.runs import n_parameters
from attn.experiments.product_keys.tables import LEAST_LOOKUPS, memory_metric, perplexity
from attn.experiments.product_keys.workloads import TextRunConfig
from attn.reproduction.experiment import Chapter
from attn.reproduction.grid import BLANK, Cell, Grid, Html, plain
from attn.reproduction.records import Record
from attn.reproduction.speed import Speed, of_benchmark, speed_table

Seeds = Sequence[Record]
_NOTHING = Html('<p class="attn-note">No records yet.</p>', "No records yet.")


def counted_table() -> Html:
    """Slots, parameters and search costs at the paper's size: as the facts state them, and as the code counts them."""
    grid = Grid(plain("At the paper's size"), ["What", "Stated", "Counted here", "Equal"])
    for item in counted_facts():
        equal = "✓ yes" if item.stated == item.counted else "✗ no"
        grid.add([plain(item.what), plain(f"{item.stated:,}"), plain(f"{item.counted:,}"), plain(equal)])
    return grid.render()


# --- baselines -------------------------------------------------------------------------------------------------


def baselines_table(chapter: Chapter, records: Mapping[str, Seeds], *, profile: str = "cpu") -> Html:
    """Models beside each other: what they have, what they cost and what they reach, by experiment."""
    columns = ["Model", "Parameters", "Multiply-adds a token", "Test perplexity", "Bits per byte",
               "Perplexity on training text", "Tokens a second, inference"]  # fmt: skip
    grid = Grid(plain(f"Models of profile {profile}, means over seeds"), columns)
    for experiment, seeds in records.items():
        config = chapter.experiment(experiment).config(profile)
        parameters, cost = _sizes(config)
        metrics = ("perplexity_test", "bits_per_byte_test", "perplexity_train", "inference_tokens_per_second")
        digits = (".1f", ".3f", ".1f", ",.0f")
        reached = [_mean(seeds, name, form) for name, form in zip(metrics, digits, strict=True)]
        label = chapter.experiment(experiment).label
        grid.add([plain(text) for text in (label, f"{parameters:,}", f"{cost:,}", *reached)])
    grid.notes = [
        plain("Multiply-adds: products of a forward pass and the sums of values; attention scores left out.")
    ]
    return grid.render()


@cache
def _sizes(config: TextRunConfig) -> tuple[int, int]:
    vocab_size = config.text.vocab_size
    parameters = n_parameters(config.model, vocab_size=vocab_size, max_len=config.block)
    return parameters, multiplications(config.model, vocab_size=vocab_size, block=config.block)


def _mean(seeds: Seeds, metric: str, form: str) -> str:
    return format(fmean(record.metric(metric) for record in seeds), form) if seeds else BLANK


def depth_words(records: Mapping[str, Seeds], shallow: str, deep: str) -> list[str]:
    """The model with a memory beside the deeper one without, in sentences."""
    if not (records.get(shallow) and records.get(deep)):
        return ["No records yet."]
    costs = [fmean(map(perplexity, records[name])) for name in (shallow, deep)]
    speeds = [_median(records[name], "inference_tokens_per_second") for name in (shallow, deep)]
    order = "less" if costs[0] < costs[1] else "more"
    return [
        f"The shallow model with a memory has a test perplexity of {costs[0]:.1f}, {order} than the {costs[1]:.1f} "
        f"of the model of twice the depth without, and reads {speeds[0] / speeds[1]:.2f} times as many tokens a second."
    ]


def _median(seeds: Seeds, metric: str) -> float:
    return float(np.median([record.metric(metric) for record in seeds]))


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
        return ["No records yet."]
    exact = fmean(memory_metric(record, "search_exact") for record in seeds)
    short = fmean(memory_metric(record, "short_search_exact") for record in seeds)
    return [
        f"On queries of {len(seeds)} trained memories, {exact:.4%} of the searches by halves find the k highest "
        f"scores of all slots. A search that keeps only a quarter of the candidates finds them in {short:.1%}."
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
    return lines or ["No records yet."]


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
    return lines or ["No records yet."]


def speed_tables(found: Sequence[Speed]) -> Html:
    """The benchmark of this chapter, if it was measured."""
    results = of_benchmark(found, "product_keys")
    if not results:
        return Html('<p class="attn-note">Not measured yet.</p>', "Not measured yet.")
    tables = [speed_table(result) for result in results]
    return Html("".join(table.html for table in tables), "\n\n".join(table.text for table in tables))
