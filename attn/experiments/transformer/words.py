"""What the chapter says in sentences and small tables of its facts, its verdicts and its records of table 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import log

from attn.data import registry
from attn.experiments.transformer import claims
from attn.experiments.transformer.corpora import GENERATED
from attn.experiments.transformer.runs import (
    ABLATIONS,
    GRID,
    SHORT_GRID,
    TASKS,
    row_id,
    row_label,
    table3_rows,
)
from attn.reproduction.claims import CONFIDENCE, FAILS, HOLDS, Verdict, judge, t_interval
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.grid import BLANK, Grid, Html, linked, plain
from attn.reproduction.records import Record
from attn.training.config import TrainingConfig

Rows = Mapping[str, Sequence[Record]]  # runs by id of table 3's row
NO_RECORDS = "No records yet."
LENGTHS = "lengths"  # task of the copied letters
_FREE = "none needed"


# --- from the facts -----------------------------------------------------------------------------------------


def setup_table(paper: Paper) -> Html:
    """The paper's training, from its recipe."""
    recipe = paper.recipe
    data, steps, batch, rules = (recipe[name] for name in ("data", "steps", "batch", "regularisation"))
    search, adam = recipe["decoding"], recipe["optimizer"]
    averaged = search["checkpoint_averaging"]
    corpora = "; ".join(
        f"{data[pair]['pairs']:,} pairs of {data[pair]['corpus']}" for pair in ("en_de", "en_fr")
    )
    vocabularies = "; ".join(recipe["tokenisation"][pair].partition(" (")[0] for pair in ("en_de", "en_fr"))
    lines = {
        "Data": corpora,
        "Vocabulary": vocabularies,
        "Batch": f"{batch['source_tokens']:,} source and {batch['target_tokens']:,} target tokens, {batch['bucketing']}",
        "Hardware": recipe["hardware"],
        "Updates and time": "; ".join(f"{kind}: {steps[kind]:,} in {steps[f'wall_{kind}']}" for kind in ("base", "big")),
        "Optimiser": f"{adam['name']}, beta1 {adam['beta1']}, beta2 {adam['beta2']}, epsilon {adam['eps']:g}",
        "Warm-up": f"{recipe['schedule']['warmup_steps']:,} updates",
        "Dropout": f"base {rules['residual_dropout_base']}; big {rules['residual_dropout_big_en_de']} to German and "
        f"{rules['residual_dropout_big_en_fr']} to French",
        "Label smoothing": str(rules["label_smoothing"]),
        "Averaged checkpoints": "; ".join(f"{kind}: {averaged[kind]}" for kind in ("base", "big")),
        "Search": f"beam {search['beam']}, alpha = {search['length_penalty_alpha']}",
    }  # fmt: skip
    grid = Grid(plain("How the paper trained and translated"), ["", "In the paper"])
    for name, text in lines.items():
        grid.add([plain(name), plain(text)])
    return grid.render()


def grid_words(paper: Paper, profile: str = BOOK_PROFILE) -> str:
    """At which sizes the rows of table 3 are run, in a sentence."""
    budget, printed = paper.budgets[GRID][profile], table3_rows()[0]
    base, training, corpus = budget["base"], budget["training"], budget["corpus"]
    width, depth = Fraction(base["d_model"], printed["d_model"]), Fraction(base["n_layers"], printed["N"])
    return (
        f"All {len(table3_rows())} rows are run here (profile {profile}) at {width} of the width and "
        f"{'all' if depth == 1 else depth} of the depth, each size in the paper's ratio to the base model, with the "
        f"formula of the paper's schedule and {training['steps']:,} updates of about "
        f"{training['tokens_per_batch']:,} tokens, on {corpus['n_pairs']:,} pairs of generated sentences: dates, "
        "prices and numbers in words."
    )


def rate_words(profile: str = BOOK_PROFILE) -> str:
    """How the schedule and the narrowest heads of the small grid differ from the paper's, in sentences."""
    ours, theirs = (ABLATIONS[0].configs[p].training for p in (profile, "paper"))
    base = _peak(ours)
    said = []
    for row, experiment in zip(table3_rows(), ABLATIONS, strict=True):
        small, full = (_peak(experiment.configs[p].training) for p in (profile, "paper"))
        if row_id(row) == "base" or small != base:
            said.append(f"{row_label(row)} {small:.2g}, {small / full:.1f} times the paper's {full:.2g}")
    heads = []
    for label, name, field in (("h = 32", "h_32", "value_dim"), ("d_k = 16", "d_k_16", "head_dim")):
        (model,) = [e.configs[profile].model for e in ABLATIONS if e.id == f"{GRID}/{name}"]
        heads.append(f"{label}: {getattr(model, field)}")
    return (
        "The same formula is not the same rate: it falls with the root of width and warm-up, and both are smaller here. "
        f"Peak rates: {'; '.join(said)}. The rate depends on width and warm-up alone, so all other rows have the base "
        f"model's. The warm-up takes {ours.warmup_steps:,} of {ours.max_steps:,} updates "
        f"({ours.warmup_steps / ours.max_steps:.0%}), in the paper {theirs.warmup_steps:,} of {theirs.max_steps:,} "
        f"({theirs.warmup_steps / theirs.max_steps:.0%}). The scale also leaves the narrowest heads with next to "
        f"nothing: their width is, for {'; '.join(heads)}."
    )


def _peak(training: TrainingConfig) -> float:
    """Rate of the last update of the warm-up."""
    return training.lr * training.warmup_steps**-0.5


def exact_words(tables: Sequence[Mapping]) -> str:
    """What the exact cells of the headline are: formulas or counts, and how many of each are equal, in a sentence.

    Args:
        tables: of the chapter's state.
    """
    found: dict[str, list[bool]] = {"formulas": [], "parameter counts": []}
    for table in tables:
        for row in table["rows"]:
            for cell in row["cells"]:
                if cell["kind"] == "exact" and cell["matches"] is not None:
                    kind = "formulas" if isinstance(cell["paper"], str) else "parameter counts"
                    found[kind].append(cell["matches"] == "yes")
    said = [f"{sum(equal)} of {len(equal)} {kind}" for kind, equal in found.items()]
    return (
        f"Of the exact cells, equal are {' and '.join(said)}. The formulas are those of table 1, fitted to operations "
        "and paths of small layers; the counts are those of table 3, with the vocabulary that the paper states."
    )


def measured_words(table: Mapping) -> str:
    """On which sentences the recorded numbers of table 3 are measured, in a sentence.

    Args:
        table: table 3 of the chapter's state.
    """
    cells = [cell for row in table["rows"] for cell in row["cells"] if cell["kind"] == "measured"]
    generated = sum(bool({"cpu", "gpu"} & set(cell["values"])) for cell in cells)
    return (
        f"Of the measured cells, {generated} of {len(cells)} of table 3 have a number, all on generated sentences and "
        "none on newstest2013, which the printed column is of."
        if generated
        else NO_RECORDS
    )


def later_table() -> Html:
    """What papers that built on this one found, as far as their facts are checked."""
    papers = load_papers()
    scaled, translated = papers["ott2018"].table("table2"), papers["edunov2018"].table("table1")
    agents, aligned = (
        papers["bi2019"].table("repo_wmt14_en_de"),
        papers["garg2019"].table("align_and_translate"),
    )
    segmented = papers["provilkov2019"].table("table2_main")
    bleu = {row["system"]: row["en_de"] for row in scaled.rows}
    minutes, nodes = next(
        (bleu[name], name.partition(" ")[0]) for name in bleu if name.endswith("time (minutes)")
    )
    mean = {row["training_data"]: row["average"] for row in translated.rows}
    alone = {row["model"]: row["en_de"] for row in agents.rows}
    error, quality = ({row["model"]: row[name] for row in aligned.rows} for name in ("aer_deen", "bleu_deen"))
    average, supervised = "Layer average baseline", "++ GIZA++ supervised"
    elsewhere = _lectures()
    lines = (
        ("Large batches, half precision", scaled,
         f"English to German {bleu['Our result']:.1f} BLEU, the big model of this chapter's paper "
         f"{bleu['Vaswani et al. (2017)']:.1f}; {nodes} training in {minutes} minutes"),
        ("Back-translation", translated,
         f"English to German, mean BLEU of five years: {mean['bitext']:.2f} with real pairs only; back-translated "
         f"by beam search {mean['+ beam']:.2f}, by sampling {mean['+ sampling']:.2f}, by beam search with noise "
         f"{mean['+ beam+noise']:.2f}{elsewhere['edunov2018']}"),
        ("BPE-dropout", segmented, "none shown: entered from memory"),
        ("Several agents", agents,
         f"released code, English to German: the left-to-right agent {alone['L2R']:.2f} BLEU alone and "
         f"{alone['MAL-L2R']:.2f} with the others; the code differs from the paper, whose own tables were not at hand"
         f"{elsewhere['bi2019']}"),
        ("Joint alignment", aligned,
         f"German to English, alignment error in percent: averaged attention {error[average]:.1f}, trained head "
         f"{error['+ full-context']:.1f}, with the aligner's help {error[supervised]:.1f}, the aligner itself "
         f"{error['GIZA++ (BPE-based)']:.1f}; BLEU {quality[average]:.1f}, with that help {quality[supervised]:.1f}"),
    )  # fmt: skip
    grid = Grid(
        plain("What was built on it, in the numbers of those papers"), ["Idea", "Numbers", "Checked against"]
    )
    for name, table, said in lines:
        grid.add([plain(name), plain(said), plain(table.checked)])
    return grid.render()


def _lectures() -> dict[str, str]:
    """What lectures on two of the papers say otherwise than their facts, by paper, as the end of a sentence."""
    papers = load_papers()
    data, agents = papers["edunov2018"].recipe["data"], papers["bi2019"].recipe["model"]
    corpus, pairs = data["en_de_bitext"].split(", ")[:2]
    sentences = data["monolingual"].partition(";")[0]
    (deep,) = [text for text in agents["agents_in_released_code"].values() if "deep encoder" in text]
    said = papers["vaswani2017"].exact_fact("lectures")
    return {
        "edunov2018": f"; the authors' code has {pairs} ({corpus}) and {sentences}, lectures on the paper have "
        f"{said['edunov2018']['pairs']} and {said['edunov2018']['sentences']}",
        "bi2019": f"; its deepest agent has {deep.partition(': ')[2].partition(',')[0]}, where lectures on the paper"
        f" have {said['bi2019']['encoder_layers']}",
    }


def marking(paper: Paper) -> str:
    """What every number of our own on captions has to be read with."""
    pairs = paper.exact_fact("multi30k_pairs")["value"]
    return f"{pairs // 1000}k image captions: not WMT BLEU; perplexity is per our subword"


def data_table(paper: Paper, records: Sequence[Record], profile: str = BOOK_PROFILE) -> Html:
    """What this chapter's recorded runs read: sizes and vocabulary, a row for each corpus, licences in the notes.

    Args:
        paper: the facts, with the budgets.
        records: of the chapter; a corpus that no record has read is only named, in a note.
        profile: whose runs.
    """
    columns = ["Corpus", "Runs", "Training pairs", "Validation", "Test", "Vocabulary"]
    grid = Grid(
        plain(f"Data of the recorded runs at profile {profile}; checksums are in the records"), columns
    )
    keys = [record.key for record in records]
    recorded = {experiment.partition("/")[0] for _, experiment, at, _ in keys if at == profile}
    waiting, rows, licences = [], {}, {}
    for task, label in (TASKS | {GRID: "Table 3", LENGTHS: "Longer sentences"}).items():
        budget = paper.budgets[task].get(profile)
        if budget is None:
            continue
        if task not in recorded:
            waiting.append(label)
            continue
        title, licence = _origin(LENGTHS if task == LENGTHS else budget["corpus"]["name"])
        licences[title] = licence
        sizes = _copied(budget) if task == LENGTHS else _sizes(paper, budget["corpus"])
        rows.setdefault((title, *sizes), []).append(label)
    for (title, *sizes), labels in rows.items():
        grid.add([*map(plain, (title, "; ".join(labels), *sizes))])
    said = f"Configured at profile {profile}, not recorded: {'; '.join(waiting)}." if waiting else ""
    if not grid.rows:
        none = plain(" ".join(filter(None, [NO_RECORDS, said])))
        return Html(f'<p class="attn-note">{none.html}</p>', none.text)
    grid.notes = [
        linked(f"{title}. Licence: {licence}") for title, licence in licences.items() if licence != _FREE
    ] + [plain(said)]
    return grid.render()


def _sizes(paper: Paper, corpus: Mapping) -> tuple[str, ...]:
    """Training pairs, validation, tests and vocabulary of a corpus in a budget."""
    vocabulary = f"{corpus['vocab_size']:,} subwords"
    return _pairs(paper, corpus), _size(corpus.get("n_validation")), _tests(corpus), vocabulary


def _copied(budget: Mapping) -> tuple[str, ...]:
    """The same of copied letters, which are drawn anew for every update."""
    lengths, task = budget["test_lengths"], budget["task"]
    drawn = f"{budget['training']['steps'] * budget['pairs']:,}, drawn anew for every update"
    tests = (
        f"{budget['n_test']} pairs of each of {len(lengths)} lengths from {min(lengths)} to {max(lengths)}"
    )
    return drawn, BLANK, tests, f"{task['n_letters']} letters"


def _pairs(paper: Paper, corpus: Mapping) -> str:
    if "n_pairs" in corpus or corpus["name"] != "multi30k":
        return _size(corpus.get("n_pairs"))
    return f"{paper.exact_fact('multi30k_pairs')['value']:,}"


def _tests(corpus: Mapping) -> str:
    names = ", ".join(corpus.get("tests", ()))
    return f"{names} ({_size(corpus.get('n_test'))})" if names else "none"


def _size(count: int | None) -> str:
    return "all" if count is None else f"{count:,} pairs"


def _origin(name: str) -> tuple[str, str]:
    """Title of a corpus, and licence with where it comes from; a stand-in is called one."""
    if name == GENERATED:
        return "sentences generated by rule", _FREE
    if name == LENGTHS:
        return "random letters, to be copied", _FREE
    corpus = registry.get(name)
    stands = f", in the place of {corpus.stand_in_for}" if corpus.stand_in_for else ""
    return corpus.title + stands, " ".join(filter(None, [f"{corpus.licence} ({corpus.home}).", corpus.note]))


def source_words(name: str) -> str:
    """Where sentences that a page shows come from, and under which licence."""
    title, licence = _origin(name)
    return f"Sentences: {title}. Licence: {licence}"


# --- from the verdicts --------------------------------------------------------------------------------------


def equality_words(verdicts: Sequence[Verdict]) -> str:
    """Whether an equality fails for its difference or for the width of its interval, or why it is not judged."""
    said = []
    for v in verdicts:
        if v.kind != "equality":
            continue
        if v.estimate is None:
            said += [f"{v.measure}: {v.verdict}; {v.reason}."] * bool(v.seeds)
            continue
        low, high = v.interval
        found = f"{v.measure}: {v.estimate:+.3g} {v.unit}, interval [{low:.3g}, {high:.3g}], margin ±{v.margin:g}."
        if v.verdict != FAILS:
            said.append(found)
        elif abs(v.estimate) < v.margin:
            said.append(
                f"{found} The difference lies within the margin, its interval does not: it is too wide for {v.seeds} "
                "seeds to decide, and no difference has been found."
            )
        else:
            said.append(f"{found} The difference itself lies outside the margin.")
    return " ".join(said) or NO_RECORDS


# --- from the records of table 3 ----------------------------------------------------------------------------


def norm_words(post: Sequence[Record], pre: Sequence[Record]) -> str:
    """Which places of the layer norm are recorded, and where their runs end, in a sentence.

    Args:
        post: runs of the base model, layer norm after the sum.
        pre: the same with layer norm before each sub-layer.
    """
    places = {"after the sum": post, "before the sub-layer": pre}
    ends = {place: _mean(runs, "perplexity") for place, runs in places.items() if runs}
    if not ends:
        return NO_RECORDS
    drawn = [
        f"{place} ({_count(len(places[place]), 'seed')}, mean perplexity after the last update {end:.2f})"
        for place, end in ends.items()
    ]
    missing = [place for place in places if place not in ends]
    return f"Drawn: the layer norm {' and '.join(drawn)}. " + (
        f"The layer norm {missing[0]} is configured and not recorded, so the two are not compared here."
        if missing
        else _norm_difference(post, pre)
    )


def _norm_difference(post: Sequence[Record], pre: Sequence[Record]) -> str:
    """Cross-entropy before the sub-layer minus after the sum, of pairs with the same seed, and what it says."""
    others = {run.seed: run for run in post}
    pairs = [(run, others[run.seed]) for run in pre if run.seed in others]
    if len(pairs) < 2:
        return "Both places are recorded, in too few common seeds to compare."
    values = [log(one.metric("perplexity") / other.metric("perplexity")) for one, other in pairs]
    low, high = t_interval(values)
    said = "below 0: before is better" if high < 0 else "above 0: after is better" if low > 0 else None
    return (
        f"Cross-entropy before the sub-layer minus after the sum, in nats: {sum(values) / len(values):+.3f}, "
        f"{CONFIDENCE:.0%} interval [{low:.3f}, {high:.3f}] over {len(pairs)} seeds, "
        + (f"all {said}." if said else "which holds 0: undecided.")
    )


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def unfinished_words(records: Rows) -> str:
    """Which rows of table 3 were still learning when their runs ended, in sentences.

    Args:
        records: runs by id of the row.
    """
    runs = [run for found in records.values() for run in found]
    if not runs:
        return NO_RECORDS
    limit, count = f"{claims.most_fall():.0%}", sum(map(claims.still_falling, runs))
    falling, stuck = (_rows_where(records, rule) for rule in (claims.still_falling, claims.on_plateau))
    seen = [run.data["run"]["seen"] for run in runs]
    return (
        f"A run saw {min(seen):,} to {max(seen):,} target tokens. In {count} of {len(runs)} runs perplexity still fell "
        f"by more than {limit} between the last two evaluations, in seeds of these rows: {falling}. A seed of these "
        f"rows ends on the plateau: {stuck}. No claim about a row of either kind is judged, nor one whose control is."
    )


def _unsettled(run: Record) -> bool:
    """Whether a run's row is not judged for it."""
    return claims.on_plateau(run) or claims.still_falling(run)


def _rows_where(records: Rows, rule: Callable[[Record], bool]) -> str:
    """Labels of the rows in which a run is as `rule` says, with how many of their seeds are."""
    found = []
    for row in table3_rows():
        runs = records.get(row_id(row), ())
        if count := sum(map(rule, runs)):
            found.append(f"{row_label(row)} ({count} of {len(runs)})")
    return "; ".join(found) or "none"


def rule_words(paper: Paper, records: Sequence[Record]) -> list[str]:
    """The rules about plateau and fall: limit, and the verdicts that each withholds, a paragraph each.

    Args:
        paper: the facts, with the limits.
        records: of the chapter.
    """
    runs = _of_grid(records)
    if not runs:
        return [NO_RECORDS]
    free, some, judged = (
        {claim.id: judge(claim, paper, runs, lambda record: "fresh") for claim in which}
        for which in (claims.WITHOUT_RULE, claims.WITHOUT_FALLING, claims.TABLE3)
    )
    return [
        _withheld(paper.margins["plateau_spoken_numbers"], free, some),
        _withheld(paper.margins["still_falling"], some, judged),
    ]


def _of_grid(records: Sequence[Record]) -> list[Record]:
    """The runs that the tests on table 3 are judged on."""
    return [record for record in records if record.key[1].startswith(f"{GRID}/")]


def _withheld(margin: Mapping, without: Mapping[str, Verdict], judged: Mapping[str, Verdict]) -> str:
    """A rule's limit, and what becomes of the tests that are not judged by it."""
    withheld = [v for name, v in without.items() if v.verdict != judged[name].verdict]
    counts = {
        "would hold": sum(v.verdict == HOLDS for v in withheld),
        "would be contradicted": sum(bool(v.contradicted) for v in withheld),
        "would be undecided": sum(v.verdict == FAILS and not v.contradicted for v in withheld),
    }
    said = "; ".join(f"{count} {name}" for name, count in counts.items())
    return (
        f"The limit is {margin['value']:g} {margin['unit']} (why, and when it was set, is told below the table of "
        f"claims). By this rule {len(withheld)} of {len(without)} tests are not judged. Without it: {said}."
    )


def ceiling_words(records: Rows) -> str:
    """How near the rows of table 3 that have learned their sentences lie to each other, in a sentence."""
    ends = {
        row_label(row): _mean(runs, "bleu_validation")
        for row in table3_rows()
        if (runs := records.get(row_id(row))) and not any(map(_unsettled, runs))
    }
    if not ends:
        return NO_RECORDS
    return (
        f"{len(ends)} rows have neither a seed on the plateau nor one that still falls; their mean validation BLEU lies "
        f"between {min(ends.values()):.1f} and {max(ends.values()):.1f}. Where nearly every sentence is right there is "
        "no room for a larger model to be better: such a ceiling hides what size is worth, and that no difference is "
        "seen says little against the paper."
    )


def shorter_words(paper: Paper, records: Rows, longer: Rows, profile: str = BOOK_PROFILE) -> list[str]:
    """How the first runs of table 3 differ, which rows they left undecided, and what came of those, a paragraph each.

    Args:
        paper: the facts, with both budgets.
        records: the first, shorter runs by id of the row.
        longer: the runs that the tests are judged on, by id of the row.
        profile: whose budgets.
    """
    short, grid = (paper.budgets[task].get(profile) for task in (SHORT_GRID, GRID))
    if short is None:
        return [f"No shorter training is configured at profile {profile}."]
    updates, warmups = ([b["training"][name] for b in (short, grid)] for name in ("steps", "warmup_steps"))
    how = (
        f"The first runs had {updates[0]:,} updates in place of {updates[1]:,} and a warm-up of {warmups[0]:,} in place "
        f"of {warmups[1]:,}, and so a peak rate {(warmups[1] / warmups[0]) ** 0.5:.1f} times as high; all else is the "
        "same."
    )
    first, now = (_rows_where(found, _unsettled) for found in (records, longer))
    return [
        how,
        f"By the rules above these rows could not be judged on the first runs: {first}. On the longer ones these cannot "
        f"be: {now}.",
        grid["purpose"],
    ]


def best_table(records: Rows) -> Html:
    """Perplexity and BLEU of every row after the last update and at its best evaluation, mean over seeds."""
    columns = ["Row", "Perplexity, last", "Perplexity, best", "Most gained, nats", "BLEU, last",
               "BLEU, best", "Seeds"]  # fmt: skip
    grid = Grid(
        plain("Validation at equal updates, and at each run's evaluation of lowest perplexity"), columns
    )
    scored = False
    for row in table3_rows():
        runs = records.get(row_id(row))
        if not runs:
            continue
        at_best = all("bleu_validation_at_best" in run.data["metrics"] for run in runs)
        scored |= at_best
        cells = [
            row_label(row), f"{_mean(runs, 'perplexity'):.3f}", f"{_mean(runs, 'best_perplexity'):.3f}",
            f"{max(map(_gain, runs)):.3f}", f"{_mean(runs, 'bleu_validation'):.1f}",
            f"{_mean(runs, 'bleu_validation_at_best'):.1f}" if at_best else BLANK, len(runs),
        ]  # fmt: skip
        grid.add(list(map(plain, cells)))
    if not grid.rows:
        return Html(f'<p class="attn-note">{NO_RECORDS}</p>', NO_RECORDS)
    grid.notes = [] if scored else [plain("BLEU at the best evaluation was not scored in these runs.")]
    return grid.render()


def _mean(runs: Sequence[Record], metric: str) -> float:
    return sum(run.metric(metric) for run in runs) / len(runs)


def _gain(run: Record) -> float:
    return log(run.metric("perplexity") / run.metric("best_perplexity"))


def _last_and_best(paper: Paper, runs: Sequence[Record]) -> list[dict[str, Verdict]]:
    """The tests on table 3 by id, judged after the last update, and at every run's best evaluation."""
    return [
        {claim.id: judge(claim, paper, runs, lambda record: "fresh") for claim in which}
        for which in (claims.TABLE3, claims.AT_BEST)
    ]


def fragile_words(paper: Paper, records: Sequence[Record]) -> str:
    """Which tests on table 3 hold after the last update and not at the best evaluation, and how many hold by chance.

    Args:
        paper: the facts, with the margins.
        records: of the chapter.
    """
    runs = _of_grid(records)
    if not runs:
        return NO_RECORDS
    last, best = _last_and_best(paper, runs)
    holding = [name for name, v in last.items() if v.verdict == HOLDS]
    lost = [
        f"{last[name].measure} {_span(last[name])}, at the best evaluations {_span(best[name])}"
        for name in holding
        if best[name].verdict != HOLDS
    ]
    orders = [v for v in last.values() if v.kind == "order" and v.verdict in (HOLDS, FAILS)]
    seeds = " or ".join(map(str, sorted({v.seeds for v in orders}))) or "no"
    gone = f"these do not: {'; '.join(lost)}" if lost else "all do"
    by_chance = (1 - CONFIDENCE) / 2
    return (
        f"Of the {len(holding)} tests on trained models that hold after the last update, {len(holding) - len(lost)} hold"
        f" at every run's best evaluation, too; {gone}. An interval of {CONFIDENCE:.0%} lies above 0 in {by_chance:.1%}"
        f" of tests where nothing differs: of {len(orders)} tests of order that are judged here, with {seeds} seeds"
        f" each, about {len(orders) * by_chance:.1f} would hold by chance alone."
    )


def _span(verdict: Verdict) -> str:
    if verdict.interval is None:
        return verdict.verdict
    low, high = verdict.interval
    return f"[{low:.3g}, {high:.3g}] {verdict.unit}"


def best_words(paper: Paper, records: Sequence[Record]) -> str:
    """Whether a verdict changes with the best evaluation in the place of the last, in a sentence."""
    runs = _of_grid(records)
    if not runs:
        return NO_RECORDS
    last, best = _last_and_best(paper, runs)
    changed = [
        f"{v.measure} ({v.verdict}, at the best evaluation {best[name].verdict})"
        for name, v in last.items()
        if v.verdict != best[name].verdict
    ]
    gained = sum(_gain(run) > 0 for run in runs)
    return (
        f"{gained} of {len(runs)} runs had a better evaluation than their last. Taken there, {len(changed)} of "
        f"{len(last)} verdicts change{': ' + '; '.join(changed) if changed else ''}."
    )
