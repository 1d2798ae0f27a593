"""What chapter 2 shows as tables and words: memory arithmetic, printed grids, and what the conventions decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from attn.experiments.reformer.concepts import memory_amounts
from attn.experiments.reformer.runs import ATTENTIONS, LABELS, PAPER, TABLE2_ROWS
from attn.experiments.reformer.workloads import ROUNDS, SOLVED
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.grid import Grid, Html, plain
from attn.reproduction.records import Record

Records = Mapping[str, Sequence[Record]]  # by attention of the training
_EVALUATED = ("eval_full", "eval_lsh8", "eval_lsh4", "eval_lsh2", "eval_lsh1")
_CHANCE = (
    0.05  # accuracies below this are called chance: it is 0.008, and noise of the conventions comes on top
)


def memory_table() -> Html:
    """The estimates of the paper and of lectures on it, in GiB."""
    grid = Grid(plain("Memory of a long text, float32"), ["What", "Values", "GiB"])
    for amount in memory_amounts():
        grid.add([plain(amount.what), plain(f"{amount.values:,}"), plain(f"{amount.gib:.3g}")])
    return grid.render()


def printed_grids(paper: Paper) -> dict[str, dict[str, list[float]]]:
    """Table 2 as the paper and as the replication print it, by row, in the order full, 8, 4, 2, 1 rounds."""
    sources = {"the paper": "table2", "a replication": "table2_reproduction"}
    return {
        who: {TABLE2_ROWS[row["train"]]: [row[column] for column in _EVALUATED] for row in paper.table(table).rows}
        for who, table in sources.items()
    }  # fmt: skip


def finding(records: Records) -> list[str]:
    """Who learned, and which convention of full attention makes of an LSH model what the paper prints, in sentences."""
    if not any(records.values()):
        return ["No records yet."]
    return [*_learned(records), *_full_of_lsh(records), *_lsh_of_full(records), *_replication(records)]


def _learned(records: Records) -> list[str]:
    lines = []
    for name, found in records.items():
        own = "full_plain" if name == "separate" else name
        solved = [record for record in found if _accuracy(record, own) >= SOLVED]
        if found:
            mean = 100 * fmean(_accuracy(record, own) for record in found)
            line = f"{LABELS[name]}: {mean:.4g} percent right, as it was trained; "
            line += f"{len(solved)} of {len(found)} seeds reach {100 * SOLVED:g} percent"
            steps = [r.metric("steps_to_solve") for r in solved if "steps_to_solve" in r.data["metrics"]]
            lines.append(line + (f", after {_range(steps)} updates." if steps else "."))
    return lines


def _full_of_lsh(records: Records) -> list[str]:
    trained = [record for name in ("lsh4", "lsh2", "lsh1") for record in records.get(name, ())]
    if not trained:
        return []
    parts = []
    for name in ("full", "full_raw_keys", "full_with_self", "full_plain"):
        mean = fmean(_accuracy(record, name) for record in trained)
        words = "chance" if mean < _CHANCE else f"{100 * mean:.3g} percent"
        parts.append(f"{words} with {LABELS[name]}")
    return ["Trained with LSH and evaluated with full attention: " + "; ".join(parts) + "."]


def _lsh_of_full(records: Records) -> list[str]:
    parts = []
    for name in ("full", "full_with_self", "full_raw_keys", "full_plain", "separate"):
        if found := records.get(name):
            shares = [f"{100 * fmean(_accuracy(r, f'lsh{rounds}') for r in found):.3g}" for rounds in ROUNDS]
            parts.append(f"{', '.join(shares)} with {LABELS[name]}")
    if not parts:
        return []
    return [
        "Trained with full attention and evaluated with LSH of 8, 4, 2 and 1 rounds, in percent: "
        + "; ".join(parts)
        + ". "
        "Where queries and keys were trained apart, LSH takes the queries for both."
    ]


def _replication(records: Records) -> list[str]:
    """Which of our models with full attention falls like the replication's when it is evaluated with hashing."""
    printed = printed_grids(load_papers()[PAPER])["a replication"]["full"][1:]
    rows = {
        name: [100 * fmean(_accuracy(record, f"lsh{rounds}") for record in found) for rounds in ROUNDS]
        for name, found in records.items()
        if found and ATTENTIONS[name].kind == "full"
    }
    if not rows:
        return []
    apart = {name: fmean(abs(a - b) for a, b in zip(row, printed, strict=True)) for name, row in rows.items()}
    nearest = min(apart, key=apart.__getitem__)
    lines = [
        f"The replication prints {', '.join(map(str, printed))} for the same. Nearest is our model with "
        f"{LABELS[nearest]}, {apart[nearest]:.2g} percentage points away on average."
    ]
    if "separate" in rows:
        chance = max(rows["separate"]) < 100 * _CHANCE
        verb = "falls" if chance else "does not fall"
        lines.append(f"With separate queries and keys our model {verb} to chance under hashing; theirs does.")
    return lines


def _accuracy(record: Record, evaluation: str) -> float:
    return record.metric(f"accuracy_{evaluation}")


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
