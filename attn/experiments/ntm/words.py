"""What the chapter says of its tasks, of sizes and of training, made from tasks, models, optimisers and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import CopyTask, EpisodicTask
from attn.data.ngrams import NGramTask
from attn.data.priority_sort import PrioritySortTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.experiments.ntm.runs import EXPERIMENTS, PAPER, TASKS, VARIANTS
from attn.experiments.ntm.tables import bits_after
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.experiment import BOOK_PROFILE
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record
from attn.training.optimizers import GravesRMSprop

# --- tasks -------------------------------------------------------------------------------------------------------


def task_words(task: str, profile: str = BOOK_PROFILE) -> list[str]:
    """Sizes of a task at a profile, and what guessing costs."""
    drawn = _drawn(task, profile)
    return [f"{_SIZES[type(drawn)](drawn)} Guessing costs {_CHANCE[type(drawn)](drawn)}."]


def _drawn(task: str, profile: str) -> EpisodicTask:
    made = next(one for one in TASKS if one.id == task)
    return made.episodes(**load_papers()[PAPER].budgets[task][profile]["task"])


_SIZES: Mapping[type, Callable[..., str]] = {
    CopyTask: lambda t: f"{t.min_length} to {t.max_length} vectors of {t.n_bits} bits.",
    RepeatCopyTask: lambda t: (
        f"{t.min_length} to {t.max_length} vectors of {t.n_bits} bits, {t.min_repeats} to {t.max_repeats} times."
    ),
    AssociativeRecallTask: lambda t: (
        f"{t.min_items} to {t.max_items} items, each of {t.item_length} vectors of {t.n_bits} bits."
    ),
    NGramTask: lambda t: (
        f"Sequences of {t.length} bits, {2 ** (t.order - 1)} contexts of {t.order - 1} bits each."
    ),
    PrioritySortTask: lambda t: (
        f"{t.n_shown} vectors of {t.n_bits} bits, of which the {t.n_answered} of highest priority are answered."
    ),
}
_CHANCE: Mapping[type, Callable[..., str]] = {
    CopyTask: lambda t: f"{t.n_bits} bits a vector, and one more for the marker's output",
    RepeatCopyTask: lambda t: f"{t.n_bits} bits a vector, and one more a step for the end marker",
    AssociativeRecallTask: lambda t: f"{t.item_length * t.n_bits} bits",
    NGramTask: lambda t: f"{t.length} bits",
    PrioritySortTask: lambda t: f"{t.n_answered * t.n_bits} bits",
}


_SIZE_IN_THE_TEXT = 8  # bits of a vector of repeat copy, by the paper's text (Sec. 4.2)


def width_words() -> list[str]:
    """What a mean answer of repeat copy costs by chance with vectors as wide as ours and as the text's, and the plot."""
    task = _drawn("repeat_copy", "paper")
    vectors = (task.min_length + task.max_length) * (task.min_repeats + task.max_repeats) / 4
    at_6, at_8 = (
        f"{vectors * bits:g} bits with {bits} a vector" for bits in (task.n_bits, _SIZE_IN_THE_TEXT)
    )
    (start,) = (row for row in load_papers()[PAPER].table("fig7_repeat_copy_curves").rows if row["k"] == 0)
    readings = sorted(start[kind] for kind in MODELS)
    return [
        f"An answer has {vectors:g} vectors on average. By chance they cost {at_6}, and {at_8}, as the paper's text has "
        f"it; its curves begin between {readings[0]:g} and {readings[-1]:g}, as read off the plot. Costs here have the "
        f"output of the end marker, too: {(vectors + 1) * task.n_outputs:g} bits by chance."
    ]


def length_test_words(profile: str = BOOK_PROFILE) -> list[str]:
    """At which lengths copy is trained and tested, and how many slots there are."""
    (experiment,) = (one for one in EXPERIMENTS if one.id == "copy/ntm_lstm")
    config = experiment.configs[profile]
    tested = ", ".join(str(length) for (length,) in config.test_sizes)
    return [
        f"Trained on {config.task.min_length} to {config.task.max_length} vectors, tested at {tested}; the memory has "
        f"{config.model.n_slots} slots. The traces are of length {config.trace_size[0]}."
    ]


def memory_words() -> list[str]:
    """How many values a machine holds while it runs, beside the LSTM's state, at the sizes of copy."""
    configs = {e.id: e.configs[BOOK_PROFILE].model for e in EXPERIMENTS if e.task == "copy"}
    machine, lstm = configs["copy/ntm_lstm"], configs["copy/lstm"]
    slots, width, heads = machine.n_slots, machine.slot_dim, machine.n_heads
    return [
        f"Values held from one step to the next, for copy: {slots * width:,} in the memory ({slots} slots of {width}), "
        f"{2 * heads * slots:,} in the weightings of its heads and {heads * width:,} in what they read, beside "
        f"{2 * machine.n_layers * machine.size:,} in the state of its LSTM controller; "
        f"{2 * lstm.n_layers * lstm.size:,} in the state of the LSTM alone ({lstm.n_layers} layers of {lstm.size} "
        "units, two values each). A write changes only the slots that it weights; every step changes all of a state."
    ]


# --- training ----------------------------------------------------------------------------------------------------


def single_words() -> list[str]:
    """Which tasks have runs with one sequence an update beside those with several, and which have none."""
    paper = load_papers()[PAPER]
    single = {
        variant.of for variant in VARIANTS if paper.budgets[variant.id][BOOK_PROFILE]["batch_size"] == 1
    }
    there, none = (
        [task.label.lower() for task in TASKS if (task.id in single) == wanted] for wanted in (True, False)
    )
    return [
        f"With one sequence an update there are also runs of {_and(there)}; of {_and(none)} there are none."
    ]


def _and(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def longest_words(records: Sequence[Record]) -> list[str]:
    """How many updates the longest run has: training that goes on for longer is not covered by any record."""
    if not records:
        return ["No records yet."]
    longest = max(record.history[-1]["step"] for record in records)
    return [
        f"The longest recorded run of this chapter has {longest:,} updates; of longer training nothing is known."
    ]


_THOUSANDS = 100  # of sequences, after which both forms are compared
_COMPONENTS = (1e-2, 1e-3, 1e-4)  # sizes of a gradient's component


def rmsprop_factor(size: float) -> float:
    """How much larger a step of torch's RMSprop is than one of Graves's form, for a gradient of +size or -size by turns.

    Both divide by what is known of the gradient's size: torch by sqrt(n) + eps, Graves by sqrt(n - m^2 + eps), where n
    and m, averages of its square and of itself, come to size^2 and 0.
    """
    eps = {form: form([torch.zeros(1)]).defaults["eps"] for form in (GravesRMSprop, torch.optim.RMSprop)}
    return (size**2 + eps[GravesRMSprop]) ** 0.5 / (size + eps[torch.optim.RMSprop])


def rmsprop_words(ours: Sequence[Record], theirs: Sequence[Record]) -> list[str]:
    """How much larger torch's steps are, and what copy costs with either form.

    Args:
        ours: runs of copy with Graves's form.
        theirs: the same with torch's, at the same learning rate.
    """
    factors = ", ".join(f"{rmsprop_factor(size):.3g} times at {size:g}" for size in _COMPONENTS)
    lines = [
        "A step of torch's RMSprop is so much larger than one of Graves's form, for a component of the gradient that "
        f"changes its sign by turns, by its size: {factors}."
    ]
    ours, theirs = ([bits_after({"k": _THOUSANDS}, record) for record in rows] for rows in (ours, theirs))
    if ours and theirs:
        lower = "lower" if median(theirs) < median(ours) else "no lower"
        lines.append(
            f"Copy after {1000 * _THOUSANDS:,} sequences, NTM with LSTM controller, medians over seeds: Graves's form "
            f"{median(ours):.3g} bits ({len(ours)}), torch's {median(theirs):.3g} ({len(theirs)}), at the same learning "
            f"rate: here torch's form ended {lower}."
        )
    return lines
