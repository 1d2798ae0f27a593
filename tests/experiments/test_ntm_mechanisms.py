"""Counts of what trained machines do, on made-up traces that do it, in part, or not at all."""

import numpy as np
import pytest
import torch

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.experiments.ntm import mechanisms
from attn.experiments.ntm.workloads import MODELS
from attn.reproduction.records import Record, pack_arrays
from tests.experiments.made_up import outcomes, run_of

N_SLOTS = 16


def one_hot(slots):
    return np.eye(N_SLOTS)[np.asarray(slots) % N_SLOTS][:, None]  # [T, 1, N]


@pytest.fixture
def keep(tmp_path):
    """A function from a trace to a record that keeps it, of a seed that ends at `cost`."""

    def keep(arrays, seed=0, cost=1.0):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        path.write_bytes(pack_arrays({name: np.asarray(array) for name, array in arrays.items()}))
        run = run_of("copy/ntm_lstm", seed, costs=(cost, cost), config={"task": {"order": 3}, "training": {}})
        return Record(tmp_path / f"seed{seed}.json", run.data | {"artifact": {"file": path.name}})

    return keep


# --- copy ----------------------------------------------------------------------------------------------------


def copied(read, write=(15, 14, 13)):
    """Three vectors: start, three inputs, end, three answers."""
    inputs = np.zeros((8, 4))
    inputs[:5, 0] = 1
    return {
        "trace_inputs": inputs,
        "trace_write_weights": one_hot([0, *write, 5, 5, 5, 5]),
        "trace_read_weights": one_hot([0, 1, 2, 3, *read]),
        "trace_add": np.eye(N_SLOTS)[np.arange(8)][:, None],  # step t adds component t
        "trace_reads": np.eye(N_SLOTS)[np.minimum([0, 0, 0, 0, 0, 1, 2, 9], 8)][:, None],
    }


def test_a_walk_is_counted_and_its_direction_told():
    assert mechanisms.copying_counts(copied([4, 15, 14, 13])) == (2, 3, 3, -1, 0)
    assert mechanisms.copying_counts(copied([4, 15, 14, 9])) == (2, 2, 3, -1, 0), (
        "one vector is read elsewhere"
    )
    assert mechanisms.copying_counts(copied([0, 1, 15, 7], write=(1, 15, 0))) == (1, 2, 3, -2, 0)


def test_reading_a_step_ahead_is_reading_too():
    assert mechanisms.copying_counts(copied([15, 14, 13, 9])) == (2, 3, 3, -1, 1)


def test_copying_is_told_of_the_best_seed_and_counted_for_all(keep):
    rows = [keep(copied([4, 15, 14, 9]), seed=0, cost=2), keep(copied([15, 14, 13, 9]), seed=1, cost=1)]
    shown, others = mechanisms.copying_words(rows)
    assert shown == (
        "Seed 1, shown above: while 3 vectors come in, the write head's main slot moves by -1 in 2 of 2 steps between "
        "them; for 3 of 3 vectors the read head's main slot a step before that vector is due is the one written to when "
        "it came in (by chance one in 16). The main slots hold at least 1.000 of the weight at these steps. What is read "
        "then and what was added for that vector have a cosine of at least 0.000; for different vectors the median is "
        "0.00."
    )
    assert others == "The same counts of all 2 seeds. seed 0: 2 and 2; seed 1: 2 and 3."
    assert (
        len(mechanisms.copying_words(rows[:1])) == 1
        and "at the step where" in mechanisms.copying_words(rows[:1])[0]
    )


def test_what_is_read_is_compared_with_what_was_added(keep):
    trace = copied([4, 15, 14, 13])
    trace["trace_reads"] = np.roll(
        trace["trace_add"], 4, axis=0
    )  # answers at steps 5 to 7 read what steps 1 to 3 added
    assert mechanisms.copied_vectors(trace) == (1.0, 1.0, 0.0)
    trace["trace_reads"] = trace["trace_reads"][:, :, ::-1]
    assert mechanisms.copied_vectors(trace)[1] == 0, "another vector"
    trace["trace_write_weights"] = 0.75 * trace["trace_write_weights"] + 0.25 / N_SLOTS
    assert mechanisms.copied_vectors(trace)[0] == pytest.approx(0.75 + 0.25 / N_SLOTS)


# --- repeat copy ---------------------------------------------------------------------------------------------


def repeated(read, ahead=0, copy_to=None):
    """Three vectors come in at slots 2 to 4 and are answered in rounds, while the read head is on the slots `read`."""
    bits = torch.tensor([[[1.0, 0], [0, 1], [1, 1]]])
    episode = RepeatCopyTask(n_bits=2).episodes(bits, len(read) // 3)
    steps = len(episode.inputs[0])
    slots = [9] * steps
    slots[5 - ahead : 5 - ahead + len(read)] = read
    write = one_hot([0, 2, 3, 4, *[8] * (steps - 4)])
    if copy_to is not None:
        write[4] = 0.75 * one_hot([copy_to])[0]
    return {
        "trace_inputs": episode.inputs[0].numpy(),
        "trace_outputs": episode.targets[0].numpy(),
        "trace_read_weights": one_hot(slots),
        "trace_write_weights": write,
    }


STRAIGHT, BY_WAY = [2, 3, 4] * 3, [2, 3, 4, 5, 3, 4, 5, 3, 4]


@pytest.mark.parametrize("ahead", [0, 1])
def test_rounds_that_go_straight_back_are_counted(ahead):
    found = mechanisms.rounds_of(repeated(STRAIGHT, ahead))
    assert (found.count, found.move, found.walked, found.found, found.ahead) == (3, 1, 2, (3, 3, 3), ahead)
    assert (found.straight, found.by_way, found.others, found.rewritten) == (2, 0, (), 0)
    assert (found.wrong, found.weight) == (0, 1)


def test_a_slot_between_the_last_vector_and_the_rest_is_found():
    found = mechanisms.rounds_of(repeated(BY_WAY, copy_to=5))
    assert (found.found, found.straight, found.by_way, found.others) == ((3, 2, 2), 0, 2, (5,))
    assert found.rewritten == 0.75, "the first vector may be there"
    assert mechanisms.rounds_of(repeated(BY_WAY)).rewritten == 0


def test_rounds_of_other_ways_are_neither():
    lost = [2, 3, 4, 5, 6, 7, 2, 4, 3]  # walks on; then jumps about
    found = mechanisms.rounds_of(repeated(lost))
    assert (found.straight, found.by_way, found.found) == (0, 0, (3, 0, 1))
    elsewhere = [2, 3, 4, 7, 8, 9, 2, 3, 4]  # one jump, but not to the vector that is due
    assert mechanisms.rounds_of(repeated(elsewhere)).straight == 0


def test_wrong_bits_of_all_rounds_are_counted():
    trace = repeated(STRAIGHT)
    trace["trace_outputs"] = np.zeros_like(trace["trace_outputs"])
    assert mechanisms.rounds_of(trace).wrong == 3 * 4, "four ones a round; the end marker is not counted"


def test_repeating_is_told_of_the_best_run_and_counted_for_all(keep):
    rows = [keep(repeated(STRAIGHT), seed=0, cost=2), keep(repeated(BY_WAY, 1, copy_to=5), seed=1, cost=1)]
    shown, head, one, two = mechanisms.repeating_words(rows)
    assert shown == (
        "NTM, LSTM controller, seed 1, shown above: while 3 vectors come in, the write head's main slot moves by +1 in 2 of "
        "2 steps between them. The read head's main slot a step before a vector is due is the one written to when it came "
        "in for 3 of 3 vectors of the first round and 4 of 6 of the later ones. Of 2 later rounds 0 have one jump, straight "
        "from the slot of the last vector to that of the first; 2 have one from a slot where no vector came in (5, written "
        "to afterwards with a weight of up to 0.75) to that of the vector then due. Wrong bits in the whole answer: 0."
    )
    assert head.startswith("All 2 runs: ")
    assert one == (
        "NTM, LSTM controller, seed 0: 3 of 3 and 6 of 6 vectors; 2 straight and 0 by way of another slot, of 2; read 1, "
        "written 0."
    )
    assert two.startswith("NTM, LSTM controller, seed 1: 3 of 3 and 4 of 6 vectors; 0 straight and 2 by way")


# --- associative recall --------------------------------------------------------------------------------------


def recalled(read_slot, queried=1, write=lambda steps: np.minimum(steps // 4, 9), answer=None):
    """Four items, item i written to slot i; the second is shown again. `answer` are the slots read while answering."""
    bits = torch.randint(0, 2, (1, 4, 3, 6), generator=torch.Generator().manual_seed(1))
    inputs = AssociativeRecallTask().episodes(bits, torch.tensor([queried])).inputs[0].numpy()
    steps = len(inputs)
    read = [read_slot] * steps
    read[steps - 3 :] = answer or read[steps - 3 :]
    return {
        "trace_inputs": inputs,
        "trace_write_weights": one_hot(write(np.arange(steps))),
        "trace_read_weights": one_hot(read),
        "trace_add": np.ones((steps, 1, 2)),
        "trace_reads": np.ones((steps, 1, 2)),
    }


@pytest.mark.parametrize(
    ("slot", "whose"),
    [
        (2, "the item to be answered"),
        (1, "the item shown again"),
        (3, "the item after the answer"),
        (0, "another item"),
    ],
)
def test_the_slot_read_first_belongs_to_an_item(keep, slot, whose):
    assert mechanisms.recalled_item(recalled(slot)) == (slot, 1, 4, slot, 1.0)
    (said,) = mechanisms.recalling_words([keep(recalled(slot))])
    assert f"main slot is {slot} (weight 1.00)" in said
    assert f"while item {slot + 1} of 4 came in, {whose}. " in said


def walk(steps):
    return 14 - steps


def test_vectors_of_the_answer_are_found_where_they_were_written(keep):
    third = [14 - step for step in (9, 10, 11)]  # its vectors come in at these steps
    trace = recalled(0, write=walk, answer=third)
    assert mechanisms.item_walk(trace) == (-1, 15, 15)
    assert mechanisms.recalled_vectors(trace) == (3, 0.0, 3, 1.0, False)
    (said,) = mechanisms.recalling_words([keep(trace)])
    assert (
        "moves by -1 in 15 of 15 steps between them, so that each marker and each vector has a slot of its own"
        in said
    )
    assert (
        "For 3 of 3 vectors of the answer the main slot read when it is due, of weight 1.00 or more" in said
    )
    assert said.endswith("for the vectors of another item it would be so for 0 of 3 on average.")


def test_one_slot_for_every_item_is_told_from_finding_the_right_one(keep):
    same = recalled(5, write=lambda steps: np.full_like(steps, 5))
    assert mechanisms.recalled_vectors(same) == (3, 3.0, 3, 1.0, False), "no better than for another item"
    assert (
        "each marker and each vector has a slot of its own" not in mechanisms.recalling_words([keep(same)])[0]
    )
    wrong = recalled(0, write=walk, answer=[14 - step for step in (13, 14, 15)])  # the fourth item's
    same_item, others, *_ = mechanisms.recalled_vectors(wrong)
    assert (same_item, others) == (0, 1.0)


def test_reading_a_step_ahead_counts_in_recall_too():
    trace = recalled(0, write=walk)
    due = len(trace["trace_inputs"]) - 3
    trace["trace_read_weights"][due - 1 : due + 2] = one_hot([14 - step for step in (9, 10, 11)])
    assert mechanisms.recalled_vectors(trace) == (3, 0.0, 3, 1.0, True)


# --- dynamic n-grams -----------------------------------------------------------------------------------------


def counted(slot_of):
    """A sequence of 60 bits whose read head is where `slot_of` (context, step) says; contexts have two bits."""
    bits = np.random.default_rng(0).integers(0, 2, 60)
    inputs = np.concatenate([[0], bits])[:, None]
    slots = [0, 0] + [slot_of(2 * bits[t - 2] + bits[t - 1], t) for t in range(2, 61)]
    return {
        "trace_inputs": inputs,
        "trace_read_weights": one_hot(slots),
        "trace_write_weights": one_hot([0] * 61),
    }


def test_a_slot_for_each_context_is_found():
    assert mechanisms.same_slot(counted(lambda context, t: context + 3), 3) == (1.0, 0.0, 0.0)
    assert mechanisms.same_slot(counted(lambda context, t: 5), 3) == (1.0, 1.0, 1.0), "always the same slot"
    same, near, other = mechanisms.same_slot(counted(lambda context, t: t), 3)
    assert max(same, near, other) < 0.2, "a walk that does not look at contexts"
    assert mechanisms.same_slot(counted(lambda context, t: context % 2), 3) == (1.0, 1.0, 0.0), (
        "by the last bit alone"
    )


def test_counting_words_say_how_far_weights_are_spread(keep):
    trace = counted(lambda context, t: context)
    trace["trace_write_weights"] = np.full_like(trace["trace_write_weights"], 1 / N_SLOTS)
    shown, head, one, two, kept = mechanisms.counting_words([keep(trace), keep(trace, seed=1)])
    assert "largest write weight lies between 0.062 and 0.062 (median 0.062)" in shown
    assert "read weight between 1 and 1 (median 1)" in shown and "0.062 is all 16 slots alike" in shown
    assert "It writes to all slots nearly alike" in shown and "walks" not in shown
    assert "in 100% of cases" in shown and shown.endswith("in 0%, in others in 0%.")
    assert head.startswith("All 2 seeds: ")
    assert one.startswith("Seed 0: write 0.062, read 1; 100%, 0% and 0%. It writes to all slots nearly alike")
    assert two.startswith("Seed 1: ") and kept.endswith("2 of 2 seeds come within 10% of that.")


def test_counting_words_tell_a_walk_and_a_read_head_that_is_nowhere(keep):
    walks = counted(lambda context, t: t)
    said, kept = mechanisms.counting_words([keep(walks)])
    assert "The read head walks: its main slot moves by +1 in 58 of 60 steps." in said
    assert "nearly alike" not in said and kept.endswith("0 of 1 seed comes within 10% of that.")
    flat = walks | {"trace_read_weights": np.full_like(walks["trace_read_weights"], 1 / N_SLOTS)}
    assert "It reads nearly the mean of all slots." in mechanisms.counting_words([keep(flat)])[0]


# --- priority sort -------------------------------------------------------------------------------------------


PRIORITIES = np.random.default_rng(0).uniform(-1, 1, 20)
RANKED = np.argsort(-PRIORITIES)


def sorted_by(places, read=None):
    """20 vectors written to these places, and the first 16 read where they were written, or in slots `read`."""
    inputs = np.zeros((36, 9))
    inputs[:20, :8] = 1
    inputs[:20, 8] = PRIORITIES
    places = np.asarray(places)
    answers = places[RANKED][:16] if read is None else read
    return {
        "trace_inputs": inputs,
        "trace_write_weights": one_hot([*places, *[0] * 16]),
        "trace_read_weights": one_hot([*[0] * 20, *answers]),
    }


def with_heads(trace, *others):
    """The trace with further heads before its own, one for each (slots written to, slots read from)."""
    write = [one_hot([*slots, *[0] * 16]) for slots, _ in others] + [trace["trace_write_weights"]]
    read = [one_hot([*[0] * 20, *slots]) for _, slots in others] + [trace["trace_read_weights"]]
    return trace | {
        "trace_write_weights": np.concatenate(write, axis=1),
        "trace_read_weights": np.concatenate(read, axis=1),
    }


BY_PRIORITY = np.round(7 - 5 * PRIORITIES).astype(int)


def test_places_that_follow_the_priority_are_told(keep):
    trace = sorted_by(BY_PRIORITY)
    found = mechanisms.sorting_of(trace)
    assert found.pair.due == 1 and found.pair.any < 0.3 and found.pair.reached == found.reached == 0
    assert found.by_priority > 0.9 and found.by_arrival < 0.5 and found.rule == "priority"
    (said,) = mechanisms.sorting_words([keep(trace)])
    assert "overlap of its two heads with the vector due is 1, with any vector 0." in said
    assert "it gains as much in 0 of 999 cases, so it finds vectors that are due. Of the spread" in said
    assert said.endswith("its places follow the priority, as the paper describes.")


def test_finding_what_was_written_in_order_of_arrival_is_no_sorting_by_place(keep):
    trace = sorted_by(np.arange(20) % N_SLOTS)
    found = mechanisms.sorting_of(trace)
    assert found.finds and found.by_arrival > 0.9 and found.reached > 10 and found.rule == "arrival"
    (said,) = mechanisms.sorting_words([keep(trace)])
    assert said.endswith("finds the place when answering, which is not the paper's way.")


def test_places_may_follow_neither(keep):
    trace = sorted_by(np.random.default_rng(1).permutation(20) % N_SLOTS)
    assert mechanisms.sorting_of(trace).rule == "neither"
    assert mechanisms.sorting_words([keep(trace)])[0].endswith("beyond chance, its places follow neither.")


def test_a_read_head_that_walks_where_nothing_was_written_finds_nothing(keep):
    walks = [(8 + step) % N_SLOTS for step in range(16)]
    trace = with_heads(sorted_by([5] * 20, read=[3] * 16), (BY_PRIORITY % 2, [9] * 16), ([1] * 20, walks))
    found = mechanisms.sorting_of(trace)
    assert not found.finds, "writing by priority in one head and walking in another do not make a sort"
    (said,) = mechanisms.sorting_words([keep(trace)])
    assert said.startswith("Seed 0, shown above: of 3 write and 3 read heads, write head ")
    assert said.endswith("nothing here shows that it finds a vector by where it was written.")


def test_flat_weightings_do_not_count_as_places():
    spread = 0.01 * one_hot(BY_PRIORITY) + 0.99 / N_SLOTS  # their main slots follow the priority
    trace = sorted_by(np.random.default_rng(1).permutation(20))
    write = np.concatenate(
        [np.concatenate([spread, one_hot([0] * 16)]), trace["trace_write_weights"]], axis=1
    )
    found = mechanisms.sorting_of(trace | {"trace_write_weights": write})
    assert found.pair.writer == 1 and found.by_priority < 0.6, (
        "the head that is read, not the one of best fit"
    )
    focused = np.where(np.arange(20) < 6, 1.0, 0.02)  # six vectors by priority, the rest anywhere and faintly
    slots = np.where(np.arange(20) < 6, BY_PRIORITY, np.random.default_rng(2).integers(0, N_SLOTS, 20))
    shares = mechanisms.line_shares(
        PRIORITIES, np.stack([slots, slots], 1), N_SLOTS, np.stack([focused, np.ones(20)], 1)
    )
    assert shares[0] > 0.9 > 0.6 > shares[1]


def test_chance_is_the_best_of_as_many_heads():
    one = sorted_by(np.random.default_rng(3).permutation(20))
    noise = [(np.random.default_rng(seed).integers(0, N_SLOTS, 20), range(16)) for seed in range(4, 10)]
    alone = mechanisms.sorting_of(one)
    several = mechanisms.sorting_of(with_heads(one, *noise))
    assert several.pair.writer == several.n_writers - 1 == 6 and several.by_priority == pytest.approx(
        alone.by_priority
    )
    assert several.reached > alone.reached


def test_the_table_has_every_run_and_the_summary_counts_them(keep):
    def kept(trace, seed, cost, heads=1):
        record = keep(trace, seed, cost)
        config = {"model": {"n_heads": heads}, "training": {"batch_size": 1}}
        data = record.data | {"experiment": "priority_sort/ntm_ff", "config": config}
        return Record(record.path, data)

    rows = [
        kept(sorted_by(BY_PRIORITY), 0, 20.0),
        kept(sorted_by(np.arange(20) % N_SLOTS), 1, 40.0),
        kept(sorted_by([5] * 20), 2, 128.0),
    ]
    runs = mechanisms.sorting_runs([rows, []])
    text = repr(mechanisms.sorting_table(runs))
    assert text.count("NTM, feed-forward controller") == 1 and "1 of 1, 1 of 1" in text
    found, rules, costs = mechanisms.sorting_summary(runs)
    assert found.startswith("In 2 of 3 runs a pair of heads finds vectors that are due")
    assert ": 1 the priority, as in the paper, 1 the order of arrival. " in rules
    assert (
        costs
        == "Bits per sequence at the end: with such a pair 20 to 40 (2 runs); without 128 to 128 (1 run)."
    )
    assert mechanisms.sorting_summary([]) == ["No records yet."]
    assert len(mechanisms.sorting_summary(runs[2:])) == 2


# --- in general ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["copying", "repeating", "recalling", "counting", "sorting"])
def test_without_records_it_says_so(words):
    assert getattr(mechanisms, f"{words}_words")([]) == ["No records yet."]


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ("copying", "copy"),
        ("repeating", "repeat_copy"),
        ("recalling", "associative"),
        ("counting", "ngrams"),
        ("sorting", "priority_sort"),
    ],
)
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "lstm"])
def test_artifacts_of_runs_hold_what_is_counted(keep, words, task, kind):
    said, *more = getattr(mechanisms, f"{words}_words")([keep(outcomes(task)[kind].artifact)])
    assert "eed 0, shown above: " in said and said.endswith(".")
    assert len(more) == (words == "counting") and "nan" not in said
