"""What the tests of adaptive spans and of all-attention share."""

import pytest
import torch

# float64 against float64: only the order of sums differs
EXACT = {"rtol": 1e-10, "atol": 1e-12}
RAMP = 4

both = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


def assert_equal(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), **EXACT)
