"""What the chapter shows of its records: learning curves, our own rows, translations, and table 3 as a figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import log
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from attn.experiments.transformer.complexity import (
    KERNEL,
    NEIGHBOURHOODS,
    PATH_FITS,
    PATH_NEIGHBOURHOOD,
)
from attn.experiments.transformer.figures import one_head
from attn.experiments.transformer.runs import LABELS, PRINTED_VOCABULARY, row_id, row_label, table3_rows
from attn.experiments.transformer.tables import FITTED_VOCABULARY, fitted_rows
from attn.experiments.transformer.words import source_words
from attn.reproduction.figures import COLOURS, figure, learning_curves, legend_below
from attn.reproduction.grid import BLANK, Grid, Html, linked, plain
from attn.reproduction.records import Record
from attn.reproduction.runner import LiveRun

Records = Mapping[str, Sequence[Record]]  # by kind of model
_BASE = "base"
_NO_RECORDS = Html('<p class="attn-note">no records yet</p>', "no records yet")


_NORMS = {"post": "layer norm after the sum, as in the paper", "pre": "layer norm before the sub-layer"}


_COLOURS = COLOURS | {"gru": "#CC79A7"}  # as in the other figures of the chapter


def curves(
    records: Records, *, labels: Mapping[str, str] = LABELS, colours: Mapping[str, str] = _COLOURS
) -> Figure | None:
    """Perplexity of the validation split over updates, every seed and the median of each model.

    Over updates, since seeds see a few tokens more or fewer in as many updates, and a median needs a common place.
    """
    there = {kind: rows for kind, rows in records.items() if rows}
    if not there:
        return None
    drawing, axes = figure(height=3.2)
    seeds = {
        kind: [[(e["step"], e["perplexity"]) for e in row.history if e["step"]] for row in rows]
        for kind, rows in there.items()
    }
    learning_curves(
        axes, seeds, labels, colours=colours, xlabel="updates",
        ylabel="validation perplexity per subword",
    )  # fmt: skip
    axes.set_yscale("log")
    legend_below(drawing, axes, n_columns=1)
    return drawing


def norm_curves(post: Sequence[Record], pre: Sequence[Record]) -> Figure | None:
    """The same for one model with both places of the layer norm."""
    colours = {"post": COLOURS["transformer"], "pre": COLOURS["lstm"]}
    return curves({"post": post, "pre": pre}, labels=_NORMS, colours=colours)


_COLUMNS = {
    "Parameters": lambda rows: f"{rows[0].data['run']['parameters'] / 1e6:.2f} million",
    "Validation perplexity": lambda rows: _spread(rows, "perplexity", 2),
    "Validation BLEU": lambda rows: _spread(rows, "bleu_validation", 1),
    "Tokens seen": lambda rows: f"{_mean_of(rows, 'seen') / 1e6:.1f} million",
    "Tokens a second": lambda rows: f"{_mean_of(rows, 'units_per_second'):,.0f}",
    "Peak memory": lambda rows: (
        f"{max(row.data['run']['peak_memory_bytes'] for row in rows) / 2**20:,.0f} MiB"
    ),
    "Minutes": lambda rows: f"{_mean_of(rows, 'seconds') / 60:.0f}",
}


def own_rows(tables: Mapping[str, Records], test: str, caption: str) -> Html:
    """Our models on corpora that are not the paper's.

    Args:
        tables: by corpus, as a reader should see it named, the runs of each model.
        test: name of the test split.
        caption: what the numbers have to be read with.
    """
    columns = _COLUMNS | {f"BLEU on {test}": lambda rows: _spread(rows, f"bleu_{test}", 1)}
    names = list(_COLUMNS)
    names.insert(names.index("Tokens seen"), f"BLEU on {test}")
    grid = Grid(
        plain(f"{caption}. Mean and standard deviation over seeds; peak memory is the largest of them"),
        ["Corpus", "Model", *names],
    )
    for corpus, records in tables.items():
        there = {kind: rows for kind, rows in records.items() if rows}
        for index, (kind, rows) in enumerate(there.items()):
            cells = [f"{LABELS[kind]}, {_seeds(rows)}", *(columns[name](rows) for name in names)]
            grid.add([None if index else plain(corpus), *map(plain, cells)])
    runs = [row for records in tables.values() for rows in records.values() for row in rows]
    grid.notes = [plain(scoring_words(runs, f"bleu_{test}"))]
    return grid.render() if grid.rows else _NO_RECORDS


def scoring_words(runs: Sequence[Record], metric: str) -> str:
    """How a BLEU of some runs was scored: signature and search, from the metric's definition; empty where none says so.

    Args:
        runs: of any experiments.
        metric: as "bleu_validation".
    """
    definitions = dict.fromkeys(run.data["metrics"][metric]["definition"] for run in runs)
    found = dict.fromkeys(
        f"{signature[1]}, {search[0]}"
        for text in definitions
        if (signature := re.match(r"sacrebleu ([^;]+);", text))
        and (search := re.search(r"beam \d+, [^,;]+", text))
    )
    return f"BLEU by sacreBLEU: {'; '.join(found)}." if found else ""


def _mean_of(rows: Sequence[Record], name: str) -> float:
    return fmean(row.data["run"][name] for row in rows)


def _seeds(rows: Sequence[Record]) -> str:
    return "1 seed" if len(rows) == 1 else f"{len(rows)} seeds"


def _spread(rows: Sequence[Record], metric: str, digits: int) -> str:
    values = [row.metric(metric) for row in rows]
    more = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{more}"


def trial_words(record: Record | None) -> str:
    """What a short trial of the paper's recipe did, in a sentence."""
    if record is None:
        return "The trial has no record yet."
    data, first = record.data, record.history[0]
    processes = data["environment"]["device_count"]
    return (
        f"Tried: {data['run']['steps']} updates of {data['config']['training']['batch_size']:,} tokens in {processes} "
        f"{'process' if processes == 1 else 'processes'}, {data['run']['parameters'] / 1e6:.1f} million parameters; "
        f"validation perplexity from {first['perplexity']:,.0f} to {record.metric('perplexity_at_the_end'):,.0f} with "
        f"the weights after the last update. The mean weights of the last snapshots have a perplexity of "
        f"{record.metric('perplexity'):,.0f}; with these, BLEU {record.metric('bleu_test'):.1f} on "
        f"{data['config']['corpus']['n_test']} sentences of newstest2014."
    )


def samples(run: Record | LiveRun | None, use: str, caption: str, count: int = 4) -> Html:
    """Translations of one run between source and reference, of sentences evenly spread over the split.

    Sentences that a record keeps stand with the name and the licence of their corpus.
    """
    if run is None:
        return _NO_RECORDS
    grid = Grid(plain(caption), ["", "Sentence"])
    arrays = run.outcome.artifact if isinstance(run, LiveRun) else run.artifact()
    sides = ("source", "translation", "reference")
    kept = len(arrays[f"{use}_source"])
    for i in range(min(count, kept)):
        sentences = (arrays[f"{use}_{side}"][i * kept // count] for side in sides)
        for side, sentence in zip(sides, sentences, strict=True):
            grid.add([plain(side), plain(sentence or BLANK)], "attn-first" if side == "source" else "")
    if isinstance(run, Record):
        grid.notes = [linked(source_words(run.data["config"]["corpus"]["name"]))]
    return grid.render()


def mapped_words(run: Record | None) -> str:
    """The sentence whose attention maps a record keeps, and its split; the licence stands with `samples` of the run."""
    if run is None:
        return "No records yet."
    arrays, corpus = run.artifact(), run.data["config"]["corpus"]
    source, target = (_sentence(arrays[f"attention_{side}"]) for side in ("source", "target"))
    return (
        f"Source ({corpus['name']}, split {corpus['validation']}): {source} Target, the reference, which is fed in: "
        f"{target}"
    )


def _sentence(tokens: Sequence[str]) -> str:
    """Sub-words as a sentence, without the marks of its ends."""
    inside = [token for token in tokens if not (token.startswith("<") and token.endswith(">"))]
    return "".join(inside).replace("▁", " ").strip()


def alignment(run: Record | None) -> Figure | None:
    """Additive attention of a recurrent model on one validation sentence: target downwards, source to the right."""
    if run is None:
        return None
    arrays = run.artifact()
    return one_head(
        arrays["attention_cross"].astype(float)[0, 0], arrays["attention_target"].tolist(),
        arrays["attention_source"].tolist(), title=LABELS["gru_attention"],
    )  # fmt: skip


def fitted_table() -> Html:
    """The parameter column of table 3 with the stated vocabulary and with the one that was fitted to it."""
    columns = ["Row", "Printed", f"Vocabulary of {PRINTED_VOCABULARY:,}, as stated"]
    columns.append(f"Vocabulary of {FITTED_VOCABULARY:,}, fitted")
    grid = Grid(plain("Table 3 of the paper: parameters in millions"), columns)
    for row in fitted_rows():
        # what was chosen from the column meets it, and is never counted as equal
        computed = [
            f"{row[name]:.1f} ({meets if round(row[name]) == row['printed'] else 'not equal'})"
            for name, meets in (("stated", "equal"), ("fitted", "fitted"))
        ]
        grid.add([plain(row["row"]), plain(row["printed"]), *map(plain, computed)])
    return grid.render()


def ablations(records: Records) -> Figure | None:
    """Table 3 as a figure: how far each row lies from the base model of the same seed, in cross-entropy and in BLEU.

    Args:
        records: runs by id of the row.
    """
    rows = [row for row in table3_rows() if row_id(row) != _BASE and records.get(row_id(row))]
    bases = {record.key[3]: record for record in records.get(_BASE, ())}
    if not rows or not bases:
        return None
    drawing, panels = figure(1, 2, height=5.2, sharey=True)
    printed = table3_rows()[0]
    measures = (
        (
            "cross-entropy, nats per subword",
            lambda r: log(r.metric("perplexity")),
            lambda row: log(row["ppl_dev"]),
            1,
        ),
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


def exponent_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """What table 1's laws were read off: exponents fitted to counted multiply-adds, and how paths grow.

    Args:
        rows: of `complexity.table_rows`.
    """
    columns = ["Layer", "Printed cost", "Fitted exponents", "Largest error of the fit", "Longest path over n"]
    columns += ["Printed path", "Fitted path"]
    grid = Grid(plain("Exponents fitted to the operations of our layers, and lengths of paths"), columns)
    for row in rows:
        error = row["exponents"].largest_error
        shown = "rounding" if error < 1e-9 else f"{error:.1%}"
        cells = [
            row["layer_type"],
            row["complexity_per_layer"],
            str(row["exponents"]),
            shown,
            _lengths(row["path"]),
            row["max_path_length"],
            row["path_fit"].found,
        ]
        grid.add(list(map(plain, cells)))
        if "contiguous" in row:
            name = f"{row['layer_type']}, not dilated"
            cells = [name, "the same", "the same", "", _lengths(row["contiguous"]), "O(n/k) in its text", ""]
            grid.add(list(map(plain, cells)))
    grid.notes = [
        plain(
            f"Convolutions: k = {KERNEL}. Kernels are centred, and the dilation grows (k + 1) / 2-fold a layer, so the "
            f"logarithm of the path has base (k + 1) / 2 = {(KERNEL + 1) // 2}. That is of the printed order: the factor"
            " between the two bases is bounded. With kernels that look one way only, dilated k-fold, the base is k. The "
            "paper's text has O(n/k) for kernels that are not dilated."
        ),
        plain(
            f"Restricted attention: costs are of r = {', '.join(map(str, NEIGHBOURHOODS))}, where blocks count r - 1 "
            f"for r; paths over n are of r = {PATH_NEIGHBOURHOOD}."
        ),
        plain(
            "Fitted paths: "
            + "; ".join(
                f"{symbol} = {_listed(reaches)}, each with n = {_listed(lengths)}"
                for symbol, reaches, lengths in PATH_FITS.values()
            )
            + ". A power is compared with the print to the nearest half, a base "
            "with k and with (k + 1) / 2. Paths are whole numbers and a layer reaches (r - 1) / 2 positions, so that "
            "fits on short reaches are a little off."
        ),
    ]  # fmt: skip
    return grid.render()


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def _lengths(path: Mapping[int, int]) -> str:
    return ", ".join(f"{length} at {n}" for n, length in path.items())
