"""The book's chapters: one module each, found by looking into this folder."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from attn.reproduction.errors import choose
from attn.reproduction.experiment import Chapter


@cache
def chapters() -> tuple[Chapter, ...]:
    """Every chapter, by number: each module here holds one as `CHAPTER`."""
    found = [import_module(f"{__name__}.{module.name}").CHAPTER for module in iter_modules(__path__)]
    return tuple(sorted(found, key=lambda chapter: chapter.number))


def chapter(paper: str) -> Chapter:
    """The chapter on the paper with this id; UsageError names the valid ones."""
    choose("chapter", paper, [c.paper for c in chapters()])
    return next(c for c in chapters() if c.paper == paper)
