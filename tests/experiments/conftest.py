"""What tests of several chapters' pictures and words need."""

import matplotlib.pyplot as plt
import pytest

from attn.reproduction.records import Record, pack_arrays
from tests.data.made_up_words import word_corpus  # noqa: F401


@pytest.fixture(autouse=True)
def _closed_figures():
    """Every test closes its figures: matplotlib warns of more than twenty, and they hold memory."""
    yield
    plt.close("all")


@pytest.fixture
def keep(tmp_path):
    """A function that gives a record an artifact."""

    def keep(record, arrays):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        path.write_bytes(pack_arrays(arrays))
        return Record(tmp_path / "seed0.json", record.data | {"artifact": {"file": path.name}})

    return keep
