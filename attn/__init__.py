"""Attention and differentiable memory, reproduced: the library behind the book.

Importing this package loads nothing heavy: each mechanism is one module (``attn.ntm`` ...), read and
imported on its own.
"""

__version__ = "0.1.0"
