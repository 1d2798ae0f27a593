"""What counts as attending in LSH attention, where the paper and public code differ (Kitaev et al. 2020,
arXiv:2001.04451)."""

from typing import NamedTuple


class Convention(NamedTuple):
    """What counts as attending in a round of hashing; the defaults are the paper's definition.

    Public code, the authors' included, drops the first two and looks back across rounds, see `PUBLIC`.
    """

    same_bucket: bool = True  # only keys of the query's own bucket (eq. 4)
    count_once: bool = True  # a pair that several rounds bring together counts once (N_ij in the appendix)
    wrap: bool = (
        False  # a round's first chunk looks back at the round before, the first round's at the last one's
    )


PAPER = Convention()
PUBLIC = Convention(same_bucket=False, count_once=False, wrap=True)
