"""What chapter 5 counts without training: facts, sizes of printed models, what is read and what is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from attn.experiments.product_keys.concepts import (
    codebook_costs,
    counted_facts,
    counted_search,
    replaced,
    touched_at_profiles,
)
from attn.experiments.product_keys.runs import (
    BASE,
    DEEPER,
    GROWN_LIKE,
    MODELS,
    PAPER,
    WIDER,
    PrintedModel,
    n_parameters,
    trunk,
)
from attn.experiments.product_keys.tables import printed_memory
from attn.experiments.product_keys.workloads import MemoryConfig
from attn.reproduction.facts import load_papers
from attn.reproduction.grid import BLANK, Grid, Html, plain


def counted_table() -> Html:
    """Slots, parameters and search costs at the paper's size: as the facts state them, and as the code counts them."""
    grid = Grid(plain("At the paper's size"), ["What", "Stated", "Counted here", "Equal"])
    for item in counted_facts():
        equal = "✓ yes" if item.stated == item.counted else "✗ no"
        grid.add([plain(item.what), plain(f"{item.stated:,}"), plain(f"{item.counted:,}"), plain(equal)])
    return grid.render()


def sizes_table() -> Html:
    """Parameters of the model of every row of tables 1 to 3 at the paper's size, and what a search costs there."""
    grid = Grid(
        plain(
            "Models of tables 1 to 3 at the paper's size, counted; the print, as remembered, states none of these"
        ),
        ["Row", "Parameters", "Of them in memories", "A search by halves", "Through all keys"],
    )
    for label, model in _printed_rows().items():
        grid.add([plain(label), *map(plain, _size_cells(model))])
    budget = load_papers()[PAPER].budgets["text"]["paper"]
    grid.notes = [
        plain(
            f"With a vocabulary of {budget['text']['vocab_size']:,}, {budget['training']['block']} positions and one "
            "matrix for embedding and output, as at profile paper. A search, of one query by one head, is counted in "
            "multiply-adds."
        )
    ]
    return grid.render()


def _printed_rows() -> dict[str, PrintedModel]:
    """The model of every row of the printed tables, by a label; rows whose models are of one size stand together."""
    facts = load_papers()[PAPER]
    found = {
        f"table 1: {row['model']}, width {row['dim']}": PrintedModel(
            id="", label="", layers=row["layers"], dim=row["dim"], memories=row["memories"]
        )
        for row in facts.table("table1").rows
    }
    base = MODELS[BASE]
    for row in facts.table("table2_batchnorm").rows:
        for name, on in (("", False), (", batch norm", True)):
            changes = {"n_keys": row["n_keys"], "batch_norm": on}
            found[f"table 2: {row['row']} slots{name}"] = replace(base, changes=changes)
    places = [row["position"] for row in facts.table("table3_position").rows]
    found[f"table 3: memory in one of layers {places[0]} to {places[-1]}"] = base
    return found


def _size_cells(model: PrintedModel) -> list[str]:
    budget = load_papers()[PAPER].budgets["text"]["paper"]
    config = trunk(model, budget)
    sizes = {"vocab_size": budget["text"]["vocab_size"], "max_len": budget["training"]["block"]}
    cells = [f"{n_parameters(config, **sizes):,}"]
    if not config.memories:
        return [*cells, "0", BLANK, BLANK]
    memory = config.memory
    searches = [
        counted_search(n_keys=memory.n_keys, key_dim=memory.key_dim, topk=memory.topk, flat=flat).total
        for flat in (False, True)
    ]
    return [*cells, f"{memory_parameters(asdict(config)):,}", *(f"{search:,}" for search in searches)]


def memory_parameters(model: Mapping[str, Any]) -> int:
    """Parameters of the memories of a `TrunkConfig` as a dict: values, sub-keys, and queries with their batch norm."""
    memory = printed_memory(d_model=model["d_model"], **model["memory"])
    return len(model["memories"]) * sum(parameter.numel() for parameter in memory.parameters())


def codebook_words() -> list[str]:
    """What searches by two and by three codebooks take at the paper's size, in sentences."""
    memory = MemoryConfig()
    n_slots = memory.n_keys**2
    found = {n: codebook_costs(n, n_slots=n_slots, key_dim=memory.key_dim, topk=memory.topk) for n in (2, 3)}
    lines = [
        f"{n} codebooks, {n_slots:,} slots, queries of {memory.key_dim}, k = {memory.topk}: {products:,} "
        f"multiplications and at most {sums:,} sums; {products:,} numbers in the keys of a head."
        for n, (products, sums) in found.items()
    ]
    return [*lines, f"{found[2][0] / found[3][0]:g} times as few multiplications with three."]


def read_words() -> str:
    """How many values a token reads at the paper's size, a sentence."""
    memory = MemoryConfig()
    read, slots = memory.n_heads * memory.topk, memory.n_keys**2
    return (
        f"A token reads {memory.n_heads} heads x {memory.topk} = {read} of {slots:,} values at most, "
        f"{read / slots:.2%} of them."
    )


def touched_words() -> list[str]:
    """What an update reads of a memory at each profile with a text, in a sentence each."""
    lines = []
    for found in touched_at_profiles():
        share = f"{found.rows / found.n_slots:.0%} of the {found.n_slots:,} slots"
        if found.counted < found.n_tokens:
            share = f"at least {share}, as many as {found.counted:,} of them touch"
        guess = " (a guess of ours)" if found.profile == "paper" else ""
        lines.append(
            f"{found.profile}: the {found.n_tokens:,} subwords of an update{guess} make {found.lookups:,} look-ups, "
            f"{found.lookups / found.n_slots:.1f} a slot, and touch {share}."
        )
    return lines


def replaced_words() -> list[str]:
    """What a memory adds and costs in the place of a feed-forward layer, at the paper's widths, in a sentence each."""
    return [
        f"Width {item.d_model:,}: a memory of {item.n_slots:,} slots in the place of a feed-forward layer adds "
        f"{item.gained:,} parameters, those of the layer taken off, and costs {item.memory:,} multiply-adds a token, "
        f"{item.memory / item.feed_forward:.2f} times the {item.feed_forward:,} of the layer."
        for item in replaced()
    ]


def grown_words() -> list[str]:
    """What the baselines of as many parameters as a memory would be at each profile, in a sentence each."""
    lines = []
    for profile, budget in load_papers()[PAPER].budgets["text"].items():
        base, wide, deep = (trunk(MODELS[name], budget) for name in (GROWN_LIKE, WIDER, DEEPER))
        dense = replace(base, memories=(), memory=MemoryConfig())
        factor = n_parameters(wide) / n_parameters(dense)
        done = "left out" if WIDER in budget.get("without", ()) else "trained"
        lines.append(
            f"{profile}: feed-forward layers of {wide.d_ff:,} units in place of {base.d_ff:,}, or {deep.n_layers:,} "
            f"layers in place of {base.n_layers}, every parameter used at every token: {factor:.0f} times the "
            f"arithmetic of the layers without a memory; {done}."
        )
    return lines
