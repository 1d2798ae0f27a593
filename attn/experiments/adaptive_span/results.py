"""What chapter 3 shows as tables and words of its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import log
from statistics import fmean, median
from typing import Any

import torch

from attn.data.language_text import GENERATED
from attn.data.text import LETTERS
from attn.experiments.adaptive_span.bursts import ruined, ruined_words
from attn.experiments.adaptive_span.claims import FAMILIES, Family, context_worth
from attn.experiments.adaptive_span.figures import KIND_LABELS, by_kind_and_limit
from attn.experiments.adaptive_span.looks import STARTS, copies_config, less, spread
from attn.experiments.adaptive_span.runs import (
    KINDS,
    PAPER,
    SWITCHED,
    TASKS,
    budgets,
    label,
    names,
    span_config,
)
from attn.experiments.adaptive_span.speed import layer_span, layer_words, rewriting_words, rule_ratio
from attn.experiments.adaptive_span.tables import (
    VOCABULARY,
    flops_findings,
    millions,
    paper_model,
    parameters,
    shares_findings,
)
from attn.experiments.adaptive_span.texts import Reads, texts_table
from attn.reproduction.claims import t_interval
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import BLANK, Grid, Html, plain
from attn.reproduction.records import Record
from attn.reproduction.speed import HEAPS, Speed, joined, of_benchmark
from attn.reproduction.speed_words import EVALUATION, Figure, missed_words, variant

Records = Sequence[Record]
TRANSFORMER_XL, SHAW = "transformerxl2019", "shaw2018relative"  # papers that the chapter reads facts of
_PLURALS = {"fixed": "fixed spans", "adaptive": "adaptive spans that start at 0"}
_NONE = Html('<p class="attn-note">no records yet</p>', "no records yet")


def flops_table() -> Html:
    """Every printed number of operations beside the stated rule, and the parameters of the sizes that it needs."""
    grid = Grid(plain("Multiply-adds for one token: the stated rule beside the print, and models of the sizes it needs"),
                ["Model, as the rule needs it", "Printed", "By the rule", "Printed parameters",
                 "Parameters of these sizes"])  # fmt: skip
    for row in flops_findings():
        params = BLANK if row["params"] is None else millions(row["params"])
        cells = [row["row"], row["printed"], _operations(row["flops"]), row["params_printed"], params]
        grid.add(list(map(plain, cells)))
    grid.notes = [
        plain("Parameters of Transformer-XL are those of its matrices, L (5 d² + 2 d f); of the adaptive models, those "
              "of this book's own on text8. For T12 and T64 no formula is at hand.")
    ]  # fmt: skip
    return grid.render()


def flops_words() -> list[str]:
    """Which sizes do not make a model of the printed parameters, and why the small Transformer-XL's span is shorter."""
    other = [
        f"{row['model']} with {row['L']} layers ({millions(row['params'])} and not the printed {row['params_printed']})"
        for row in flops_findings()
        if row["params"] is not None and millions(row["params"]) != row["params_printed"]
    ]
    lengths = load_papers()[TRANSFORMER_XL].table("evaluation_lengths")
    by_layers = ", ".join(f"{row['attn_len']:,} for {row['layers']} layers" for row in lengths.rows)
    return [
        f"Sizes that give the printed operations make another number of parameters for {'; '.join(other)}.",
        f"The spans of Transformer-XL are the tokens that it attends to at evaluation: {by_layers} ({lengths.checked}, "
        "the former the public script and not the text).",
    ]


def positions_words() -> list[str]:
    """What is known of position embeddings by distance, and what one table for all saves, in sentences from facts."""
    table = load_papers()[SHAW].table("table3_ablation")
    bleu = {row["row"]: row["bleu"] for row in table.rows}
    model = paper_model("small")
    shared = model.d_model // model.n_heads * model.max_span
    return [
        f"In translation, position embeddings by distance on keys and values gave {bleu['both']} BLEU, on keys alone "
        f"{bleu['keys only']}, on values alone {bleu['values only']}, and none at all {bleu['none']} (Shaw et al., "
        f"table 3; {table.checked}): keys are enough.",
        f"There every layer and head had tables of its own. Here all share one, of {shared:,} numbers in the small "
        f"model; one for each head of each layer would take {model.n_layers * model.n_heads * shared:,}, where the "
        f"whole model has {parameters(model, VOCABULARY['text8']):,} parameters.",
    ]


def shares_table() -> Html:
    """How the small model's operations divide between its layers, over fixed spans."""
    grid = Grid(plain("The small model with fixed spans: shares of its multiply-adds for one token, by the rule"),
                ["Span S", "Multiply-adds", "Feed-forward layers", "Attention with its projections"])  # fmt: skip
    for row in shares_findings():
        shares = (f"{row['feed_forward']:.1f}%", f"{row['attention']:.1f}%")
        grid.add([plain(row["S"]), plain(_operations(row["flops"])), *map(plain, shares)])
    return grid.render()


def _operations(value: float) -> str:
    return f"{value / 1e9:.1f}G" if value >= 1e9 else f"{value / 1e6:.1f}M"


def layers_words() -> list[str]:
    """Which layers look far in print, in sentences from the facts of fig. 4."""
    paper = load_papers()[PAPER]
    rows, plot = (paper.table(name) for name in ("fig4_spans_by_layer", "fig4_read_off"))

    def value(start: str) -> Any:
        return next(row["value"] for row in rows.rows if row["row"].startswith(start))

    return [
        f"In print, all heads of the lowest {value('layers (from the bottom)')} of {paper_model('small').n_layers} "
        f"layers keep the minimum of {value('minimum')} tokens; of the heads in high layers, {value('heads in high')}.",
        f"Of the plot it is told elsewhere that spans are long in layers {plot.rows[0]['value']} ({plot.checked}); the "
        "paper's text names no such layers.",
    ]


def saved_table(records: Records) -> Html:
    """Operations that adaptive spans save by the rule, against the fixed span of the same limit."""
    found = by_kind_and_limit(records)
    if not found:
        return _NONE
    title = "Operations by the rule, and those saved against a fixed span of the same limit; means over seeds"
    grid = Grid(plain(title), ["Limit S", "Spans", "Mean span", "Multiply-adds a token", "Saved"])
    for limit in sorted({limit for rows in found.values() for limit in rows}):
        rows = {kind: by_limit[limit] for kind, by_limit in found.items() if limit in by_limit}
        for index, (kind, runs) in enumerate(rows.items()):
            operations = _mean(runs, "flops")
            is_saved = kind != "fixed" and "fixed" in rows
            saved = f"{1 - operations / _mean(rows['fixed'], 'flops'):.0%}" if is_saved else ""
            cells = [KIND_LABELS[kind], f"{_mean(runs, 'mean_span'):.0f}", f"{operations / 1e6:.3g}M", saved]
            grid.add([None if index else plain(limit), *map(plain, cells)])
    return grid.render()


def clock_table(found: Sequence[Speed]) -> Html:
    """What fixed spans cost more than learned ones in the benchmark's layer: by the rule, and by the clock."""
    return joined(map(_clock_table, of_benchmark(found, "adaptive_span")))


def _clock_table(result: Speed) -> Html:
    times = {(row["name"], row["heap"]): variant(row, "fixed span")["ratio"] for row in result.data["rows"]}
    passes = {"training": "", "evaluation": EVALUATION}
    grid = Grid(
        plain("How many times the cost of learned spans a layer with fixed spans has: operations and time"),
        ["Limit S", "Mean learned span", "Operations, by the rule",
         *(f"Time, {name}, {heap} heap" for name in passes for heap in HEAPS)],
    )  # fmt: skip
    for name in dict.fromkeys(name.removesuffix(EVALUATION) for name, _ in times):
        limit = int(name.removeprefix("limit "))
        places = [(name + end, heap) for end in passes.values() for heap in HEAPS]
        ratios = [f"{times[place]:.2f}" if place in times else BLANK for place in places]
        grid.add(list(map(plain, [limit, f"{layer_span(limit):.0f}", f"{rule_ratio(limit):.2f}", *ratios])))
    return grid.render()


def cache_table(runs: Mapping[str, Records]) -> Html:
    """One text, three ways to read it: whole with the cache, in the rows of training, and block by block without.

    Args:
        runs: records by what they are called.
    """
    there = {name: records for name, records in runs.items() if records}
    if not there:
        return _NONE
    grid = Grid(plain("Bits per symbol of the validation text by what may be looked at; means over seeds"),
                ["Model", "In order, with the cache", "In the rows of training", "Without a cache"])  # fmt: skip
    for name, records in there.items():
        metrics = ("valid_bits", "valid_bits_as_trained", "valid_bits_without_cache")
        grid.add([plain(name), *(plain(spread(records, metric)) for metric in metrics)])
    return grid.render()


def runs_table(records: Records) -> Html:
    """Every model over the limit S."""
    if not records:
        return _NONE
    title = "Spans and bits over the limit S; means and standard deviations over seeds, and medians of validation bits"
    columns = ["Limit S", "Spans", "Mean span", "Longest span", "Validation bits", "Median", "Test bits",
               "Seeds"]  # fmt: skip
    grid = Grid(plain(title), columns)
    found = by_kind_and_limit(records)
    for limit in sorted({limit for rows in found.values() for limit in rows}):
        rows = {kind: by_limit[limit] for kind, by_limit in found.items() if limit in by_limit}
        for index, (kind, runs) in enumerate(rows.items()):
            cells = [KIND_LABELS[kind], spread(runs, "mean_span", 0), spread(runs, "longest_span", 0),
                     spread(runs, "valid_bits"), f"{_median(runs):.3f}", spread(runs, "test_bits"),
                     str(len(runs))]  # fmt: skip
            grid.add([None if index else plain(limit), *map(plain, cells)])
    if ruined(records):
        grid.notes = [plain(ruined_words(records))]
    return grid.render()


def span_words(records: Records) -> str:
    """Where the spans of a family of models with adaptive spans end, in a sentence."""
    found = by_kind_and_limit(records)
    parts = []
    for kind in ("adaptive", "from_max"):
        for limit, runs in found.get(kind, {}).items():
            parts.append(f"{_mean(runs, 'mean_span'):.0f} of {limit} ({STARTS[kind]})")
    return f"Mean spans, ramp included: {', '.join(parts)}." if parts else "No records yet."


def control_words(task: str, records: Records) -> str:
    """What context is worth on a family's text, and whether claims are judged there, in sentences: their control.

    Args:
        task: "limit" or "copies".
        records: of its experiments; those of other models do not matter.
    """
    family = next(family for family in FAMILIES if family.task == task)
    by_seed: dict[int, dict[str, Record]] = {}
    for record in records:
        by_seed.setdefault(record.seed, {})[record.data["experiment"]] = record
    needed = {family.experiment(name) for name in (family.short, family.fixed[-1])}
    worth = [context_worth(family)(runs) for runs in by_seed.values() if needed <= set(runs)]
    if not worth:
        return f"{family.text.capitalize()}: no records of the control yet."
    gains = ", ".join(f"{gain:+.3f}" for gain in worth)
    short, large = (span_config(task, budgets(task)[BOOK_PROFILE], name).model.max_span
                    for name in (family.short, family.fixed[-1]))  # fmt: skip
    return (
        f"{family.text.capitalize()}: a fixed span of {large} tokens costs {less(fmean(worth))} than one of {short} "
        f"(gains by seed: {gains}). {_judged(family, worth)}"
    )


def _judged(family: Family, worth: Sequence[float]) -> str:
    """Whether claims are judged on a text, by what context is worth there [seeds], in a sentence."""
    least = load_papers()[PAPER].margins[family.margin]["value"]
    if len(worth) < 2:
        return f"Whether that is more than {least:g} beyond chance one seed cannot tell."
    if t_interval([gain - least for gain in worth])[0] > 0:
        return (
            f"That is a gain of more than {least:g}, beyond chance: context pays at this budget, and claims can be "
            "judged on this text."
        )
    return (
        f"That is no gain of more than {least:g}, beyond chance: context does not show to pay at this budget, so that "
        "no claim is judged on this text."
    )


def limit_words() -> str:
    """Which number table 3's limit is, by profile, in a sentence."""
    limits = [
        f"{span_config('limit', budget, 'adaptive_whole').model.max_span:,} at {profile}"
        for profile, budget in budgets("limit").items()
    ]
    return f"In tests on {FAMILIES[0].text}, table 3's limit is S = {', '.join(limits)}."


def cache_words(records: Records) -> list[str]:
    """Why rows of training cost more, and why evaluation without a cache is so dear, in sentences; of generated text."""
    if not records:
        return ["No records yet."]
    config = records[0].data["config"]
    updates = config["training"]["max_steps"]
    updates_a_pass = (config["text"]["train_size"] // config["n_rows"] - 1) // config["block"]
    return [
        *_row_starts_words(records),
        f"In training the cache was empty in {-(-updates // updates_a_pass)} of {updates:,} updates, at the start of "
        "each pass over the text.",
        f"Without a cache this model costs {_mean(records, 'valid_bits_without_cache'):.3f} bits; the best possible "
        f"model, reading blocks of {config['block']} alone, would pay about {block_floor(config['block']):.2f}.",
    ]


def _row_starts_words(records: Records) -> list[str]:
    """What more rows cost, how much of that missing context is worth, and what training cost with filled caches."""
    config = records[0].data["config"]
    rows, few, size = config["n_rows"], config["evaluation_rows"], config["text"]["valid_size"]
    whole = _mean(records, "valid_bits_as_trained") - _mean(records, "valid_bits")
    missing = (rows - few) * missing_context() / size
    lines = [
        f"Read in the {rows} rows of training, the validation text costs {whole:.3f} bits more than in {few}. Of these, "
        f"{missing:.3f} is what the context missing at {rows - few} more starts of a row is worth to the best possible "
        "model. The rest comes of caches that are empty or half filled there, as training hardly ever showed it any."
    ]
    last = [record.history[-1] for record in records]
    if all(entry.get("train_loss") for entry in last):
        bits = fmean(entry["train_loss"] for entry in last) / log(2)
        every = config["training"]["eval_every"]
        lines.append(
            f"In its last {every:,} updates, in as many rows and with filled caches, training cost {bits:.3f} bits; the "
            f"validation text costs {_mean(records, 'valid_bits'):.3f} in {few} rows and "
            f"{_mean(records, 'valid_bits_as_trained'):.3f} in {rows}."
        )
    return lines


def missing_context() -> float:
    """Bits that the best possible model pays more where a row of generated text starts, for want of what came before.

    Characters with fewer before them than the optimum is known for are counted as if they had so many.
    """
    config = copies_config()
    source = config.source
    seen = (max(place, source.least_context) for place in range(config.reach + 1))
    return sum(source.entropy_rate(context) - source.entropy_rate() for context in seen)


def block_floor(block: int) -> float:
    """Least bits a character of generated text that is read in blocks, each without what came before.

    Characters with fewer before them than the optimum is known for are counted as if they had so many.
    """
    source = copies_config().source
    return fmean(source.entropy_rate(max(place, source.least_context)) for place in range(1, block + 1))


def zeros_words(ours: Records, zeros: Records) -> str:
    """What a cache of zeros changes, in a sentence."""
    if not ours or not zeros:
        return "No records yet."
    return (
        f"Validation bits {spread(ours, 'valid_bits')} without a cache before the text, "
        f"{spread(zeros, 'valid_bits')} with zeros there; mean span {spread(ours, 'mean_span', 0)} and "
        f"{spread(zeros, 'mean_span', 0)}."
    )


def _mean(records: Records, metric: str) -> float:
    return fmean(record.metric(metric) for record in records)


def _median(records: Records, metric: str = "valid_bits") -> float:
    return median(record.metric(metric) for record in records)


def compared(task: str) -> list[str]:
    """Models of a family that differ in span, limit and start alone, and not in what is a deviation's effect."""
    return [name for name in names(task) if name.startswith(tuple(KINDS)) and not name.endswith(SWITCHED)]


# --- baselines, and what was tried ---------------------------------------------------------------------------


def baseline_table(task: str, records: Mapping[str, Records]) -> Html:
    """Models of table 1 or 2 beside the same model with fixed spans, at the same budget.

    Args:
        task: "text8" or "enwik8".
        records: by model.
    """
    columns = ["Model", "Mean span", "Parameters", "Multiply-adds a token", "Validation bits", "Test bits",
               "Seeds"]  # fmt: skip
    grid = Grid(plain("Models of the table and a baseline, all trained at this budget; means over seeds"),
                columns)  # fmt: skip
    for name, runs in records.items():
        if runs:
            cells = [
                label(task, name), spread(runs, "mean_span", 0), f"{runs[0].data['run']['parameters']:,}",
                _operations(_mean(runs, "flops")), spread(runs, "valid_bits"), spread(runs, "test_bits"), len(runs),
            ]  # fmt: skip
            grid.add(list(map(plain, cells)))
    return grid.render() if grid.rows else _NONE


def baseline_tables(records: Mapping[str, Mapping[str, Records]], command: Callable[..., str]) -> Html:
    """The table of each task that has records, and for the others one sentence with the commands that make them.

    Args:
        records: by task, then by model.
        command: (task=...) -> the command.
    """
    tables = [baseline_table(task, runs) for task, runs in records.items() if any(runs.values())]
    missing = [command(task=task) for task, runs in records.items() if not any(runs.values())]
    if missing:
        said = f"No records yet of {'one' if tables else 'any'} of them; these make them:"
        if len(missing) == 1:
            said = "Of the other table's models there are no records yet; this makes them:"
        codes = ", ".join(f"<code>{escape(one)}</code>" for one in missing)
        tables.append(Html(f'<p class="attn-note">{said} {codes}</p>', f"{said} {', '.join(missing)}"))
    return Html("".join(table.html for table in tables), "\n\n".join(table.text for table in tables))


def tried_words() -> list[str]:
    """The shorter budget of generated text that was tried first, in sentences, from the facts' copy of its records."""
    budget = budgets("copies")["cpu"]
    tried, updates = budget["tried"], budget["training"]["max_steps"]
    models = tried["models"]
    short, long, adaptive = (models[name] for name in ("fixed_32", "fixed_512", "adaptive_512_from_max"))
    gain = fmean(short["valid_bits"]) - fmean(long["valid_bits"])
    floor = copies_config().source.entropy_rate(2 * 512)
    missed = sum(bits > (fmean(short["test_bits"]) + floor) / 2 for bits in long["test_bits"])
    spans = fmean(models["adaptive_512"]["mean_span"])
    return [
        f"The generated text was first trained on for {tried['max_steps']:,} updates in place of {updates:,} (records "
        f"at commit {tried['commit']}, {len(long['valid_bits'])} seeds).",
        f"There a fixed span of 512 tokens cost {less(gain)} than one of 32 on {tried['valid_size']:,} validation "
        f"characters, and on test text {missed} of its {len(long['test_bits'])} seeds ended nearer to the cost of 32 "
        "tokens than to the least possible.",
        f"Spans of a limit of 512 ended at {spans:.0f} tokens on average from 0, and at "
        f"{fmean(adaptive['mean_span']):.0f} from the maximum.",
    ]


def rate_words(slow: Records, fast: Records) -> str:
    """What the paper's learning rate gives at this budget, in a sentence."""
    if not slow or not fast:
        return "The paper's learning rate with a short warm-up: no records yet."
    rates = [records[0].data["config"]["training"]["lr"] for records in (slow, fast)]
    return (
        f"At the paper's learning rate of {rates[1]:g} the adaptive model ends at {spread(fast, 'valid_bits')} "
        f"validation bits, at the rate of {rates[0]:g} that is used here at {spread(slow, 'valid_bits')}."
    )


def wider_words(records: Records) -> str:
    """Fixed spans that cost more than shorter ones, in a sentence."""
    rows = by_kind_and_limit(records).get("fixed", {})
    if len(rows) < 2:
        return "Fixed spans over the limit: no records yet."
    bits = {limit: _mean(runs, "valid_bits") for limit, runs in rows.items()}
    lowest = min(bits, key=bits.__getitem__)
    worse = [f"{limit} ({value - bits[lowest]:+.3f})" for limit, value in bits.items() if limit > lowest]
    if not worse:
        return f"Fixed spans cost the fewest bits at the largest limit, S = {lowest}."
    return f"Fixed spans cost the fewest bits at S = {lowest}, and more at {', '.join(worse)}."


def speed_words() -> str:
    """What the benchmark's layer is, in sentences."""
    return f"{layer_words()} {rewriting_words()}"


def speed_missed(found: Sequence[Speed]) -> list[str]:
    """The figures of the benchmark that are not reached, in sentences."""
    return missed_words(found, "adaptive_span", {"memory": _held_whatever_the_spans})


def _held_whatever_the_spans(figure: Figure) -> str:
    """Why memory does not fall as far as spans do, as a clause; the first row, of the lowest limit, says how much."""
    row, lowest = figure.rows[0], figure.result.data["rows"][0]
    ours, least = (one["variants"][0]["peak_bytes"] / 2**20 for one in (row, lowest))
    return (
        "much is held whatever the spans are, such as the block's own queries, keys and values, and gradients of "
        f"projections and positions; at {lowest['name']} it is {least:.1f} of these {ours:.1f} MB"
    )


# --- the texts -------------------------------------------------------------------------------------------------


def data_table() -> Html:
    """What the runs of each family read, by profile."""
    return texts_table([Reads(task, budgets(task)) for task in TASKS])


def copy_floor(profile: str = BOOK_PROFILE) -> list[tuple[int, float]]:
    """Limits of the generated text's models, and the least bits with all in sight that layers on layers can see.

    A layer sees as far back as its span, of what the layer below has seen: n layers reach n times as far.
    """
    budget = budgets("copies")[profile]
    models = [span_config("copies", budget, name).model for name in budget["models"]]
    reach = {model.max_span: model.n_layers * model.max_span for model in models}
    return [(limit, copies_config().source.entropy_rate(reach[limit])) for limit in sorted(reach)]


def symbols(record: Record | None) -> list[str]:
    """The character of each id of a record's text, for axes: a space is shown as one."""
    if record is None:
        return []
    text = record.data["config"]["text"]
    if text["corpus"] == GENERATED:
        source = copies_config().source
        ids = range(source.vocab_size)
        return [source.decode(torch.tensor([index])) for index in ids]
    if text["representation"] == LETTERS:
        return list(" abcdefghijklmnopqrstuvwxyz")
    return [chr(index) for index in range(256)]


def context_words(records: Records) -> str:
    """What context is worth to fixed and to adaptive spans, and where spans end, in sentences."""
    return f"{gains_words(records)} {span_words(records)}".strip()


def gains_words(records: Records) -> str:
    """What the largest limit of both kinds gains on the smallest, in means and in medians, in sentences.

    "" without fixed and adaptive spans of the same two limits: spans of other limits are not compared.
    """
    found = by_kind_and_limit(records)
    kinds = [found.get(kind, {}) for kind in _PLURALS]
    both = set(kinds[0]) & set(kinds[1])
    if len(both) < 2:
        return ""
    small, large = min(both), max(both)
    lines = []
    for rows, name in zip(kinds, _PLURALS.values(), strict=True):
        first, last = rows[small], rows[large]
        in_mean = _gain(_mean(first, "valid_bits") - _mean(last, "valid_bits"))
        in_median = _gain(_median(first) - _median(last))
        lines.append(
            f"From S = {small} to {large}, {name} {in_mean} in the mean and {in_median} in the median."
            f"{_without_ruined(first, last)}"
        )
    return " ".join(lines)


def _gain(bits: float) -> str:
    return f"{'gain' if bits >= 0 else 'lose'} {abs(bits):.3f} bits"


def _without_ruined(first: Records, last: Records) -> str:
    """What seeds gain of which no run ended after a burst, if any did: the mean rests on those runs."""
    spoilt = ruined([*first, *last])
    if not spoilt:
        return ""
    sound = [[r for r in runs if r.seed not in {one.seed for one in spoilt}] for runs in (first, last)]
    seeds = [{r.seed for r in runs} for runs in sound]
    both = seeds[0] & seeds[1]
    if not both:
        return f" {ruined_words(spoilt)}"
    means = [fmean(r.metric("valid_bits") for r in runs if r.seed in both) for runs in sound]
    named = ", ".join(map(str, sorted(both)))
    return f" {ruined_words(spoilt)} Seeds without such a run ({named}) {_gain(means[0] - means[1])} in the mean."
