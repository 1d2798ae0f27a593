"""Which text a run reads: a registered one, or the user's own, since the paper's 140 GB of news are not public."""

from __future__ import annotations

from attn.data import own_text
from attn.data.language_text import SUBWORDS, LanguageText, TextConfig
from attn.data.language_text import load as load_registered
from attn.data.own_text import OWN


def load(config: TextConfig, *, download: bool = True) -> LanguageText:
    """The text of a config; the corpus "own-text" is read from $ATTN_DATA/own-text/{train,valid,test}.txt.

    Raises:
        ValueError, DataError: as `attn.data.own_text.load` and `attn.data.language_text.load`.
    """
    return own_text.load(config) if config.corpus == OWN else load_registered(config, download=download)


def words(config: TextConfig, text: LanguageText, split: str) -> str:
    """How much of which text a split holds, as a record's definitions say it."""
    size, n_tokens = config.sizes[split], len(text.splits[split])
    part = f"the {split} split of {text.title}"
    if size is not None:
        part = f"the first {size:,} bytes of {part}"
    if config.representation == SUBWORDS:
        left_out = "empty lines" if config.corpus == OWN else "empty lines and lines of markup alone"
        part += f", without {left_out}, with an end after every line"
    return f"the {n_tokens:,} tokens of {part}"
