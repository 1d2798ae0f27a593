from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def notebook_of(*sources, tags=()):
    """A notebook with a parameters cell and a code cell for each source, none of them executed."""
    cells = [
        new_markdown_cell("# A chapter", id="title"),
        new_code_cell("profile = 'ci'", id="parameters", metadata={"tags": ["parameters"]}),
        *(
            new_code_cell(source, id=f"cell{number}", metadata={"tags": list(tags)} if tags else {})
            for number, source in enumerate(sources)
        ),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


@pytest.fixture
def project(tmp_path):
    """A tiny project: a package, a record, a lock and a function ``add(name, *sources)`` for notebooks."""

    class Project:
        root = tmp_path / "project"

        def add(self, name: str, *sources: str, tags=("nbval-check-output",)) -> Path:
            path = self.root / "notebooks" / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook_of(*sources, tags=tags), path)
            return path

        def write(self, name: str, text: str) -> Path:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return path

    made = Project()
    made.write("attn/module.py", "VALUE = 1\n")
    made.write("results/record.json", "{}\n")
    made.write("requirements.lock", "numpy==2.4.6\n")
    made.write("pyproject.toml", '[tool.attn]\nrepository = ""\n')
    return made
