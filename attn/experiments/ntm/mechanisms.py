"""How far trained Neural Turing Machines work as the paper says they do, counted on the episode each run keeps traced.

Weightings are compared by their main slot, the one of largest weight. What `inside` draws is told of the run drawn
there first, then of all seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from attn.experiments.ntm.inside import Arrays, answer_step, best, circle_line, in_order, recall_steps
from attn.experiments.ntm.results import NONE, seeds
from attn.reproduction.records import Record


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


# --- copy ----------------------------------------------------------------------------------------------------


def copying_words(records: Sequence[Record]) -> list[str]:
    """Whether the write head walks, and whether the read head follows the same slots."""
    return _of_all(records, _copying, lambda arrays: "{} and {}".format(*copying_counts(arrays)))


def _copying(arrays: Arrays) -> str:
    steps, same, count, shift, ahead = copying_counts(arrays)
    when = "a step before that vector is due" if ahead else "at the step where that vector is due"
    return (
        f"while {count} vectors come in, the write head's main slot moves by {shift:+d} in {steps} of {count - 1} steps "
        f"between them; for {same} of {count} vectors the read head's main slot {when} is the one written to when it "
        "came in."
    )


def copying_counts(arrays: Arrays) -> tuple[int, int, int, int, int]:
    """Steps that share the commonest move, vectors read where they were written, vectors, that move, steps read ahead.

    A model may read at the step of the answer, or a step ahead, since its controller sees what was read before.
    """
    answer = answer_step(arrays)
    count = len(arrays["trace_inputs"]) - answer
    write = _main(arrays["trace_write_weights"][answer - 1 - count : answer - 1, 0])
    read = _main(arrays["trace_read_weights"][:, 0])
    n_slots = arrays["trace_write_weights"].shape[2]
    moves = (np.diff(write) + n_slots // 2) % n_slots - n_slots // 2
    kinds, counts = np.unique(moves, return_counts=True)
    found = [int((read[answer - ahead : answer - ahead + count] == write).sum()) for ahead in (0, 1)]
    ahead = int(np.argmax(found))
    return int(counts.max()), found[ahead], count, int(kinds[counts.argmax()]), ahead


# --- associative recall --------------------------------------------------------------------------------------


def recalling_words(records: Sequence[Record]) -> list[str]:
    """What the read head finds at the first step of the answer: when that slot was written to most."""
    return _of_all(records, _recalling, lambda arrays: _whose(*recalled_item(arrays)[:3]))


def _recalling(arrays: Arrays) -> str:
    found, shown, n_items, slot, weight = recalled_item(arrays)
    return (
        f"at the first step of the answer the read head's main slot is {slot} (weight {weight:.2f}); what is written "
        f"there was written mostly while item {found + 1} of {n_items} came in, {_whose(found, shown, n_items)}."
    )


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
    reader = int(np.linalg.norm(arrays["trace_reads"].astype(float), axis=-1).mean(axis=0).argmax())
    read = arrays["trace_read_weights"][answer, reader].astype(float)
    slot = int(read.argmax())
    written = arrays["trace_write_weights"][:query, :, slot].astype(float).sum(axis=1)
    by_item = [written[i * (length + 1) : (i + 1) * (length + 1)].sum() for i in range(n_items)]
    return int(np.argmax(by_item)), (start - 1) // (length + 1), n_items, slot, float(read[slot])


# --- dynamic n-grams -----------------------------------------------------------------------------------------


def counting_words(records: Sequence[Record]) -> list[str]:
    """Whether slots belong to contexts, and whether what is added depends on the bit that followed."""
    return _of_all(
        records,
        lambda arrays: _counting(arrays, _order(records)),
        lambda arrays: _slots(arrays, _order(records)),
    )


def _order(records: Sequence[Record]) -> int:
    return records[0].data["config"]["task"]["order"]


def _slots(arrays: Arrays, order: int) -> str:
    again, otherwise = same_slot(arrays, order)
    return f"{again:.0%} against {otherwise:.0%}"


def _counting(arrays: Arrays, order: int) -> str:
    again, otherwise = same_slot(arrays, order)
    largest = [
        np.median(arrays[f"trace_{name}_weights"][:, 0].astype(float).max(axis=1))
        for name in ("write", "read")
    ]
    even = 1 / arrays["trace_read_weights"].shape[2]
    return (
        f"the largest weight of a step is {largest[0]:.2g} when writing and {largest[1]:.2g} when reading (medians; 1 "
        f"is one slot alone, {even:.2g} all slots alike). When a context comes back, "
        f"the read head's main slot is that of the time before in {again:.0%} of cases; at two steps of different "
        f"contexts it is the same in {otherwise:.0%}."
    )


def same_slot(arrays: Arrays, order: int) -> tuple[float, float]:
    """Shares of cases in which the read head's main slot is the same: a context and its return, two different ones."""
    bits = arrays["trace_inputs"][1:, 0] > 0.5
    windows = np.lib.stride_tricks.sliding_window_view(bits, order - 1)
    contexts = windows @ (1 << np.arange(order - 1))
    slots = _main(arrays["trace_read_weights"][order - 1 :, 0])
    by_context = np.argsort(contexts, kind="stable")
    earlier, later = by_context[:-1], by_context[1:]
    returns = contexts[earlier] == contexts[later]
    differ = contexts[:, None] != contexts
    return (
        _share((slots[earlier] == slots[later])[returns]),
        _share((slots[:, None] == slots)[differ]),
    )


def _share(cases: np.ndarray) -> float:
    return float(cases.mean()) if cases.size else float("nan")


# --- priority sort -------------------------------------------------------------------------------------------


def sorting_words(records: Sequence[Record]) -> list[str]:
    """How much of where vectors are written a line over their priority explains, and whether the read head walks."""
    return _of_all(records, _sorting, lambda arrays: "{:.0%} and {}".format(*sorting_counts(arrays)))


def _sorting(arrays: Arrays) -> str:
    explained, steps, count = sorting_counts(arrays)
    return (
        f"a line over the priority explains {explained:.0%} of where the write head of best fit writes; its counterpart "
        f"that reads moves by the same number of slots in {steps} of {count} steps of the answer."
    )


def sorting_counts(arrays: Arrays) -> tuple[float, int, int]:
    """Share of variance of places that a line explains, steps of the answer with the commonest move, and all of them."""
    shown = answer_step(arrays)
    priorities = arrays["trace_inputs"][:shown, -1].astype(float)
    write, _ = in_order(arrays["trace_write_weights"][:shown], priorities)
    answers = arrays["trace_read_weights"][shown:]
    read, _ = in_order(answers, np.arange(len(answers)) / len(answers))
    n_slots = write.shape[1]
    moves = np.diff(_main(read)) % n_slots
    return (
        circle_line(priorities, _main(write), n_slots)[2],
        int(np.unique(moves, return_counts=True)[1].max()),
        len(moves),
    )
