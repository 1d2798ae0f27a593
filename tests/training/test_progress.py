import re
import sys

import pytest

from attn.training import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds under the test's control."""

    class Clock:
        now = 100.0

    monkeypatch.setattr("attn.training.progress.time.monotonic", lambda: Clock.now)
    return Clock


def test_plain_lines_come_once_an_interval(capsys, clock):
    progress = Progress("copy", interval=10.0)
    progress.start(step=20, total=120, seen=320, unit="sequences")
    for step in range(21, 71):
        clock.now += 0.5
        progress.update(step, 16 * step, {"loss": 0.123456, "lr": 3e-4})
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["40/120", "60/120"]
    # 20 updates in 10 s, so 80 more take 40 s; the 320 sequences before this start do not count.
    assert lines[0] == "copy: 40/120  loss 0.1235  lr 0.0003  32 sequences/s  elapsed 0:10  ETA 0:40"


def test_the_last_update_can_be_forced(capsys, clock):
    progress = Progress("copy", interval=10.0)
    progress.start(step=0, total=7200, seen=0, unit="tokens")
    clock.now += 1.0
    progress.update(1, 5, {}, force=True)
    assert capsys.readouterr().err == "copy: 1/7200  5 tokens/s  elapsed 0:01  ETA 1:59:59\n"


@pytest.mark.parametrize("kind", ["silent", "other rank"])
def test_nothing_is_printed_when_silent_or_on_another_rank(capsys, monkeypatch, kind):
    monkeypatch.setattr("attn.training.progress.is_main", lambda: kind == "silent")
    progress = Progress("copy", silent=kind == "silent", interval=0.0)
    progress.start(step=0, total=2, seen=0, unit="tokens")
    progress.update(1, 5, {"loss": 1.0}, force=True)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch, clock):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress("copy")
    progress.start(step=1, total=4, seen=16, unit="sequences")
    clock.now += 2.0
    progress.update(3, 48, {"loss": 0.5})
    progress.close()
    shown = capsys.readouterr().err
    assert re.search(r"copy: *75%.*3/4.*loss 0.5  16 sequences/s", shown)
