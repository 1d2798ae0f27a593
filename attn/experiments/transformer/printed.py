"""What chapter 1 says of printed numbers: heads, who is beaten in table 2 and at what cost, and recurrent models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from attn.experiments.transformer.runs import LABELS
from attn.experiments.transformer.tables import cost_run
from attn.reproduction.claims import t_interval
from attn.reproduction.facts import Paper
from attn.reproduction.grid import Grid, Html, linked, plain
from attn.reproduction.records import Record

Row = Mapping[str, Any]
LANGUAGES = {"en_de": "English to German", "en_fr": "English to French"}
_QUOTED = "quoted"


# --- the model -----------------------------------------------------------------------------------------------


def heads_words(paper: Paper) -> str:
    """How many heads the paper's models have, and how wide they are, in a sentence."""
    models = paper.recipe["model"]
    said = [
        f"the {name} model has {sizes['h']} heads, with d_k = d_v = {sizes['d_k']} = {sizes['d_model']} / {sizes['h']}"
        for name, sizes in ((name, models[name]) for name in ("base", "big"))
    ]
    return f"In the paper {'; '.join(said)}."


def budget_words(paper: Paper) -> str:
    """Pairs, GPUs and days of the paper's own training to German, in a sentence."""
    data, runs = paper.recipe["data"]["en_de"], paper.recipe["training_cost"]["runs"]
    trained = [run for run in runs if run["model"].startswith("Transformer")]
    said = " and ".join(
        f"{run['gpus']} {run['gpu']} for {run['days']:g} days ({run['model']})" for run in trained
    )
    return f"The paper's own training to German: {data['pairs']:,} pairs; {said}."


# --- table 2 -------------------------------------------------------------------------------------------------


def cost_words(paper: Paper) -> str:
    """What the recomputed costs of table 2 rest on: this paper, memory, or the print itself, in sentences."""
    rows = paper.table("table2").rows
    found = [(row, run) for row in rows for pair in LANGUAGES if (run := cost_run(row, f"flops_{pair}"))]
    multiples = sum("of" in run for _, run in found)
    remembered = sum("of" not in run and row.get("kind") == _QUOTED for row, run in found)
    own = len(found) - multiples - remembered
    return (
        f"Of {len(found)} recomputed costs, {own} take GPUs and days from this paper, {remembered} take them from "
        f"memory, and {multiples} are a multiple of another printed number. Of the last two kinds, equal means that the "
        "print agrees with what is remembered, or with itself, and no more. "
        f"{paper.recipe['training_cost']['notes']}"
    )


def comparisons(paper: Paper) -> list[str]:
    """Who is beaten by each of the paper's models, in BLEU and in cost, a sentence for each language and model."""
    rows = paper.table("table2").rows
    own = [row for row in rows if row.get("kind") != _QUOTED]
    earlier = [row for row in rows if row.get("kind") == _QUOTED]
    lines = [
        f"{language}, {row['model']}: {_bleu(row, earlier, pair)}; {_cost(row, earlier, pair)}."
        for pair, language in LANGUAGES.items()
        for row in own
    ]
    printed = paper.exact_fact("en_fr_versions")
    (big,) = [row for row in own if row["bleu_en_fr"] == printed["later"]]
    other = big | {"bleu_en_fr": printed["proceedings"]}
    return [
        *lines,
        f"{LANGUAGES['en_fr']}, {big['model']}, in the proceedings: {_bleu(other, earlier, 'en_fr')}. Which systems it "
        "beats depends on the version.",
    ]


def _bleu(row: Row, earlier: Sequence[Row], pair: str) -> str:
    """Whose score a model's is above."""
    column = f"bleu_{pair}"
    there = [other for other in earlier if other[column] is not None]
    won = [other for other in there if other[column] < row[column]]
    return f"{row[column]:g} BLEU, above {_systems(won, there, 'score')}"


def _cost(row: Row, earlier: Sequence[Row], pair: str) -> str:
    """Whose cost a model's is below, and by which factors."""
    column = f"flops_{pair}"
    there = [other for other in earlier if other[column] is not None]
    won = [other for other in there if other[column] > row[column]]
    ratios = sorted(other[column] / row[column] for other in won)
    factors = f", by factors of {_factor(ratios[0])} to {_factor(ratios[-1])}" if ratios else ""
    return f"cost below that of {_systems(won, there, 'cost')}{factors}"


def _factor(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _systems(won: Sequence[Row], there: Sequence[Row], what: str) -> str:
    """How many of the systems that print `what` are beaten, and the names of the others unless that is all or none."""
    n = len(there)
    if len(won) in (0, n):
        return f"{f'all {n}' if won else f'none of the {n}'} earlier systems that print a {what}"
    others = ", ".join(row["model"] for row in there if row not in won)
    return f"{len(won)} of the {n} earlier systems that print a {what} (not {others})"


# --- the recurrent baseline ------------------------------------------------------------------------------------


def recurrent_table(paper: Paper) -> Html:
    """BLEU of recurrent translation with and without attention, as its paper prints it, and what its curve shows.

    Args:
        paper: facts of Bahdanau et al. 2015.
    """
    scores, curve = paper.table("table1"), paper.table("figure2_idea")
    grid = Grid(
        plain(f"Table 1 of that paper. {scores.caption}"), ["Model", "All sentences", "Without unknown words"]
    )
    for row in scores.rows:
        grid.add([plain(row["model"]), *(plain(f"{row[name]:.2f}") for name in ("all", "no_unk"))])
    said = _conclusions({row["model"]: row for row in scores.rows})
    by_length = "; ".join(f"{row['model']}: {row['behaviour']}" for row in curve.rows)
    grid.notes = [
        plain(said),
        linked(f"The paper's numbers: {scores.checked} ({scores.source}). {scores.notes}"),
        plain(f"{curve.caption}: {by_length} ({curve.checked}). {curve.notes}"),
    ]
    return grid.render()


def _conclusions(rows: Mapping[str, Row]) -> str:
    """What that paper concludes from the table, as arithmetic on its cells, in three sentences."""
    columns = ("all", "no_unk")

    def above(better: str, worse: str) -> int:
        return sum(rows[better][column] > rows[worse][column] for column in columns)

    both = sum(above(f"RNNsearch-{limit}", f"RNNencdec-{limit}") for limit in (30, 50))
    longer = [above(f"{model}-50", f"{model}-30") for model in ("RNNencdec", "RNNsearch")]
    short, long = (rows[name]["all"] for name in ("RNNsearch-30", "RNNencdec-50"))
    return (
        f"With attention the score is higher in {both} of 4 comparisons, at both limits on the length of training "
        f"sentences and in both columns. RNNsearch-30 has {short:.2f} on all sentences and RNNencdec-50 {long:.2f}: "
        f"attention with shorter sentences in training {'beats' if short > long else 'does not beat'} a model without "
        "it and with longer ones."
        f" Longer training sentences raise {longer[0]} of 2 scores without attention and {longer[1]} of 2 with it."
    )


_CONFOUNDED = (
    f" The difference between {LABELS['lstm']} and {LABELS['gru_attention']} is not attention alone: cell and width "
    f"differ, too. Until {LABELS['gru']}, of the same width, is recorded, what attention is worth here is not known."
)
_NO_BASELINE = " No model without attention is recorded, so what attention is worth here is not known."


def recurrent_words(paper: Paper, records: Mapping[str, Sequence[Record]], test: str) -> str:
    """The paper's recurrent models beside ours, in a sentence.

    Args:
        paper: facts of Bahdanau et al. 2015.
        records: our runs by kind of model.
        test: split of Multi30k that they are scored on.
    """
    table = paper.table("table1")
    score = {row["model"]: row["all"] for row in table.rows}
    without, attending = score["RNNencdec-50"], score["RNNsearch-50"]
    kinds = ("lstm", "gru", "gru_attention")
    ours = [
        f"{LABELS[kind]} {fmean(run.metric(f'bleu_{test}') for run in runs):.1f}"
        for kind in kinds
        if (runs := records.get(kind))
    ]
    missing = [LABELS[kind] for kind in kinds if not records.get(kind)]
    here = f"Here, BLEU on {test}: {'; '.join(ours)}. " if ours else ""
    waits = f"Not recorded here: {'; '.join(missing)}. " if missing else ""
    caveat = ""
    if records.get("gru_attention") and not records.get("gru"):
        caveat = _CONFOUNDED if records.get("lstm") else _NO_BASELINE
    return (
        f"In print, news from English to French: {without:.2f} BLEU without attention, {attending:.2f} with it "
        f"(RNNencdec-50, RNNsearch-50; {table.checked}). {here}{waits}Captions are not news, and German is not French: "
        f"only the direction can be compared. Ours are not scored by length.{_worth(records, test)}{caveat}"
    )


def _worth(records: Mapping[str, Sequence[Record]], test: str) -> str:
    """What attention adds to the GRU, a sentence; nothing without two seeds of both."""
    without = {run.seed: run.metric(f"bleu_{test}") for run in records.get("gru", ())}
    gains = [
        run.metric(f"bleu_{test}") - without[run.seed]
        for run in records.get("gru_attention", ())
        if run.seed in without
    ]
    if len(gains) < 2:
        return ""
    low, high = t_interval(gains)
    return (
        f" Attention adds {fmean(gains):.1f} BLEU to the GRU here, {low:.1f} to {high:.1f} with a confidence of 95% "
        f"({len(gains)} pairs of the same seed)."
    )
