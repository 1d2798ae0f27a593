"""What the chapter shows of its records: learning curves, our own rows, translations, and table 3 as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from statistics import fmean, stdev

from matplotlib.figure import Figure

from attn.experiments.transformer.runs import LABELS, row_id, row_label, table3_rows
from attn.experiments.transformer.tables import FITTED_VOCABULARY, PRINTED_VOCABULARY, fitted_rows
from attn.reproduction.figures import COLOURS, figure, learning_curves, legend_below, nothing_yet
from attn.reproduction.grid import BLANK, Grid, Html, plain
from attn.reproduction.records import Record
from attn.reproduction.runner import LiveRun

Records = Mapping[str, Sequence[Record]]  # by kind of model
_BASE = "base"
_NO_RECORDS = Html('<p class="attn-note">no records yet</p>', "no records yet")


_NORMS = {"post": "layer norm after the sum, as in the paper", "pre": "layer norm before the sub-layer"}


def curves(
    records: Records, *, labels: Mapping[str, str] = LABELS, colours: Mapping[str, str] = COLOURS
) -> Figure:
    """Perplexity of the validation split over target tokens, every seed and the median of each model."""
    there = {kind: rows for kind, rows in records.items() if rows}
    drawing, axes = figure(height=3.2)
    if not there:
        return nothing_yet(drawing)
    seeds = {
        kind: [[(e["seen"] / 1e6, e["perplexity"]) for e in row.history if e["step"]] for row in rows]
        for kind, rows in there.items()
    }
    learning_curves(
        axes, seeds, labels, colours=colours, xlabel="target tokens seen, millions",
        ylabel="validation perplexity per subword",
    )  # fmt: skip
    axes.set_yscale("log")
    legend_below(drawing, axes, n_columns=1)
    return drawing


def norm_curves(post: Sequence[Record], pre: Sequence[Record]) -> Figure:
    """The same for one model with both places of the layer norm."""
    colours = {"post": COLOURS["transformer"], "pre": COLOURS["lstm"]}
    return curves({"post": post, "pre": pre}, labels=_NORMS, colours=colours)


def own_rows(tables: Mapping[str, Records], test: str) -> Html:
    """Our models on corpora that are not the paper's.

    Args:
        tables: by corpus, as a reader should see it named, the runs of each model.
        test: name of the test split.
    """
    grid = Grid(
        plain("Our models on other corpora: mean and standard deviation over seeds; not comparable with WMT scores"),
        ["Corpus", "Model", "Parameters", "Validation perplexity", "Validation BLEU", f"BLEU on {test}", "Minutes"],
    )  # fmt: skip
    for corpus, records in tables.items():
        there = {kind: rows for kind, rows in records.items() if rows}
        for index, (kind, rows) in enumerate(there.items()):
            size = rows[0].data["run"]["parameters"] / 1e6
            cells = [f"{LABELS[kind]}, {_seeds(rows)}", f"{size:.2f} million"]
            cells += [_spread(rows, name, digits) for name, digits in
                      (("perplexity", 2), ("bleu_validation", 1), (f"bleu_{test}", 1))]  # fmt: skip
            cells.append(f"{fmean(row.data['run']['seconds'] for row in rows) / 60:.0f}")
            grid.add([None if index else plain(corpus), *map(plain, cells)])
    return grid.render() if grid.rows else _NO_RECORDS


def _seeds(rows: Sequence[Record]) -> str:
    return "1 seed" if len(rows) == 1 else f"{len(rows)} seeds"


def _spread(rows: Sequence[Record], metric: str, digits: int) -> str:
    values = [row.metric(metric) for row in rows]
    more = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{more}"


def unfinished_words(records: Records, *, falling: float = 0.05) -> str:
    """Which rows of table 3 were still learning when their runs ended, in a sentence.

    Args:
        records: runs by id of the row.
        falling: a run counts if its perplexity fell by more than this share between its last two evaluations.
    """
    still = {
        name: [r for r in found if r.history[-1]["perplexity"] < (1 - falling) * r.history[-2]["perplexity"]]
        for name, found in records.items()
    }
    worst = {
        row_label(row): max(r.metric("perplexity") for r in records[row_id(row)])
        for row in table3_rows()
        if records.get(row_id(row))
    }
    if not worst:
        return "No records yet."
    count, total = sum(map(len, still.values())), sum(map(len, records.values()))
    slow = [name for name, perplexity in worst.items() if perplexity > 2]
    return (
        f"In {count} of {total} runs perplexity still fell by more than {falling:.0%} between the last two evaluations. "
        "A seed of these rows ends above a perplexity of 2, before it has learned most words: "
        f"{'; '.join(slow) or 'none'}."
    )


def trial_words(record: Record | None) -> str:
    """What a short trial of the paper's recipe did, in a sentence."""
    if record is None:
        return "The trial has no record yet."
    data, first = record.data, record.history[0]
    processes = data["environment"]["device_count"]
    return (
        f"Tried: {data['run']['steps']} updates of {data['config']['training']['batch_size']:,} tokens in {processes} "
        f"{'process' if processes == 1 else 'processes'}, {data['run']['parameters'] / 1e6:.1f} million parameters; "
        f"validation perplexity from {first['perplexity']:,.0f} to {record.metric('perplexity_at_the_end'):,.0f}; BLEU "
        f"{record.metric('bleu_test'):.1f} on {data['config']['corpus']['n_test']} sentences of newstest2014."
    )


def samples(run: Record | LiveRun | None, use: str, caption: str, count: int = 5) -> Html:
    """Translations of one run between source and reference, of sentences evenly spread over the split."""
    if run is None:
        return _NO_RECORDS
    grid = Grid(plain(caption), ["", "Sentence"])
    arrays = run.outcome.artifact if isinstance(run, LiveRun) else run.artifact()
    sides = ("source", "translation", "reference")
    for sentences in zip(*(arrays[f"{use}_{side}"][:count] for side in sides), strict=True):
        for side, sentence in zip(sides, sentences, strict=True):
            grid.add([plain(side), plain(sentence or BLANK)], "attn-first" if side == "source" else "")
    return grid.render()


def fitted_table() -> Html:
    """The parameter column of table 3 with the stated vocabulary and with the one that was fitted to it."""
    columns = ["Row", "Printed", f"Vocabulary of {PRINTED_VOCABULARY:,}, as stated"]
    columns.append(f"Vocabulary of {FITTED_VOCABULARY:,}, fitted")
    grid = Grid(plain("Table 3 of the paper: parameters in millions"), columns)
    for row in fitted_rows():
        computed = [
            f"{row[name]:.1f} ({'equal' if round(row[name]) == row['printed'] else 'not equal'})"
            for name in ("stated", "fitted")
        ]
        grid.add([plain(row["row"]), plain(row["printed"]), *map(plain, computed)])
    return grid.render()


def ablations(records: Records) -> Figure:
    """Table 3 as a figure: how far each row lies from the base model of the same seed, in cost and in BLEU.

    Args:
        records: runs by id of the row.
    """
    drawing, panels = figure(1, 2, height=5.2, sharey=True)
    rows = [row for row in table3_rows() if row_id(row) != _BASE and records.get(row_id(row))]
    bases = {record.key[3]: record for record in records.get(_BASE, ())}
    if not rows or not bases:
        return nothing_yet(drawing)
    printed = table3_rows()[0]
    measures = (
        ("cost, nats per subword", lambda r: log(r.metric("perplexity")), lambda row: log(row["ppl_dev"]), 1),
        ("BLEU", lambda r: r.metric("bleu_validation"), lambda row: row["bleu_dev"], -1),
    )
    for panel, (name, ours, theirs, worse) in zip(panels, measures, strict=True):
        panel.axvline(0, color=COLOURS["paper"], linewidth=0.8)
        for y, row in enumerate(rows):
            found = [ours(r) - ours(bases[r.key[3]]) for r in records[row_id(row)] if r.key[3] in bases]
            panel.plot(found, [y] * len(found), "o", color=COLOURS["transformer"], markersize=4, alpha=0.7,
                       label="seeds" if y == 0 else None)  # fmt: skip
            panel.plot(theirs(row) - theirs(printed), y, "|", color="black", markersize=11, markeredgewidth=1.6,
                       label="the paper, at its size" if y == 0 else None)  # fmt: skip
        side = "right" if worse > 0 else "left"
        panel.set(xlabel=f"{name}, minus the base model's\n({side} is worse)")
    panels[0].set(yticks=range(len(rows)), yticklabels=[row_label(row) for row in rows])
    panels[0].invert_yaxis()
    legend_below(drawing, panels[0])
    return drawing
