"""What the README shows works as shown."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_python_examples_run():
    (example,) = blocks("python")
    subprocess.run(
        [sys.executable, "-c", f"{example}\nassert logits.shape == (4, 7, 9)"], cwd=ROOT, check=True
    )


def test_every_command_shown_exists():
    lines = [line.split("#")[0].split() for block in blocks("bash") for line in block.splitlines() if line]
    commands = {line[1] for line in lines if line[0] == "attn"}
    helped = subprocess.run(
        [sys.executable, "-m", "attn.cli", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert commands == {"run", "status", "results", "data"}
    assert all(re.search(rf"^  {command}\b", helped.stdout, re.MULTILINE) for command in commands)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {line[1] for line in lines if line[0] == "make"} <= set(targets)


def test_every_file_it_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)
