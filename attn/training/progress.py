"""Progress of a run: a bar for someone who watches, plain lines for a log."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from attn.training.distributed import is_main


class Progress:
    """Shows step, metrics, speed and remaining time on stderr, from rank 0 only.

    Args:
        label: what is running, at the start of each line.
        silent: print nothing.
        interval: seconds between plain lines, where stderr is not a terminal.
    """

    def __init__(self, label: str = "training", *, silent: bool = False, interval: float = 10.0):
        self.label = label
        self.silent = silent
        self.interval = interval
        self._bar = None

    def start(self, *, step: int, total: int, seen: int, unit: str) -> None:
        """Begin, or continue from `step` of `total` updates with `seen` units behind."""
        self.total, self.unit = total, unit
        self._first_step, self._first_seen = step, seen
        self._started = self._shown = time.monotonic()
        self._shows = is_main() and not self.silent
        if self._shows and sys.stderr.isatty():
            self._bar = tqdm(desc=self.label, total=total, initial=step, unit="step", dynamic_ncols=True)

    def update(self, step: int, seen: int, metrics: Mapping[str, float], *, force: bool = False) -> None:
        """Tell the state after update `step`; shown at once if `force`, else when the interval has passed."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        due = force or now - self._shown >= (1.0 if self._bar is not None else self.interval)
        if not (self._shows and due):
            return
        self._shown = now
        shown = [f"{name} {value:.4g}" for name, value in metrics.items()]
        elapsed = max(now - self._started, 1e-9)
        speed = f"{(seen - self._first_seen) / elapsed:.0f} {self.unit}/s"
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join([*shown, speed]))
            return
        done = step - self._first_step
        remaining = _clock((self.total - step) * elapsed / done) if done else "?"
        parts = [f"{self.label}: {step}/{self.total}", *shown, speed]
        parts += [f"elapsed {_clock(elapsed)}", f"ETA {remaining}"]
        print(*parts, sep="  ", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
