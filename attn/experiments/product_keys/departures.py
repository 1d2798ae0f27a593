"""What came out otherwise than in print, beside the claims that fail, in sentences of chapter 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from attn.experiments.product_keys.results import Seeds, seeds_text, stand_in
from attn.experiments.product_keys.runs import BASE, KEYS, PAPER, POST_NORM
from attn.experiments.product_keys.speeds import time_ratios
from attn.experiments.product_keys.tables import memory_metric, perplexity, use
from attn.reproduction.experiment import BOOK_PROFILE, Chapter
from attn.reproduction.facts import load_papers
from attn.reproduction.speed import Speed


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
        f"{sides[0]:.1f} ({seeds_text(post)}), with the norm before it {sides[1]:.1f} ({seeds_text(ours)}); the "
        f"frequencies of subwords alone have {unigram:.1f}."
    ]


def usage_words(chapter: Chapter, records: Mapping[str, Seeds]) -> list[str]:
    """How much of their memories models with batch norm use, beside the print's table 2, a sentence each."""
    (row,) = [row for row in load_papers()[PAPER].table("table2_batchnorm").rows if row["n_keys"] == KEYS]
    lines = [
        f"{stand_in(chapter, name, profile=seeds[0].data['profile'])}, {seeds_text(seeds)}: {_usage_text(seeds, row)}"
        for name, seeds in records.items()
        if seeds
    ]
    return lines or ["Usage with batch norm: no records yet."]


def _usage_text(seeds: Seeds, row: Mapping[str, Any]) -> str:
    """Usage and divergence of some runs, or that there were too few look-ups to speak of them."""
    slots = seeds[0].data["config"]["model"]["memory"]["n_keys"] ** 2
    lookups = fmean(memory_metric(record, "lookups_per_slot") for record in seeds)
    shares, divergences = ([use(record, name) for record in seeds] for name in ("usage", "kl"))
    if None in shares:
        return f"{lookups:.1f} look-ups for each of {slots:,} slots, too few to speak of usage."
    return (
        f"{fmean(shares):.0f} percent of the {slots:,} slots used, KL {fmean(divergences):.1f}, with batch norm and "
        f"{lookups:.0f} look-ups a slot; table 2 prints {row['usage_bn']:g} and {row['kl_bn']:g} for {row['row']} slots "
        "(unverified)."
    )


def layer_words(by_layer: Mapping[int, Seeds]) -> str:
    """Divergence from even use of a memory in the first layer and in others, beside the print's table 3, in sentences.

    Args:
        by_layer: runs by the layer of the memory, from 1.
    """
    printed = {row["position"]: row["kl"] for row in load_papers()[PAPER].table("table3_position").rows}
    found = {layer: [use(record, "kl") for record in seeds] for layer, seeds in by_layer.items() if seeds}
    first, *others = printed
    if first not in found or len(found) < 2 or any(None in values for values in found.values()):
        return f"Use of the memory in layer {first} and in others: no records of both yet."
    means = {layer: fmean(values) for layer, values in found.items()}
    rest = [printed[layer] for layer in others]
    here = "; ".join(
        f"layer {layer}, {seeds_text(by_layer[layer])}: {min(values):.2f} to {max(values):.2f}, "
        f"{fmean(use(record, 'usage') for record in by_layer[layer]):.0f} percent of the slots used"
        for layer, values in found.items()
    )
    return (
        f"Table 3 prints {_place(printed, first)} divergence from even use for the memory in layer {first}, "
        f"{printed[first]:g}, beside {min(rest):g} to {max(rest):g} in other layers (unverified). Here layer {first} "
        f"has {_place(means, first)} of the layers that are recorded. {here[:1].upper()}{here[1:]}."
    )


def _place(values: Mapping[int, float], layer: int) -> str:
    others = [value for other, value in values.items() if other != layer]
    if values[layer] > max(others):
        return "the highest"
    return "the lowest" if values[layer] < min(others) else "neither the highest nor the lowest"


def depth_speed_words(
    chapter: Chapter, found: Sequence[Speed], shallow: str, deep: str, *, profile: str = BOOK_PROFILE
) -> str:
    """How much faster the model with a memory is than the deeper one without, beside the print's words, in sentences."""
    rows = load_papers()[PAPER].table("figures_in_words").rows
    (printed,) = [row["value"] for row in rows if row["row"] == "inference speed"]
    labels = [stand_in(chapter, name, profile=profile) for name in (shallow, deep)]
    times = time_ratios(found, *labels)
    said = ", ".join(f"{1 / ratio:.1f} times as fast ({where})" for where, ratio in times.items())
    return f"The paper, in our words and unverified, has {printed}. Here " + (
        f"{labels[0]} is {said} as {labels[1]}." if times else "it is not measured yet."
    )
