"""`.ci/run` on machines of several kinds, played by stand-ins for the commands that it calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"
MAKE = 'echo "make $* in $PWD, CI=$CI, input: $(cat)"'


@pytest.fixture
def run(tmp_path):
    """A function that runs the script where only the named commands exist, and returns what was said."""

    def run_with(**commands):
        folder = tmp_path / "bin"
        folder.mkdir()
        for needed in ("bash", "dirname", "cat"):
            (folder / needed).symlink_to(shutil.which(needed))
        for name, body in {"make": MAKE, **commands}.items():
            command = folder / name.replace("_", "-")
            command.write_text(f"#!/usr/bin/env bash\n{body}\n")
            command.chmod(0o755)
        # /usr/bin/env is called by its full name and finds bash on this path.
        return subprocess.run(
            [shutil.which("bash"), SCRIPT],
            env={"PATH": str(folder), "HOME": os.devnull},
            cwd=tmp_path,
            input="typed",
            capture_output=True,
            text=True,
        )

    return run_with


TESTED = f"make test in {SCRIPT.parents[1]}, CI=true, input: \n"


@pytest.mark.parametrize("browser", ["chromium", "google_chrome"])
def test_with_a_browser_nothing_is_installed(run, browser):
    done = run(**{browser: "true"}, id="echo 0", apt_get="echo apt-get $* >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, TESTED, "")


def test_root_installs_chromium(run):
    done = run(id="echo 0", apt_get='echo "apt-get $*"')
    assert (done.returncode, done.stdout) == (0, TESTED)
    first, second = done.stderr.splitlines()
    assert first.startswith("apt-get update") and "install" in second and "chromium" in second


def test_an_installation_that_fails_is_told_and_not_fatal(run):
    done = run(id="echo 0", apt_get="exit 100")
    assert (done.returncode, done.stdout) == (0, TESTED)
    assert "page tests will be skipped" in done.stderr


@pytest.mark.parametrize("commands", [{"id": "echo 1000", "apt_get": "exit 1"}, {"id": "echo 0"}])
def test_where_nothing_may_be_installed_the_tests_run_all_the_same(run, commands):
    done = run(**commands)
    assert (done.returncode, done.stdout, done.stderr) == (0, TESTED, "")


def test_the_outcome_of_the_tests_is_the_outcome(run):
    assert run(chromium="true", make="exit 2").returncode == 2
