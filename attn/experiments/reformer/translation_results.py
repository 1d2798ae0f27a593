"""What chapter 2 says of its translation models: sentences and a table from records and facts, every gain by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from attn.data import registry
from attn.experiments.reformer.runs import PAPER
from attn.experiments.reformer.text_claims import bleu_of_test
from attn.experiments.reformer.translation_runs import EXPERIMENTS, LABELS, MODELS
from attn.experiments.reformer.words import listed, n_seeds
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.grid import BLANK, Grid, Html, plain
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by model
NO_RECORDS = ["No records yet."]
DURATIONS, SHARINGS = ("short", "long"), ("shared", "apart")
# What is added up and what is taken away, by seed.
GAINS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "long minus short training, embeddings shared": (("long_shared",), ("short_shared",)),
    "long minus short training, embeddings apart": (("long_apart",), ("short_apart",)),
    "embeddings apart minus shared, short training": (("short_apart",), ("short_shared",)),
    "embeddings apart minus shared, long training": (("long_apart",), ("long_shared",)),
    "what apart gains more in the long training than in the short one": (
        ("long_apart", "short_shared"),
        ("long_shared", "short_apart"),
    ),
}
PLAIN = ("long_transformer", "transformer")
REVERSIBLE = {"short": ("short_shared", "transformer"), "long": ("long_shared", "long_transformer")}


# --- what is compared --------------------------------------------------------------------------------------------


def translation_words(paper: Paper) -> list[str]:
    """What the paper changes at once, and what is trained here to tell it apart."""
    short, long = (row for row in paper.table("table4").rows if "(base, " in row["model"])
    steps = {profile: budget["steps"] for profile, budget in paper.budgets["translation"].items()}
    ours = "; ".join(
        f"{found['short']:,} and {found['long']:,} at {profile}" for profile, found in steps.items()
    )
    ratio = steps["paper"]["long"] / steps["paper"]["short"]
    return [
        f"From {short['bleu']:.1f} to {long['bleu']:.1f} two things change at once: {ratio:g} times as many updates, "
        f"and no sharing of weights. Here all four combinations are trained, for so many updates: {ours}."
    ]


def regime_words(records: Records) -> list[str]:
    """How often the text is read by either training, and whether the models still learn when it ends."""
    lines = []
    for how in DURATIONS:
        found = [record for model in _trained(how) for record in records.get(model, ())]
        if not found:
            continue
        seen, steps = (found[0].data["run"][name] for name in ("seen", "steps"))
        line = f"{how.capitalize()} training: {steps:,} updates, {seen:,} target tokens"
        if found[0].data["config"]["corpus"]["name"] == "multi30k":
            line += f", {seen / load_papers()[PAPER].exact_fact('multi30k_tokens')['value']:.1f} passes over the text"
        before, falls = _before_the_end(found[0])["step"], [100 * (1 - _fall(record)) for record in found]
        lines.append(
            f"{line}; from update {before:,} on validation perplexity still falls by {_span(falls)} percent, by model "
            "and seed."
        )
    if not lines:
        return NO_RECORDS
    prefix = _is_prefix(records)
    if prefix:
        lines.append(f"With the same seed the short training is the beginning of the long one ({prefix}).")
    return [
        *lines,
        "Where perplexity still falls, more updates help almost surely: that longer training gains here says little of "
        f"the paper's models, which saw {_printed_tokens()} target tokens.",
    ]


def _is_prefix(records: Records) -> str | None:
    """Of which pairs of records the two histories agree where both evaluate, counted; None unless all do."""
    checked = 0
    for long, short in (("long_shared", "short_shared"), ("long_apart", "short_apart"), PLAIN):
        longer = {record.seed: record for record in records.get(long, ())}
        for record in records.get(short, ()):
            if record.seed in longer:
                later = {entry["step"]: entry["perplexity"] for entry in longer[record.seed].history}
                same = [entry["perplexity"] == later.get(entry["step"]) for entry in record.history[:-1]]
                if not all(same):
                    return None
                checked += 1
    return (
        f"{checked} pair{'s' * (checked > 1)} of runs, equal wherever both were evaluated"
        if checked
        else None
    )


def _trained(how: str) -> list[str]:
    return [model for model, (_, duration, _) in MODELS.items() if duration == how]


def _before_the_end(record: Record) -> Mapping[str, Any]:
    """The last evaluation before the last fifth of the updates."""
    end = record.history[-1]["step"]
    return [entry for entry in record.history if 5 * entry["step"] <= 4 * end][-1]


def _fall(record: Record) -> float:
    """Validation perplexity at the end over that before the last fifth."""
    return record.history[-1]["perplexity"] / _before_the_end(record)["perplexity"]


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _printed_tokens() -> str:
    budget = load_papers()[PAPER].budgets["translation"]["paper"]
    seen = [budget["steps"][how] * budget["training"]["tokens_per_batch"] / 1e9 for how in DURATIONS]
    return f"about {listed(seen)} billion"


# --- gains -------------------------------------------------------------------------------------------------------


def paired(records: Records, plus: Sequence[str], minus: Sequence[str]) -> list[float]:
    """BLEU of some models minus that of others, for every seed that all of them have."""
    scores = {
        model: {record.seed: bleu_of_test(record) for record in records.get(model, ())}
        for model in (*plus, *minus)
    }
    seeds = sorted(set.intersection(*(set(found) for found in scores.values())))
    return [
        sum(scores[model][seed] for model in plus) - sum(scores[model][seed] for model in minus)
        for seed in seeds
    ]


def gain_words(gains: Sequence[float]) -> str:
    """Their mean, range and number, as "+1.2 BLEU (+1.0 to +1.5, 3 seeds)"."""
    spread = f"{_signed(min(gains))} to {_signed(max(gains))}, " if len(gains) > 1 else ""
    return f"{_signed(fmean(gains))} BLEU ({spread}{n_seeds(len(gains))})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def gains_words(records: Records, profile: str = BOOK_PROFILE) -> list[str]:
    """What either factor is worth at either setting of the other, and how far both together are from their sum."""
    found = {label: paired(records, *models) for label, models in GAINS.items()}
    lines = [f"{label.capitalize()}: {gain_words(gains)}." for label, gains in found.items() if gains]
    if not lines:
        return NO_RECORDS
    counts = parameters(profile)
    shared, apart = counts["short_shared"], counts["short_apart"]
    lines.append(
        f"Embeddings apart are also more parameters: {apart:,} instead of {shared:,}, {apart / shared:.3g} times as "
        "many. What not sharing gains may be what a larger model gains."
    )
    return lines


def reversible_words(records: Records, profile: str = BOOK_PROFILE) -> list[str]:
    """What reversible layers cost beside plain ones of as many parameters, by how long both are trained."""
    counts, lines = parameters(profile), []
    for how, (ours, plain_) in REVERSIBLE.items():
        gains = paired(records, (ours,), (plain_,))
        if gains:
            lines.append(f"{how.capitalize()} training: {gain_words(gains)}.")
    if not lines:
        return NO_RECORDS
    ours, theirs = (counts[model] for model in REVERSIBLE["short"])
    sizes = f"both of {ours:,} parameters" if ours == theirs else f"{ours:,} and {theirs:,} parameters"
    return [f"Reversible minus plain layers, embeddings shared, {sizes}:", *lines]


# --- the table ---------------------------------------------------------------------------------------------------


def four_combinations(records: Records, profile: str = BOOK_PROFILE) -> Html:
    """BLEU by how long a reversible model is trained and whether it shares embeddings, and what either is worth."""
    found = {(how, sharing): records.get(f"{how}_{sharing}", ()) for how in DURATIONS for sharing in SHARINGS}
    if not any(found.values()):
        return Html(f'<p class="attn-note">{NO_RECORDS[0]}</p>', NO_RECORDS[0])
    budget = load_papers()[PAPER].budgets["translation"][profile]
    corpus = registry.get(budget["corpus"]["name"]).title
    grid = Grid(
        plain(
            f"Reversible models on {corpus}, profile {profile}: BLEU of the test split, mean and range over seeds"
        ),
        ["Training", "Embeddings shared", "Embeddings apart", "Apart minus shared"],
    )
    for how in DURATIONS:
        pair = [found[how, sharing] for sharing in SHARINGS]
        gains = paired(records, *GAINS[f"embeddings apart minus shared, {how} training"])
        grid.add(
            [
                plain(f"{how}, {budget['steps'][how]:,} updates"),
                *map(plain, [*map(_bleu, pair), _mean(gains)]),
            ]
        )
    longer = [
        _mean(paired(records, *GAINS[f"long minus short training, embeddings {sharing}"]))
        for sharing in SHARINGS
    ]
    grid.add([plain("long minus short"), *map(plain, longer), plain(BLANK)])
    baselines = [f"{LABELS[model]}: {_bleu(records.get(model, ()))}" for _, model in REVERSIBLE.values()]
    counted = [
        f"{LABELS[model].partition(',')[0]}{_shared(model)} {n:,}" for model, n in parameters(profile).items()
    ]
    grid.notes = [
        plain(f"{'. '.join(baselines)}. Differences are of runs with the same seed."),
        plain(f"Parameters: {'; '.join(counted)}."),
    ]
    return grid.render()


def parameters(profile: str = BOOK_PROFILE) -> dict[str, int]:
    """How many weights the models have, counted on them; the length of the training makes no difference."""
    found = {}
    for model in ("transformer", "short_shared", "short_apart"):
        config: Any = next(one for one in EXPERIMENTS if one.id == f"translation/{model}").config(profile)
        with torch.device("meta"):
            built = config.model.build(config.corpus.vocab_size)
        found[model] = sum(parameter.numel() for parameter in built.parameters())
    return found


def _shared(model: str) -> str:
    return " with embeddings " + ("shared" if MODELS[model][2] else "apart")


def _bleu(found: Sequence[Record]) -> str:
    scores = sorted(map(bleu_of_test, found))
    if not scores:
        return BLANK
    spread = f" ({scores[0]:.1f} to {scores[-1]:.1f})" if len(scores) > 1 else ""
    return f"{fmean(scores):.1f}{spread}, {n_seeds(len(found))}"


def _mean(gains: Sequence[float]) -> str:
    return _signed(fmean(gains)) if gains else BLANK
