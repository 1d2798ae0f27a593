"""How far trained Neural Turing Machines work as the paper says they do, counted on the episode each run keeps traced.

Weightings are compared by their main slot, the one of largest weight, which says little where that weight is small: so
the weights are told too, and what chance would give. What `inside` draws is told of the run drawn there first, then
of all seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from attn.experiments.ntm.inside import (
    SHUFFLES,
    Arrays,
    Pair,
    answer_step,
    best,
    busiest,
    finding_pair,
    line_shares,
    recall_steps,
    shuffles,
    sort_steps,
)
from attn.experiments.ntm.results import NONE, seeds, setting
from attn.experiments.ntm.runs import LABELS
from attn.experiments.ntm.tables import final_cost
from attn.reproduction.grid import Grid, Html, plain
from attn.reproduction.records import Record

_LEVEL = 0.01  # share of random orders that may do as well as what still counts as beyond chance
_NEAR = 0.1  # how far shares may be from those of a slot for each context
_FOUND = 0.9  # overlap with the vector due above which it counts as found whole
_FOLLOWS = 0.9  # share of the spread of places that the order of arrival must explain to be called their rule


def _of_all(
    records: Sequence[Record], said: Callable[[Arrays], str], value: Callable[[Arrays], str]
) -> list[str]:
    """What is found in the run shown in words, and the same quantity of every seed."""
    shown = best(records)
    if shown is None:
        return [NONE]
    lines = [f"Seed {shown.seed}, shown above: {said(shown.artifact())}"]
    if len(records) > 1:
        values = "; ".join(f"seed {record.seed}: {value(record.artifact())}" for record in records)
        lines.append(f"The same counts of all {seeds(records)}. {values}.")
    return lines


def _main(weights: np.ndarray) -> np.ndarray:
    return weights.astype(float).argmax(axis=-1)


def _largest(weights: np.ndarray) -> np.ndarray:
    return weights.astype(float).max(axis=-1)


def commonest_move(slots: np.ndarray, n_slots: int) -> tuple[int, int]:
    """The commonest move around the circle from one slot [T] to the next, and in how many of T - 1 steps it is made."""
    moves = (np.diff(slots) + n_slots // 2) % n_slots - n_slots // 2
    kinds, counts = np.unique(moves, return_counts=True)
    return int(kinds[counts.argmax()]), int(counts.max())


# --- copy ----------------------------------------------------------------------------------------------------


def copying_words(records: Sequence[Record]) -> list[str]:
    """Whether the write head walks, and whether the read head follows the same slots."""
    return _of_all(records, _copying, lambda arrays: "{} and {}".format(*copying_counts(arrays)))


def _copying(arrays: Arrays) -> str:
    steps, same, count, shift, ahead = copying_counts(arrays)
    weight, alike, others = copied_vectors(arrays)
    n_slots = arrays["trace_write_weights"].shape[2]
    when = "a step before that vector is due" if ahead else "at the step where that vector is due"
    return (
        f"while {count} vectors come in, the write head's main slot moves by {shift:+d} in {steps} of {count - 1} steps "
        f"between them; for {same} of {count} vectors the read head's main slot {when} is the one written to when it "
        f"came in (by chance one in {n_slots}). The main slots hold at least {weight:.3f} of the weight at these steps. "
        f"What is read then and what was added for that vector have a cosine of at least {alike:.3f}; for different "
        f"vectors the median is {others:.2f}."
    )


def copying_counts(arrays: Arrays) -> tuple[int, int, int, int, int]:
    """Steps that share the commonest move, vectors read where they were written, vectors, that move, steps read ahead.

    A model may read at the step of the answer, or a step ahead, since its controller sees what was read before.
    """
    write, read, ahead = copied_slots(arrays)
    move, steps = commonest_move(write, arrays["trace_write_weights"].shape[2])
    return steps, int((read == write).sum()), len(write), move, ahead


def copied_slots(arrays: Arrays, after: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """Main slots written while vectors come in [L], those read over the answer [rounds, L], and steps read ahead.

    Args:
        arrays: of a trace in which one step comes before the L vectors and one between them and the answer.
        after: steps that come after the answered vectors.
    """
    answer = answer_step(arrays)
    write = _main(arrays["trace_write_weights"][1 : answer - 1, 0])
    steps = len(arrays["trace_inputs"]) - answer - after
    slots = _main(arrays["trace_read_weights"][:, 0])
    read = [slots[answer - ahead : answer - ahead + steps].reshape(-1, len(write)) for ahead in (0, 1)]
    ahead = int(np.argmax([(one == write).sum() for one in read]))
    return write, read[ahead], ahead


def copied_vectors(arrays: Arrays) -> tuple[float, float, float]:
    """Least weight of a main slot while vectors come in or are read; cosines of what is read and what was added for it.

    The least over vectors, and the median over pairs of different ones.
    """
    _, _, count, _, ahead = copying_counts(arrays)
    answer = answer_step(arrays)
    came, read = slice(answer - 1 - count, answer - 1), slice(answer - ahead, answer - ahead + count)
    weights = [arrays["trace_write_weights"][came, 0], arrays["trace_read_weights"][read, 0]]
    cosines = _unit(arrays["trace_add"][came, 0]) @ _unit(arrays["trace_reads"][read, 0]).T
    different = cosines[~np.eye(count, dtype=bool)]
    return (
        float(min(map(np.min, map(_largest, weights)))),
        float(cosines.diagonal().min()),
        float(np.median(different)),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(float)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


# --- repeat copy ---------------------------------------------------------------------------------------------


class Rounds(NamedTuple):
    """How a traced repeat copy goes through its rounds, by main slots."""

    count: int  # vectors
    move: int  # commonest move of the write head while they come in
    walked: int  # in how many of count - 1 steps it is made
    found: tuple[int, ...]  # by round, vectors read where they were written when they came in
    straight: int  # later rounds with one jump, from the slot of the last vector to that of the first
    by_way: int  # later rounds with one jump, from a slot where no vector came in to the one of the vector then due
    others: tuple[int, ...]  # the slots from which `by_way` jumps
    rewritten: float  # largest weight with which these are written to once the vectors are in; 0 without any
    wrong: int  # answered bits on the wrong side of one half
    ahead: int  # steps read ahead
    weight: float  # least of a main slot over the answer


def rounds_of(arrays: Arrays) -> Rounds:
    """A traced repeat copy. A jump is any other move of the read head than the commonest of the write head."""
    write, read, ahead = copied_slots(arrays, after=1)
    n_slots, answer = arrays["trace_write_weights"].shape[2], answer_step(arrays)
    move, walked = commonest_move(write, n_slots)
    straight, others = 0, []
    for before, now in zip(read, read[1:], strict=False):
        path = np.append(before[-1], now)
        jumps = np.flatnonzero((np.diff(path) - move) % n_slots)
        if len(jumps) == 1 and now[jumps[0]] == write[jumps[0]]:
            start = path[jumps[0]]
            straight += jumps[0] == 0 and start == write[-1]
            others += [int(start)] * (start not in write)
    bits = slice(arrays["trace_inputs"].shape[1] - 2)
    wanted = np.tile(arrays["trace_inputs"][1 : answer - 1, bits], (len(read), 1)) > 0.5
    wrong = (arrays["trace_outputs"][answer:-1, bits] > 0.5) != wanted
    weights = _largest(arrays["trace_read_weights"][answer - ahead : answer - ahead + read.size, 0])
    found = tuple(int(same) for same in (read == write).sum(axis=1))
    slots = tuple(dict.fromkeys(others))
    rewritten = arrays["trace_write_weights"][answer - 1 :, 0, list(slots)].max(initial=0)
    return Rounds(
        len(write), move, walked, found, int(straight), len(others), slots, float(rewritten),
        int(wrong.sum()), ahead, float(weights.min()),
    )  # fmt: skip


def repeating_words(records: Sequence[Record]) -> list[str]:
    """Whether the read head runs through the same slots in every round, and how it comes back to the first of them."""
    shown = best(records)
    if shown is None:
        return [NONE]
    lines = [f"{_run(shown)}, shown above: {_repeating(rounds_of(shown.artifact()))}"]
    if len(records) > 1:
        lines.append(
            f"All {len(records)} runs: vectors of the first round and of the later ones that are read where they were "
            "written; later rounds with one jump straight back, and by way of another slot; least weight of a main slot "
            "read over the answer; largest weight with which that other slot is written to once the vectors are in."
        )
        lines += [f"{_run(record)}: {_repeated(rounds_of(record.artifact()))}." for record in records]
    return lines


def _run(record: Record) -> str:
    return f"{LABELS[record.data['experiment'].rpartition('/')[2]]}, seed {record.seed}"


def _repeating(found: Rounds) -> str:
    count, later = found.count, len(found.found) - 1
    when = "a step before a vector is due" if found.ahead else "when a vector is due"
    way = (
        f" ({', '.join(map(str, found.others))}, written to afterwards with a weight of up to {found.rewritten:.2g})"
        if found.others
        else ""
    )
    return (
        f"while {count} vectors come in, the write head's main slot moves by {found.move:+d} in {found.walked} of "
        f"{count - 1} steps between them. The read head's main slot {when} is the one written to when it came in for "
        f"{found.found[0]} of {count} vectors of the first round and {sum(found.found[1:])} of {later * count} of the "
        f"later ones. Of {later} later rounds {found.straight} have one jump, straight from the slot of the last vector "
        f"to that of the first; {found.by_way} have one from a slot where no vector came in{way} to that of the vector "
        f"then due. Wrong bits in the whole answer: {found.wrong}."
    )


def _repeated(found: Rounds) -> str:
    later = len(found.found) - 1
    return (
        f"{found.found[0]} of {found.count} and {sum(found.found[1:])} of {later * found.count} vectors; "
        f"{found.straight} straight and {found.by_way} by way of another slot, of {later}; read {found.weight:.2g}, "
        f"written {found.rewritten:.2g}"
    )


# --- associative recall --------------------------------------------------------------------------------------


def recalling_words(records: Sequence[Record]) -> list[str]:
    """Where items are written, and what the read head finds over the answer: when that slot was written to most."""
    return _of_all(records, _recalling, _recalled)


def _recalling(arrays: Arrays) -> str:
    found, shown, n_items, slot, weight = recalled_item(arrays)
    move, steps, count = item_walk(arrays)
    apart = ", so that each marker and each vector has a slot of its own" if move and steps == count else ""
    return (
        f"while the items come in, the write head's main slot moves by {move:+d} in {steps} of {count} steps between "
        f"them{apart}. At the first step of the answer the read head's main slot is {slot} (weight {weight:.2f}); what "
        f"is written there was written mostly while item {found + 1} of {n_items} came in, "
        f"{_whose(found, shown, n_items)}. {_found_vectors(arrays)}"
    )


def _found_vectors(arrays: Arrays) -> str:
    same, others, length, least, ahead = recalled_vectors(arrays)
    when = "a step before it is due" if ahead else "when it is due"
    return (
        f"For {same} of {length} vectors of the answer the main slot read {when}, of weight {least:.2f} or more, is the "
        f"one written to when the vector came in; taken for the vectors of another item it would be so for {others:.2g} "
        f"of {length} on average."
    )


def _recalled(arrays: Arrays) -> str:
    found, shown, n_items, _, weight = recalled_item(arrays)
    same, others, length, least, _ = recalled_vectors(arrays)
    return (
        f"{_whose(found, shown, n_items)} (weight {weight:.2f}), {same} of {length} vectors (weights from {least:.2f}; "
        f"for another item {others:.2g})"
    )


def item_walk(arrays: Arrays) -> tuple[int, int, int]:
    """Commonest move of the busiest write head while the items come in, steps that share it, and all steps between."""
    query = recall_steps(arrays)[0]
    write = arrays["trace_write_weights"][:query, busiest(arrays["trace_add"])[0]]
    move, steps = commonest_move(_main(write), write.shape[1])
    return move, steps, query - 1


def recalled_vectors(arrays: Arrays) -> tuple[int, float, int, float, bool]:
    """Vectors of the answer that are read where they were written, beside what it would be by mistake.

    The busiest write and the busiest read head count, and either the step of the answer or the one before.

    Returns:
        Vectors whose main slot when read is that when written, the same taken for another item (mean over these), all
        vectors of an item, the least weight of the main slots read, and whether it reads a step ahead.
    """
    query, _, queried, wanted = recall_steps(arrays)
    writer, reader = busiest(arrays["trace_add"])[0], busiest(arrays["trace_reads"])[0]
    (start, end), (due, _) = queried[0], wanted[1]
    length = end - start
    written = _main(arrays["trace_write_weights"][:query, writer])
    write = written.reshape(-1, length + 1)[:, 1:]  # [items, length], without the markers
    item = (start - 1) // (length + 1) + 1  # the one to be answered
    read = [arrays["trace_read_weights"][due - ahead : due - ahead + length, reader] for ahead in (0, 1)]
    same = [(_main(weights) == write).sum(axis=1) for weights in read]
    ahead = int(same[1][item] > same[0][item])
    others = float(np.delete(same[ahead], item).mean())
    return int(same[ahead][item]), others, int(length), float(_largest(read[ahead]).min()), bool(ahead)


def _whose(found: int, shown: int, n_items: int) -> str:
    parts = {
        shown + 1: "the item to be answered",
        shown: "the item shown again",
        shown + 2: "the item after the answer",
    }
    return parts.get(found, "another item")


def recalled_item(arrays: Arrays) -> tuple[int, int, int, int, float]:
    """Item in whose steps the slot read first was written to most, item shown again, items, that slot, its weight.

    Steps of an item begin with the marker before it. The busiest read head counts, and all write heads together.
    """
    query, answer, queried, _ = recall_steps(arrays)
    start, end = queried[0]
    length = end - start
    n_items = query // (length + 1)
    reader = busiest(arrays["trace_reads"])[0]
    read = arrays["trace_read_weights"][answer, reader].astype(float)
    slot = int(read.argmax())
    written = arrays["trace_write_weights"][:query, :, slot].astype(float).sum(axis=1)
    by_item = [written[i * (length + 1) : (i + 1) * (length + 1)].sum() for i in range(n_items)]
    return int(np.argmax(by_item)), (start - 1) // (length + 1), n_items, slot, float(read[slot])


# --- dynamic n-grams -----------------------------------------------------------------------------------------


def counting_words(records: Sequence[Record]) -> list[str]:
    """Whether the memory is addressed at all, and whether slots belong to contexts."""
    shown = best(records)
    if shown is None:
        return [NONE]
    order = shown.data["config"]["task"]["order"]
    lines = [f"Seed {shown.seed}, shown above: {_counting(shown.artifact(), order)}"]
    if len(records) > 1:
        lines.append(
            f"All {seeds(records)}: median largest weights; then how often two steps have the same main slot to read, "
            "in the same context, in contexts that differ in the oldest bit alone, and in others."
        )
        lines += [f"Seed {record.seed}: {_slots(record.artifact(), order)}" for record in records]
    kept = sum(_a_slot_each(*same_slot(record.artifact(), order)) for record in records)
    lines.append(
        f"A slot of its own for every context would give 100%, 0% and 0%; {kept} of {seeds(records)} "
        f"{'comes' if len(records) == 1 else 'come'} within {_NEAR:.0%} of that."
    )
    return lines


def _a_slot_each(same: float, near: float, other: float) -> bool:
    return same >= 1 - _NEAR and max(near, other) <= _NEAR


def _slots(arrays: Arrays, order: int) -> str:
    write, read = (
        float(np.median(_largest(arrays[f"trace_{name}_weights"][:, 0]))) for name in ("write", "read")
    )
    same, near, other = same_slot(arrays, order)
    return f"write {write:.2g}, read {read:.2g}; {same:.0%}, {near:.0%} and {other:.0%}.{_use(arrays)}"


def _counting(arrays: Arrays, order: int) -> str:
    write, read = (arrays[f"trace_{name}_weights"][:, 0] for name in ("write", "read"))
    n_slots = write.shape[1]
    same, near, other = same_slot(arrays, order)
    return (
        f"over all {len(write)} steps the largest write weight lies between {_range(_largest(write))}, the largest read "
        f"weight between {_range(_largest(read))}; 1 is one slot alone, {1 / n_slots:.2g} is all {n_slots} slots alike."
        f"{_use(arrays)} Two steps in the same context have the same main slot to read in {same:.0%} of cases, in "
        f"contexts that differ in the oldest bit alone in {near:.0%}, in others in {other:.0%}."
    )


def _range(values: np.ndarray) -> str:
    return f"{values.min():.2g} and {values.max():.2g} (median {np.median(values):.2g})"


def _use(arrays: Arrays) -> str:
    """What the weightings rule out: counts in slots of their own need focused heads that come back."""
    said = ""
    for name in ("write", "read"):
        weights = arrays[f"trace_{name}_weights"][:, 0]
        n_slots, steps = weights.shape[1], len(weights) - 1
        move, count = commonest_move(_main(weights), n_slots)
        if np.median(_largest(weights)) < 2 / n_slots:
            said += _SPREAD[name]
        elif move and count >= _FOLLOWS * steps:
            said += f" The {name} head walks: its main slot moves by {move:+d} in {count} of {steps} steps."
    return said


_SPREAD = {
    "write": " It writes to all slots nearly alike, so they hold nearly the same vector and no context has a slot of "
    "its own: whatever it keeps of the counts is in its controller, or in what amounts to one slot.",
    "read": " It reads nearly the mean of all slots.",
}


def same_slot(arrays: Arrays, order: int) -> tuple[float, float, float]:
    """Shares of pairs of steps at which the read head's main slot is the same.

    Of steps in the same context; in contexts that differ in the oldest bit alone; in others. Where slots belong to
    contexts the first is 1 and the others are 0; a head that goes by the latest bits alone has the first two alike.
    """
    bits = arrays["trace_inputs"][1:, 0] > 0.5
    windows = np.lib.stride_tricks.sliding_window_view(bits, order - 1)
    contexts = windows @ (1 << np.arange(order - 1)[::-1])  # the oldest bit is worth most
    slots = _main(arrays["trace_read_weights"][order - 1 :, 0])
    one, two = np.triu_indices(len(slots), 1)
    differ = contexts[one] ^ contexts[two]
    equal = slots[one] == slots[two]
    oldest = 1 << (order - 2)
    return (
        _share(equal[differ == 0]),
        _share(equal[differ == oldest]),
        _share(equal[(differ != 0) & (differ != oldest)]),
    )


def _share(cases: np.ndarray) -> float:
    return float(cases.mean()) if cases.size else float("nan")


# --- priority sort -------------------------------------------------------------------------------------------


class Sorting(NamedTuple):
    """How a traced sort works: the heads that fit together best, and by what rule that write head places vectors."""

    n_writers: int
    n_readers: int
    pair: Pair
    by_priority: float  # share of the spread of places that a line over the priority explains
    reached: int  # of `SHUFFLES` random orders of the priorities, those in which any write head has as much
    by_arrival: float  # share that a line over the order of arrival explains

    @property
    def finds(self) -> bool:
        """Whether the pair finds the vectors that are due, beyond chance."""
        return self.pair.reached <= _LEVEL * SHUFFLES

    @property
    def rule(self) -> str:
        """What the places of the pair's write head follow, where the pair finds anything."""
        if self.reached <= _LEVEL * SHUFFLES:
            return "priority"
        return "arrival" if self.by_arrival >= _FOLLOWS else "neither"


def sorting_of(arrays: Arrays) -> Sorting:
    """A traced sort, with what chance would give: each place counts by the weight of its main slot."""
    priorities, _, written, answers = sort_steps(arrays)
    pair = finding_pair(arrays)
    slots, weights, n_slots = _main(written), _largest(written), written.shape[2]
    by_priority = line_shares(priorities, slots, n_slots, weights)[pair.writer]
    arrivals = np.linspace(-1, 1, len(slots))
    by_arrival = line_shares(arrivals, slots, n_slots, weights)[pair.writer]
    orders = shuffles(len(slots)).T  # [T, SHUFFLES]
    by_chance = [
        line_shares(priorities, slots[:, head][orders], n_slots, weights[:, head][orders])
        for head in range(written.shape[1])
    ]
    reached = int((np.max(by_chance, axis=0) >= by_priority - 1e-9).sum())
    return Sorting(written.shape[1], answers.shape[1], pair, float(by_priority), reached, float(by_arrival))


def sorting_words(records: Sequence[Record]) -> list[str]:
    """Whether any heads of the run shown find the vectors that are due, and by what rule these were placed."""
    shown = best(records)
    if shown is None:
        return [NONE]
    return [f"Seed {shown.seed}, shown above: {_sorting(sorting_of(shown.artifact()))}"]


def _sorting(found: Sorting) -> str:
    pair, several = found.pair, found.n_writers * found.n_readers > 1
    heads = (
        f"of {found.n_writers} write and {found.n_readers} read heads, write head {pair.writer + 1} and read head "
        f"{pair.reader + 1} fit together best. At a step of the answer the overlap"
        if several
        else "at a step of the answer the overlap of its two heads"
    )
    said = (
        f"{heads} with the vector due is {pair.due:.2g}, with any vector {pair.any:.2g}. With the vectors in random "
        f"order {'the best pair' if several else 'it'} gains as much in {pair.reached} of {SHUFFLES} cases"
    )
    if not found.finds:
        return f"{said}: nothing here shows that it finds a vector by where it was written."
    part = ", in part" if pair.due < _FOUND else ""
    who = "the best write head" if found.n_writers > 1 else "it"
    return (
        f"{said}, so it finds vectors that are due{part}. Of the spread of the places that this head writes to, a line "
        f"over the priority explains {found.by_priority:.0%} (with random priorities {who} reaches that in "
        f"{found.reached} of {SHUFFLES} cases), a line over the order of arrival {found.by_arrival:.0%}: "
        f"{_RULES[found.rule]}."
    )


_RULES = {
    "priority": "its places follow the priority, as the paper describes",
    "arrival": "it writes in the order of arrival and finds the place when answering, which is not the paper's way",
    "neither": "beyond chance, its places follow neither",
}


def sorting_runs(groups: Iterable[Sequence[Record]]) -> list[tuple[Record, Sorting]]:
    """Every run with how it works."""
    return [(record, sorting_of(record.artifact())) for rows in groups for record in rows]


def sorting_table(runs: Sequence[tuple[Record, Sorting]]) -> Html:
    """The pair of heads of each run, what it finds, and by what rule its write head places vectors."""
    grid = Grid(
        plain("Priority sort from the inside: the heads that fit together best, in every run"),
        ["Model and training", "Seed", "Bits at the end", "Write, read head", "Overlap, vector due (any vector)",
         "Random orders as good", "Explained by priority", "Random priorities as good", "Explained by arrival"],
    )  # fmt: skip
    above = None
    for record, found in runs:
        label, pair = setting(record), found.pair
        cells = [
            record.seed,
            f"{final_cost(record):.3g}",
            f"{pair.writer + 1} of {found.n_writers}, {pair.reader + 1} of {found.n_readers}",
            f"{pair.due:.2g} ({pair.any:.2g})",
            f"{pair.reached} of {SHUFFLES}",
            f"{found.by_priority:.0%}",
            f"{found.reached} of {SHUFFLES}",
            f"{found.by_arrival:.0%}",
        ]
        grid.add([None if label == above else plain(label), *map(plain, cells)])
        above = label
    return grid.render()


def sorting_summary(runs: Sequence[tuple[Record, Sorting]]) -> list[str]:
    """In how many runs any heads find what is due, by what rule these vectors were placed, and what such runs cost."""
    if not runs:
        return [NONE]
    finding = [(record, found) for record, found in runs if found.finds]
    others = [(record, found) for record, found in runs if not found.finds]
    lines = [
        f"In {len(finding)} of {len(runs)} runs a pair of heads finds vectors that are due, with a gain in overlap that "
        f"at most {_LEVEL:.0%} of random orders reach."
    ]
    if finding:
        rules = [found.rule for _, found in finding]
        said = ", ".join(
            f"{rules.count(rule)} {words}" for rule, words in _PLACES.items() if rules.count(rule)
        )
        dues = [found.pair.due for _, found in finding]
        lines.append(
            f"Of these, the places of the pair's write head follow: {said}. The overlap with the vector due is "
            f"{min(dues):.2g} to {max(dues):.2g}; 1 would be every vector found exactly."
        )
    costs = [
        f"{what} {_costs(rows)}"
        for what, rows in (("with such a pair", finding), ("without", others))
        if rows
    ]
    lines.append(f"Bits per sequence at the end: {'; '.join(costs)}.")
    return lines


_PLACES = {
    "priority": "the priority, as in the paper",
    "arrival": "the order of arrival",
    "neither": "neither, beyond chance",
}


def _costs(runs: Sequence[tuple[Record, Sorting]]) -> str:
    costs = [final_cost(record) for record, _ in runs]
    return f"{min(costs):.3g} to {max(costs):.3g} ({len(costs)} run{'s' * (len(costs) > 1)})"
