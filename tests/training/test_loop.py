import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attn.training import BatchLoss, CheckpointError, NonFiniteError, Progress, TrainingConfig, train
from attn.training.checkpoint import load_checkpoint
from attn.training.config import OPTIMIZERS
from tests.training.toy import CarryingWorkload, ToyWorkload, config, facts

ROOT = Path(__file__).parents[2]


def run(workload=None, settings=None, **kwargs):
    """Train and return what does not depend on the clock."""
    workload = workload or ToyWorkload(dropout=0.3)
    return facts(train(workload, settings or config(), **({"seed": 5} | kwargs)), workload.model)


def test_training_learns_and_tells_how_it_went():
    workload = ToyWorkload()
    result = train(workload, config(max_steps=150, eval_every=60), seed=5)
    assert (result.step, result.seen, result.interrupted) == (150, 150 * 12, False)
    assert [entry["step"] for entry in result.history] == [0, 60, 120, 150]
    assert [entry["seen"] for entry in result.history] == [0, 720, 1440, 1800]
    first, last = result.history[0], result.history[-1]
    assert (first["train_loss"], first["lr"], first["grad_norm"]) == (None, None, None)
    assert last["lr"] == 0.02
    assert 0 < last["mse"] < 0.5 * first["mse"]
    assert last["train_loss"] < result.history[1]["train_loss"]
    seconds = [entry["seconds"] for entry in result.history]
    assert 0 <= seconds[0] and seconds == sorted(seconds) and seconds[-1] <= result.seconds
    assert result.units_per_second >= result.seen / result.seconds
    assert result.peak_memory_bytes > 10**7


def test_the_update_is_the_gradient_of_the_weighted_mean():
    """One plain SGD update by hand; its loss is the first recorded one."""
    workload, by_hand = ToyWorkload(), ToyWorkload()
    result = train(workload, config(optimizer="sgd", lr=0.5, max_steps=1), seed=5)
    loss = by_hand.loss(by_hand.model, by_hand.batch(1, 0, 1))
    mean = loss.total / loss.weight
    grads = torch.autograd.grad(mean, list(by_hand.model.parameters()))
    expected = [weight - 0.5 * grad for weight, grad in zip(by_hand.model.parameters(), grads, strict=True)]
    torch.testing.assert_close(list(workload.model.parameters()), expected, rtol=1e-12, atol=1e-14)
    assert result.first_losses == [pytest.approx(mean.item(), rel=1e-14)]
    assert result.history[-1]["train_loss"] == pytest.approx(mean.item(), rel=1e-14)
    norm = math.sqrt(sum(grad.square().sum().item() for grad in grads))
    assert result.history[-1]["grad_norm"] == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_accumulation_over_parts_equals_one_batch(parts):
    whole, split = ToyWorkload(), ToyWorkload()
    settings = config(grad_clip_norm=0.5)
    one = train(whole, settings, seed=5)
    many = train(split, replace(settings, grad_accum_steps=parts), seed=5)
    assert many.first_losses == pytest.approx(one.first_losses, rel=1e-12)
    assert many.seen == one.seen
    for found, expected in zip(split.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", [ToyWorkload, CarryingWorkload])
def test_a_stopped_run_continues_exactly(tmp_path, optimizer, kind):
    settings = config(optimizer=optimizer, grad_accum_steps=2, schedule="cosine", warmup_steps=3)
    straight = run(kind(dropout=0.3), settings)
    for stop in (1, 4, 5, None):  # also at an evaluation and just after one
        result = run(kind(dropout=0.3), settings, checkpoint_path=tmp_path / "c", stop_after=stop)
        assert result[0] == (stop or 12)
    assert result == straight


def test_losses_are_recorded_through_a_stop(tmp_path):
    for stop in (2, None):
        result = train(ToyWorkload(), config(), seed=5, checkpoint_path=tmp_path / "c", stop_after=stop)
    assert len(result.first_losses) == 3
    replay = train(ToyWorkload(), config(), seed=5, stop_after=3, evaluate=False)
    assert replay.first_losses == result.first_losses
    assert (replay.history, replay.interrupted) == ([], True)


def test_a_killed_process_continues_exactly(tmp_path):
    """SIGKILL, twice, at moments that nothing chooses; checkpoints after every update."""
    path = tmp_path / "c"
    settings = config(max_steps=400, checkpoint_every=0.0)
    command = [sys.executable, "-m", "tests.training.toy", "killed", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    reached = 0
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            while process.poll() is None and (not path.exists() or step_of(path) < reached + 5):
                time.sleep(0.02)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL  # it had not finished, nor failed
        assert step_of(path) > reached
        reached = step_of(path)
    resumed = run(settings=settings, checkpoint_path=path)
    assert resumed == run(settings=settings)
    assert os.listdir(tmp_path) == ["c"]


def step_of(path):
    return load_checkpoint(path)["done"]["step"]


def test_a_finished_run_is_not_repeated(tmp_path):
    first = train(ToyWorkload(), config(), seed=5, checkpoint_path=tmp_path / "c")

    class Idle(ToyWorkload):
        def batch(self, step, part, n_parts):
            raise AssertionError("nothing is left to train")

    again = train(Idle(), config(), seed=5, checkpoint_path=tmp_path / "c")
    assert (again.history, again.first_losses, again.seen) == (first.history, first.first_losses, first.seen)
    assert again.interrupted is False


def test_a_time_limit_stops_and_each_call_moves_on(tmp_path):
    limits = {"checkpoint_path": tmp_path / "c", "time_limit_s": 1e-9}
    for calls in range(1, 13):
        result = train(ToyWorkload(dropout=0.3), config(), seed=5, **limits)
        assert (result.step, result.interrupted) == (calls, calls < 12)
    assert run(checkpoint_path=tmp_path / "c") == run()


class InterruptedWorkload(ToyWorkload):
    """Gets Ctrl-C in the middle of update 7."""

    def loss(self, model, batch):
        self.losses = getattr(self, "losses", 0) + 1
        if model.training and self.losses == 9:  # with two evaluations, at steps 0 and 4
            signal.raise_signal(signal.SIGINT)
        return super().loss(model, batch)


def test_ctrl_c_finishes_the_update_and_saves_it(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(InterruptedWorkload(dropout=0.3), config(), seed=5, checkpoint_path=tmp_path / "c")
    assert signal.getsignal(signal.SIGINT) is handler
    assert step_of(tmp_path / "c") == 7
    assert run(checkpoint_path=tmp_path / "c") == run()


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    class Impatient(ToyWorkload):
        def batch(self, step, part, n_parts):
            if step == 3:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return super().batch(step, part, n_parts)

    with pytest.raises(KeyboardInterrupt):
        train(Impatient(), config(), seed=5, checkpoint_path=tmp_path / "c")
    assert not (tmp_path / "c").exists()


class BadWorkload(ToyWorkload):
    """Has a bad loss or, with a good loss, a bad gradient at update 7."""

    def __init__(self, bad):
        super().__init__()
        self.bad, self.now = bad, 0

    def batch(self, step, part, n_parts):
        self.now = step
        return super().batch(step, part, n_parts)

    def loss(self, model, batch):
        loss = super().loss(model, batch)
        if self.now != 7:
            return loss
        if self.bad == "gradient":  # the slope of a square root at 0
            return replace(loss, total=loss.total + (loss.total * 0).sqrt())
        return replace(loss, total=loss.total * float(self.bad))


@pytest.mark.parametrize("late", [False, True], ids=["read at once", "read later"])
@pytest.mark.parametrize("bad", ["nan", "inf", "gradient"])
def test_a_non_finite_number_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, bad, late):
    if late:  # as on a GPU
        monkeypatch.setattr("attn.training.loop.SETTLE_EVERY", {"cpu": 5})
    path = tmp_path / "c"
    kept = 5 if late else 6
    message = rf"update 7 gave a loss of .*(nan|inf).*; .*c keeps the state after update {kept}\."
    settings = config(checkpoint_every=0.0, eval_every=0)
    with pytest.raises(NonFiniteError, match=message) as error:
        train(BadWorkload(bad), settings, seed=5, checkpoint_path=path)
    assert "\n" not in str(error.value)
    assert run(ToyWorkload(), settings, checkpoint_path=path) == run(ToyWorkload(), settings)


def test_a_non_finite_number_without_checkpoint_says_so():
    with pytest.raises(NonFiniteError, match="update 7 gave a loss of nan .*; there is no checkpoint"):
        train(BadWorkload("nan"), config(), seed=5)


def test_reading_numbers_later_changes_nothing(tmp_path, monkeypatch):
    expected = run()
    monkeypatch.setattr("attn.training.loop.SETTLE_EVERY", {"cpu": 5})
    assert run() == expected
    run(checkpoint_path=tmp_path / "c", stop_after=7)
    assert run(checkpoint_path=tmp_path / "c") == expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_runs_under_autocast_and_resumes(tmp_path, precision):
    class Watching(ToyWorkload):
        def loss(self, model, batch):
            self.seen_dtype = model(batch[0]).dtype
            return super().loss(model, batch)

    def workload():
        return Watching(dtype=torch.float32)

    settings = config(precision=precision, max_steps=60, eval_every=30)
    watched = workload()
    straight = run(watched, settings)
    assert watched.seen_dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert {weight.dtype for weight in watched.model.parameters()} == {torch.float32}
    assert straight[3][-1]["mse"] < straight[3][0]["mse"]
    exact = run(workload(), replace(settings, precision="fp32"))
    assert straight[3][-1]["mse"] == pytest.approx(exact[3][-1]["mse"], rel=0.1)
    run(workload(), settings, checkpoint_path=tmp_path / "c", stop_after=31)
    assert run(workload(), settings, checkpoint_path=tmp_path / "c") == straight


class OverflowingWorkload(ToyWorkload):
    """In fp16 its gradient overflows until the loss scale has come down to `scale`."""

    def __init__(self, scale):
        super().__init__(dtype=torch.float32)
        self.scale = scale

    def loss(self, model, batch):
        loss = super().loss(model, batch)
        if model.training:
            loss.total.register_hook(lambda grad: grad if grad * 12 <= self.scale else grad * math.inf)
        return loss


def test_fp16_skips_overflows_but_not_for_ever(tmp_path):
    settings = config(precision="fp16", max_steps=40, eval_every=0)
    start = [weight.clone() for weight in OverflowingWorkload(1.0).model.parameters()]
    workload = OverflowingWorkload(2.0**12)
    train(workload, settings, seed=5, stop_after=4, evaluate=False)
    assert all(map(torch.equal, workload.model.parameters(), start))  # scales 2**16 to 2**13 overflow
    result = train(OverflowingWorkload(2.0**12), settings, seed=5)
    assert math.isfinite(result.history[-1]["grad_norm"])
    assert result.history[-1]["mse"] < result.history[0]["mse"]
    for stop in (3, None):  # the second call must start with the lowered scale
        workload = OverflowingWorkload(2.0**12)
        again = train(workload, settings, seed=5, checkpoint_path=tmp_path / "c", stop_after=stop)
    assert (again.history[-1]["mse"], again.first_losses) == (result.history[-1]["mse"], result.first_losses)
    with pytest.raises(NonFiniteError, match="update 27 gave a loss of .* gradient norm of (inf|nan)"):
        train(OverflowingWorkload(0.0), settings, seed=5)


def test_evaluation_changes_nothing_and_sees_the_model_in_eval_mode():
    class Evaluating(ToyWorkload):
        def evaluate(self, model):
            assert not model.training and not torch.is_grad_enabled()
            torch.rand(3)
            return super().evaluate(model)

    often = run(Evaluating(dropout=0.3), config(eval_every=1))
    seldom = run(Evaluating(dropout=0.3), config(eval_every=0))
    assert often[4] == seldom[4]
    assert [len(often[3]), len(seldom[3])] == [13, 2]
    assert often[3][-1]["mse"] == seldom[3][-1]["mse"]
    mean = sum(entry["train_loss"] for entry in often[3][1:]) / 12
    assert seldom[3][-1]["train_loss"] == pytest.approx(mean, rel=0.2)  # weights differ a little


def test_after_step_and_parameter_groups():
    """The last layer learns ten times slower at a constant rate and is clamped; the rest warms up."""

    class Grouped(ToyWorkload):
        steps = ()

        def parameter_groups(self):
            first, last = self.model[0], self.model[3]
            slow = {"params": last.parameters(), "lr": 0.01, "schedule": "constant"}
            return [{"params": first.parameters()}, slow]

        def after_step(self, step):
            self.steps += (step,)
            self.model[3].weight.clamp_(-0.1, 0.1)

    workload, start = Grouped(), ToyWorkload()
    warmup = {"schedule": "linear_warmup", "warmup_steps": 10}
    settings = config(optimizer="sgd", lr=0.1, max_steps=2, eval_every=1, **warmup)
    result = train(workload, settings, seed=5)
    assert workload.steps == (1, 2)
    assert workload.model[3].weight.abs().max() == 0.1
    assert [entry["lr"] for entry in result.history[1:]] == [pytest.approx(0.01), pytest.approx(0.02)]
    loss = start.loss(start.model, start.batch(1, 0, 1))
    (grad,) = torch.autograd.grad(loss.total / loss.weight, [start.model[3].bias])
    once = Grouped()
    train(once, settings, seed=5, stop_after=1)
    torch.testing.assert_close(once.model[3].bias, start.model[3].bias - 0.01 * grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "its seed is 5, this run's is 6"),
        ({"run_id": "other"}, "its run_id is 'this', this run's is 'other'"),
        ({"settings": config(lr=0.5)}, "its config lr is 0.02, this run's is 0.5"),
        ({"workload": ToyWorkload(dtype=torch.float32)}, None),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    path = tmp_path / "c"
    run(checkpoint_path=path, run_id="this", stop_after=2)
    content = path.read_bytes()
    if message is None:  # weights are cast to the model's own dtype, as torch does
        assert run(checkpoint_path=path, **({"run_id": "this"} | change))[0] == 12
        return
    with pytest.raises(CheckpointError, match=f"c belongs to another run: {message}; choose another path"):
        run(checkpoint_path=path, **({"run_id": "this"} | change))
    assert path.read_bytes() == content


def test_accumulation_may_change_on_the_way(tmp_path):
    """As when a run moves to fewer devices."""
    run(ToyWorkload(), config(grad_accum_steps=2), checkpoint_path=tmp_path / "c", stop_after=6)
    moved, straight = ToyWorkload(), ToyWorkload()
    train(moved, config(grad_accum_steps=4), seed=5, checkpoint_path=tmp_path / "c")
    train(straight, config(), seed=5)
    for found, expected in zip(moved.model.parameters(), straight.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "c"
    run(checkpoint_path=path, stop_after=2)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="c cannot be read as a checkpoint"):
        run(checkpoint_path=path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"settings": config(grad_accum_steps=5)}, r"batch_size=12 .* multiple of .* 5 x 1"),
        ({"stop_after": 0}, "stop_after=0 .* above 0"),
        ({"time_limit_s": -1.0}, "time_limit_s=-1.0 .* above 0"),
        ({"seed": -1}, "seed=-1 .* at least 0"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        run(**call)


def test_progress_is_shown(capsys):
    train(ToyWorkload(), config(), seed=5, progress=Progress("toy", interval=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12
    assert lines[-1].startswith("toy: 12/12  mse ")
    assert "loss " in lines[-1] and " sequences/s" in lines[-1] and lines[-1].endswith("ETA 0:00")


def test_a_token_workload_counts_tokens():
    class Tokens(ToyWorkload):
        unit = "tokens"

        def loss(self, model, batch):
            loss = super().loss(model, batch)
            return BatchLoss(loss.total, loss.weight, int(loss.weight))

    result = train(Tokens(), config(max_steps=2, batch_size=7), seed=5)
    counts = [int(Tokens().batch(step, 0, 1)[2].sum()) for step in (1, 2)]
    assert result.seen == sum(counts)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_and_resuming_on_a_gpu(tmp_path, precision):
    class OnGpu(ToyWorkload):
        def __init__(self):
            super().__init__(dtype=torch.float32, dropout=0.3)
            self.model.cuda()

        def batch(self, step, part, n_parts):
            return tuple(tensor.cuda() for tensor in super().batch(step, part, n_parts))

    settings = TrainingConfig(max_steps=25, batch_size=12, optimizer="rmsprop_graves", lr=1e-3, momentum=0.9,
                              precision=precision)  # fmt: skip
    straight = run(OnGpu(), settings)
    run(OnGpu(), settings, checkpoint_path=tmp_path / "c", stop_after=13)
    assert run(OnGpu(), settings, checkpoint_path=tmp_path / "c") == straight
