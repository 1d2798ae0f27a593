"""The training loop that every chapter uses."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attn.training.checkpoint import (
    CheckpointError,
    check_belongs,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from attn.training.config import TrainingConfig
from attn.training.distributed import average_rows, gather_to_main, is_main, rank, replicate, world_size
from attn.training.optimizers import build_optimizers, clip_gradients, dense_gradients, scale_gradients
from attn.training.progress import Progress
from attn.training.schedules import learning_rate
from attn.training.seeding import derive_seed, seed_device, set_seed
from attn.training.sparse_optimizer import RowAdam

# After how many updates (else 1) to read their numbers: on a GPU each reading makes the host wait.
SETTLE_EVERY = {"cuda": 10}
# Loss scales below this mean that fp16 gradients overflow for a reason no scale can cure.
SMALLEST_LOSS_SCALE = 2.0**-10
# Sums since the last evaluation; `norms` counts the finite gradient norms in `norm`.
NOTHING_SINCE = {"loss": 0.0, "weight": 0.0, "norm": 0.0, "norms": 0}
# What rank 0 wants after an update; the wishes are bits, so that all ranks can learn them with the loss.
CHECKPOINT, STOP, INTERRUPT = 1, 2, 4


class NonFiniteError(ArithmeticError):
    """The loss or the gradient is infinite or not a number."""


@dataclass(frozen=True)
class BatchLoss:
    """What one piece of a batch costs.

    The gradient of an update is grad(sum of totals) / (sum of weights) over all pieces of its batch.
    """

    total: Tensor  # loss summed over the piece, in nats, 0-dimensional
    weight: float  # what the sum is a sum over: number of sequences or target tokens
    seen: int  # units of work in the piece, for counting and speed


class Workload(Protocol):
    """What `train` trains.

    Randomness comes from torch's default generators, which the loop seeds before each piece of an update and
    each evaluation, or from `generator_for`; then a resumed run repeats the uninterrupted one exactly.

    A workload may also have:
        parameter_groups(): dicts as `build_optimizers` takes them, in place of all of `model.parameters()`.
        after_step(step): called after update `step`, for instance to clamp parameters.
        state_dict(), load_state_dict(state): state carried from batch to batch (nested dicts and lists of
            tensors and JSON values); it enters the checkpoint, for each rank its own.
    """

    model: nn.Module
    unit: str  # "sequences" or "tokens"

    def batch(self, step: int, part: int, n_parts: int) -> Any:
        """Piece `part` (from 0) of `n_parts` equal ones of update `step`'s batch (from 1), on the device.

        The union over parts does not depend on `n_parts`; equal arguments give equal batches.
        """

    def loss(self, model: nn.Module, batch: Any) -> BatchLoss:
        """The loss of one piece. Calls `model(...)`, not its parts: under DDP that call is the wrapper's."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics by name. The model is in eval mode, without gradients, under the precision of the training;
        every rank calls this and rank 0's answer is kept."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave, earlier parts of an interrupted one included."""

    step: int  # updates done
    seen: int  # units seen
    history: list[dict[str, float | None]]  # one entry per evaluation; see `train`
    first_losses: list[float]  # loss / weight in nats of the first updates, in full precision
    seconds: float  # everything: training, evaluation, checkpoints
    units_per_second: float  # over the time of training alone
    peak_memory_bytes: int | None  # of this call on a CUDA device, else of the process; None if unknown
    interrupted: bool  # stopped by `stop_after` or `time_limit_s` before `max_steps`


def train(
    workload: Workload,
    config: TrainingConfig,
    *,
    seed: int,
    checkpoint_path: str | os.PathLike | None = None,
    progress: Progress | None = None,
    stop_after: int | None = None,
    time_limit_s: float | None = None,
    record_losses: int = 3,
    evaluate: bool = True,
    run_id: str | None = None,
) -> TrainingResult:
    """Train `workload.model` in place, continuing from the checkpoint if there is one.

    Killed at any moment and called again with the same arguments, it gives the result of the uninterrupted
    run, on CPUs bit for bit. Pieces of a batch are spread over `config.grad_accum_steps` and over the
    processes of torchrun: 4 pieces in one process equal 1 piece in each of 4, but for the running statistics of batch
    norm, which follow all pieces of a process and of the processes rank 0 alone.

    `history` holds `step`, `seen`, `train_loss` (nats per weight, mean since the last entry), `lr`,
    `grad_norm` (before clipping, mean since the last entry), `seconds` and the workload's own metrics; one
    entry for step 0, where what comes from updates is None, and one for the end.

    Args:
        workload: model, data, loss and evaluation.
        config: how to train.
        seed: at least 0; fixes everything random here, but not the weights that the model came with.
        checkpoint_path: file to keep and continue from, the same on every rank; None keeps nothing.
        progress: where to show progress; None shows nothing.
        stop_after: stop, with a checkpoint, once this many updates are done in all.
        time_limit_s: stop, with a checkpoint, once this call has taken so many seconds.
        record_losses: how many of the first losses the result keeps.
        evaluate: False skips all evaluations, as for a replay of the first losses.
        run_id: a name or hash of what else defines the run, as model and data; a checkpoint of another is
            refused.

    Raises:
        NonFiniteError: for a loss or gradient that is infinite or not a number; the last checkpoint stays.
        CheckpointError: if the checkpoint is unreadable or of another run.
        KeyboardInterrupt: on Ctrl-C, after writing a checkpoint; a second Ctrl-C does not wait for that.
        ValueError: if the pieces cannot be equal, or a limit is not above 0.
    """
    if workload.unit == "sequences" and config.batch_size % (config.grad_accum_steps * world_size()):
        raise ValueError(
            f"batch_size={config.batch_size} is not valid: it must be a multiple of grad_accum_steps x "
            f"processes = {config.grad_accum_steps} x {world_size()}."
        )
    for name, value in (("stop_after", stop_after), ("time_limit_s", time_limit_s)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value!r} is not valid: it must be None or above 0.")
    trainer = _Trainer(workload, config, seed, checkpoint_path, progress or Progress(silent=True), run_id)
    trainer.stop_after = config.max_steps if stop_after is None else min(stop_after, config.max_steps)
    trainer.time_limit_s = math.inf if time_limit_s is None else time_limit_s
    trainer.record_losses = record_losses
    trainer.evaluates = evaluate
    return trainer.run()


class _Trainer:
    """One call of `train`. `done` is what a checkpoint keeps beside tensors; all of it is JSON."""

    def __init__(self, workload, config, seed, checkpoint_path, progress, run_id):
        self.workload, self.config, self.seed = workload, config, seed
        self.path, self.progress = checkpoint_path, progress
        self.identity = {"run_id": run_id, "seed": seed, "config": asdict(config)}
        # More accumulation on fewer devices is the same run, and so is another rhythm of saving.
        for name in ("grad_accum_steps", "checkpoint_every"):
            del self.identity["config"][name]
        self.model = workload.model
        self.device = next(self.model.parameters()).device
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
        trained = getattr(workload, "parameter_groups", self.model.parameters)
        self.optimizers = build_optimizers(config, trained())
        self.parameters = [parameter for group in self._groups() for parameter in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        by_rows = [one for one in self.optimizers if isinstance(one, RowAdam)]
        self.tables = [table for one in by_rows for group in one.param_groups for table in group["params"]]
        self.replica = self.model
        if world_size() > 1:
            self.replica = replicate(self.model, self.tables, self.device)
        self.settle_every = SETTLE_EVERY.get(self.device.type, 1)
        self.pending = []  # numbers of the latest updates, still on the device
        self.latest = {}  # what progress shows
        self.step = self.saved_step = 0
        self.done = {"step": 0, "seen": 0, "history": [], "first_losses": [], "since": dict(NOTHING_SINCE)}
        self.seconds_before = self.training_seconds_before = 0.0

    def run(self) -> TrainingResult:
        self.began = self.last_saved = time.perf_counter()
        self.pauses = 0.0  # seconds of this call that were not training
        set_seed(self.seed)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        if self.path is not None and os.path.exists(self.path):
            self._restore()
        total, unit = self.config.max_steps, self.workload.unit
        self.progress.start(step=self.step, total=total, seen=self.done["seen"], unit=unit)
        try:
            with _deferred_interrupt(self.path is not None) as self.interrupt:
                self._steps()
        finally:
            self.progress.close()
        return self._result()

    def _steps(self) -> None:
        self.model.train()
        if self.step == 0 and not self.done["history"]:
            self._evaluate()
        wish = 0
        while self.step < self.stop_after and not wish & (STOP | INTERRUPT):
            self._update()
            wish = 0
            last = self.step == self.stop_after
            due = self._is_evaluation_due()
            if last or due or len(self.pending) >= self.settle_every:
                wish = self._settle()
                if due:
                    self._evaluate()
                if wish & CHECKPOINT and not last:
                    self._save()
                self.progress.update(self.step, self.done["seen"], self.latest, force=last)
        if self.path is not None and self.step > self.saved_step:
            self._save()
        if wish & INTERRUPT or self.interrupt.is_set():
            raise KeyboardInterrupt

    def _is_evaluation_due(self) -> bool:
        every = self.config.eval_every
        return self.step == self.config.max_steps or bool(every and self.step % every == 0)

    def _groups(self) -> list[dict[str, Any]]:
        """The parameter groups as they are now: loading a state replaces them."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _update(self) -> None:
        """One optimiser update; leaves its numbers in `pending` without waiting for them."""
        self.step += 1
        parts, ranks = self.config.grad_accum_steps, world_size()
        total, weight, seen = 0.0, 0.0, 0
        for part in range(parts):
            piece = rank() * parts + part
            # Seeds by piece make dropout independent of how pieces are spread, and of interruptions.
            seed_device(self.device, derive_seed(self.seed, "train", self.step, piece))
            with self.replica.no_sync() if ranks > 1 and part < parts - 1 else nullcontext():
                batch = self.workload.batch(self.step, piece, parts * ranks)
                with self._autocast():
                    loss = self.workload.loss(self.replica, batch)
                # Dividing here keeps fp16 in range; where weights sum to batch_size it is all there is to do.
                self.scaler.scale(loss.total / self.config.batch_size).backward()
            total, weight, seen = loss.total.detach() + total, loss.weight + weight, loss.seen + seen
        wish = self._wish() if is_main() else 0
        if ranks > 1:
            for table in self.tables:
                average_rows(table)
            counts = torch.tensor([weight, seen, wish], dtype=torch.float64).to(self.device)
            numbers = torch.stack([total.double(), *counts])
            dist.all_reduce(numbers)
            total, weight, seen, wish = numbers
        norm = self._apply(self.config.batch_size * ranks / weight)
        self.pending.append((self.step, total, weight, seen, norm, wish))

    def _apply(self, factor: float | Tensor) -> Tensor:
        """Scale and clip the gradients, update the weights, return the gradient's norm."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        grads = dense_gradients(self.parameters)
        scale_gradients(grads, factor)
        norm = clip_gradients(grads, self.config)
        for group in self._groups():
            own = {"lr": group["base_lr"], "schedule": group["schedule"]}
            group["lr"] = learning_rate(self.config, self.step, **own)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        if hasattr(self.workload, "after_step"):
            with torch.no_grad():
                self.workload.after_step(self.step)
        return norm

    def _settle(self) -> int:
        """Read the numbers of the pending updates, check and add them; return the wishes among them."""
        done, since, wishes = self.done, self.done["since"], 0
        for step, total, weight, seen, norm, wish in self.pending:
            total, weight, norm = float(total), float(weight), float(norm)
            self._check_finite(step, total / weight, norm)
            done["seen"] += int(seen)
            since["loss"] += total
            since["weight"] += weight
            if math.isfinite(norm):
                since["norm"] += norm
                since["norms"] += 1
            if len(done["first_losses"]) < self.record_losses:
                done["first_losses"].append(total / weight)
            wishes |= int(wish)
        self.pending.clear()
        done["step"] = self.step
        self.latest |= {"loss": total / weight, "lr": self._groups()[0]["lr"]}
        return wishes

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        # With fp16 an infinite gradient is ordinary: the scaler skips the update and lowers its scale.
        forgiving = self.scaler.is_enabled() and self.scaler.get_scale() >= SMALLEST_LOSS_SCALE
        if math.isfinite(loss) and (math.isfinite(norm) or forgiving):
            return
        kept = "there is no checkpoint"
        if self.saved_step:
            kept = f"{self.path} keeps the state after update {self.saved_step}"
        raise NonFiniteError(f"update {step} gave a loss of {loss} and a gradient norm of {norm}; {kept}.")

    def _wish(self) -> int:
        """What rank 0 wants done once the current update is finished."""
        now = time.perf_counter()
        wish = CHECKPOINT * (self.path is not None and now - self.last_saved >= self.config.checkpoint_every)
        return wish | STOP * (now - self.began >= self.time_limit_s) | INTERRUPT * self.interrupt.is_set()

    def _evaluate(self) -> None:
        if not self.evaluates:
            return
        since = self.done["since"]
        with self._pause():
            seed_device(self.device, derive_seed(self.seed, "evaluate", self.step))
            self.model.eval()
            with torch.no_grad(), self._autocast():
                metrics = {name: float(value) for name, value in self.workload.evaluate(self.model).items()}
            self.model.train()
        entry = {
            "step": self.step,
            "seen": self.done["seen"],
            "train_loss": since["loss"] / since["weight"] if since["weight"] else None,
            "lr": self._groups()[0]["lr"] if self.step else None,
            "grad_norm": since["norm"] / since["norms"] if since["norms"] else None,
            "seconds": self._seconds(),
        }
        self.done["history"].append(entry | metrics)
        self.latest |= metrics
        since.update(NOTHING_SINCE)

    def _save(self) -> None:
        with self._pause():
            stateful = hasattr(self.workload, "state_dict")
            carried = gather_to_main(self.workload.state_dict()) if stateful else None
            times = {"seconds": self._seconds(), "training_seconds": self._training_seconds()}
            if is_main():
                state = {
                    "identity": self.identity,
                    "done": self.done | times,
                    "model": self.model.state_dict(),
                    "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
                    "scaler": self.scaler.state_dict(),
                    "workload": carried,
                }
                save_checkpoint(self.path, state)
        self.saved_step, self.last_saved = self.step, time.perf_counter()

    def _restore(self) -> None:
        state = load_checkpoint(self.path)
        check_belongs(self.path, state["identity"], self.identity)
        load_model(self.path, self.model, state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": saved, "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        if hasattr(self.workload, "state_dict"):
            carried = state["workload"]
            if len(carried) != world_size():
                raise CheckpointError(
                    f"{self.path} holds state that {len(carried)} processes carry: it cannot continue on "
                    f"{world_size()}."
                )
            self.workload.load_state_dict(carried[rank()])
        self.done = state["done"]
        self.step = self.saved_step = self.done["step"]
        self.seconds_before = self.done.pop("seconds")
        self.training_seconds_before = self.done.pop("training_seconds")

    def _result(self) -> TrainingResult:
        done, seconds = self.done, self._training_seconds()
        return TrainingResult(
            step=self.step,
            seen=done["seen"],
            history=done["history"],
            first_losses=done["first_losses"],
            seconds=self._seconds(),
            units_per_second=done["seen"] / seconds if seconds else 0.0,
            peak_memory_bytes=_peak_memory(self.device),
            interrupted=self.step < self.config.max_steps,
        )

    def _autocast(self):
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """Time in here is not training."""
        start = time.perf_counter()
        yield
        self.pauses += time.perf_counter() - start

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def _training_seconds(self) -> float:
        return self.training_seconds_before + time.perf_counter() - self.began - self.pauses


@contextmanager
def _deferred_interrupt(active: bool) -> Iterator[threading.Event]:
    """Let the first Ctrl-C only set the event, so that the update under way is finished and can be saved."""
    interrupt = threading.Event()
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not active or ignored or threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def handle(number, frame):
        if interrupt.is_set():
            raise KeyboardInterrupt
        interrupt.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # it exists on Unix only
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
