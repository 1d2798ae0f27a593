"""Corpora: what they are, where they come from, and how to read them.

- `attn.data.registry`: every corpus, registered once (`corpora.toml`).
- `attn.data.download`: look-up in `$ATTN_DATA`, then in the user's cache, then download; verification.
- `attn.data.reading`: texts and splits as bytes or lines, straight out of packed files and archives.
- `attn.data.errors`: what can go wrong, each with its own class below `DataError`.

Behind them: `transfer` (one download), `archives` (packed files), `python_source` (a text every machine has).
"""
