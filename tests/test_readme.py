"""What the README and the pages show works as shown."""

import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest

from attn import cli
from attn.experiments import chapter, chapters
from attn.reproduction import parameters, runner
from attn.reproduction.errors import choose
from attn.reproduction.experiment import PROFILES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {
    path.name: path.read_text("utf-8") for path in [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The command lines in a page's blocks for a shell."""
    shown = [line for block in blocks(text, "bash") for line in block.splitlines()]
    typed = [line[2:] for block in blocks(text, "console") for line in block.splitlines() if line[:2] == "$ "]
    return [line for line in (*shown, *typed) if line.partition("#")[0].strip()]


def mentions(text: str) -> list[str]:
    """Commands in a page's sentences, which may leave out what they are about: "`attn run` skips"."""
    return re.findall(r"`((?:attn|make|papermill|jupyter-book) [^`<>]+)`", text)


def on_pages(found):
    return [
        pytest.param(line, id=f"{name}: {line[:70]}") for name, text in PAGES.items() for line in found(text)
    ]


def check(line: str) -> str:
    """The program of a command line whose every part is known here; an error for any other."""
    program, *rest = [word for word in shlex.split(line, comments=True) if not re.match("[A-Z_]+=", word)]
    if program == "torchrun":
        program, rest = "attn", rest[rest.index("attn.cli") + 1 :]
    CHECKS[program](*rest)
    return program


def check_attn(*arguments: str) -> None:
    """Parse as click does, without running; the names in `attn run` and `--chapter` must be there."""
    command, context, rest = cli.main, None, list(arguments)
    while isinstance(command, click.Group):
        context = click.Context(command, context, **command.context_settings)  # click keeps options of the first one
        name, command, rest = command.resolve_command(context, rest)
    values = command.make_context(name, rest, parent=context).params
    if values.get("chapter"):
        found = chapter(values["chapter"])
    if name == "run":
        chosen = found.select(**{key: values[key] for key in ("task", "table", "experiment")})
        choose("profile", values["profile"], PROFILES)
        runner.jobs(found, chosen, values["profile"], parameters.parse_seeds(values["seeds"]))


def check_papermill(notebook: str, target: str, *options: str) -> None:
    """A chapter's notebook with parameters that its second cell takes."""
    assert (ROOT / notebook).is_file() and target.endswith(".ipynb")
    (found,) = [each for each in chapters() if each.notebook == Path(notebook).stem]
    flags, names, values = options[::3], options[1::3], options[2::3]
    assert set(flags) <= {"-p"} and len(names) == len(values)
    parameters.from_values(found, **({"profile": "ci"} | dict(zip(names, values, strict=True))))


def check_make(target: str, *variables: str) -> None:
    assert f"\n{target}:" in (ROOT / "Makefile").read_text("utf-8")
    assert all("=" in variable for variable in variables)


def check_build(*arguments: str) -> None:
    assert arguments == ("build", ".")


def check_source(*arguments: str) -> None:
    assert arguments == (".venv/bin/activate",)


CHECKS = {
    "attn": check_attn,
    "make": check_make,
    "papermill": check_papermill,
    "jupyter-book": check_build,
    "source": check_source,
}


@pytest.mark.parametrize("line", on_pages(commands))
def test_every_command_shown_can_be_given(line):
    check(line)


@pytest.mark.parametrize("line", on_pages(mentions))
def test_every_command_mentioned_is_there(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.tar.gz").touch()  # what `attn results merge` is shown with
    with suppress(click.MissingParameter):
        check(line)


@pytest.mark.parametrize(
    "line",
    [
        "attn run graves2014ntm --experiment copy/ntm_lstn",
        "attn run graves2014nmt",
        "attn run 6 --table table9",
        "attn run 6 --profile fast",
        "attn run 6 --seeds x",
        "attn run 6 --dryrun",
        "attn status --chapter 99",
        "attn stats",
        "attn results show",
        "make boook",
        "papermill notebooks/06_ntm.ipynb out.ipynb -p task copying",
        "papermill notebooks/06_ntm.ipynb out.ipynb -p tasks copy",
        "papermill notebooks/99_none.ipynb out.ipynb",
        "jupyter-book bild .",
        "sauce .venv/bin/activate",
    ],
)
def test_a_wrong_command_would_be_seen(line):
    with pytest.raises((Exception, SystemExit)):
        check(line)


def test_the_commands_are_found():
    programs = [check(line) for line in commands(README)]
    assert set(programs) == set(CHECKS) and programs.count("attn") > 6
    kinds = {line.split("attn ")[1].split()[0] for line in commands(README) if "attn " in line}
    assert kinds == {"run", "status", "results", "data"}
    assert len(commands(PAGES["how_to_rerun.md"])) > 12 and len(mentions(PAGES["how_to_rerun.md"])) > 8


@pytest.mark.parametrize("name", ["README.md", "how_to_rerun.md"])
def test_the_environment_is_activated_before_its_commands(name):
    first = PAGES[name].index("source .venv/bin/activate")
    shown = [
        line
        for language in ("bash", "console")
        for block in blocks(PAGES[name], language)
        for line in block.splitlines()
    ]
    needing = [
        line for line in shown if re.match(r"(\$ )?(\w+=\S+ )*(attn|papermill|jupyter-book|torchrun) ", line)
    ]
    assert needing and all(PAGES[name].index(line) > first for line in needing)


def test_the_python_examples_run():
    (example,) = blocks(README, "python")
    subprocess.run(
        [sys.executable, "-c", f"{example}\nassert logits.shape == (4, 7, 9)"], cwd=ROOT, check=True
    )


def test_every_file_it_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)
