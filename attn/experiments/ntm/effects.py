"""What the deviations of the Neural Turing Machine's chapter change, where it is measured."""

from __future__ import annotations

from attn.evaluation.curves import solved_at
from attn.experiments.ntm.tables import SOLVED, bits_after
from attn.reproduction.experiment import Effect
from attn.reproduction.records import Record


def _sequences_to_solve(record: Record) -> float | None:
    return solved_at(record.history, SOLVED)


def _to_solve(
    deviation: str, task: str, variant: str, otherwise: str, *, ours: str | None = None, how: str = ""
) -> Effect:
    """Sequences until a task is first solved.

    Args:
        deviation: its id in the facts.
        task: its id, which is also that of our runs unless `ours` gives another.
        variant: id of the runs with the deviation undone.
        otherwise: names these.
        ours: id of runs that differ from `variant` in the deviation alone, where those of the task differ in more.
        how: what both sides have in common then, as ", at the paper's rate".
    """
    what = f"sequences of {task.replace('_', ' ')} until first below {SOLVED:g} bits"
    return Effect(
        deviation=deviation,
        measure=f"{what}, NTM with LSTM controller{how}",
        unit="sequences",
        ours=f"{ours or task}/ntm_lstm",
        undone=f"{variant}/ntm_lstm",
        otherwise=otherwise,
        value=_sequences_to_solve,
    )


def _after_100(deviation: str, variant: str, otherwise: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure="cost of copy after 100,000 sequences, NTM with LSTM controller",
        unit="bits per sequence",
        ours="copy/ntm_lstm",
        undone=f"{variant}/ntm_lstm",
        otherwise=otherwise,
        value=lambda record: bits_after({"k": 100}, record),
    )


_ONE_AT_THE_RATE = "with one sequence an update and the paper's rate"
EFFECTS = (
    _to_solve("batch", "copy", "copy_batch1", "with one sequence an update", ours="copy_printed_rate",
              how=", both at the paper's rate"),
    _to_solve("batch", "copy", "copy_batch1", _ONE_AT_THE_RATE),
    _to_solve("batch", "associative", "associative_batch1", _ONE_AT_THE_RATE),
    _to_solve("one_length", "copy", "copy_mixed_lengths", "with a length for each sequence"),
    _to_solve("learning_rate", "copy", "copy_printed_rate", "at the paper's rate and our batch size"),
    _to_solve("head_initialisation", "copy", "copy_plain_heads", "with Xavier's bounds and zero biases"),
    _to_solve("initial_state", "copy", "copy_learned_start", "with learned memory, reads and weightings"),
    _after_100("rmsprop_form", "copy_torch_rmsprop", "with torch's form at the same learning rate"),
    _after_100("learning_rate", "copy_printed_rate", "at the paper's rate and our batch size"),
    _after_100("shift_range", "copy_no_shift", "without shifts"),
    _after_100("shift_range", "copy_wide_shift", "with shifts by up to two slots"),
)  # fmt: skip
