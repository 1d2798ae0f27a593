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


def chapter(name: str) -> Chapter:
    """The chapter with this paper, number or notebook, as graves2014ntm, 6 or 06_ntm; UsageError names the papers."""
    found = {known: c for c in chapters() for known in (str(c.number), c.notebook, c.paper)}
    return found[name] if name in found else found[choose("chapter", name, [c.paper for c in chapters()])]
