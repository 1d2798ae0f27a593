"""Fixtures of the Neural Turing Machine's tests."""

import pytest

from attn.kernels import ntm_graphs


def record_nothing(function):
    """In the place of `ntm_graphs.record`, for any device: what runs the function again, into the same places."""
    places = function()

    def replay():
        for place, value in zip(places, function(), strict=True):
            place.copy_(value)

    return replay, places


@pytest.fixture
def without_gpu(monkeypatch):
    """CUDA graphs without CUDA: everything but the recording itself. Returns the recordings."""
    recordings = ntm_graphs.Recordings()
    monkeypatch.setattr(ntm_graphs, "record", record_nothing)
    monkeypatch.setattr(ntm_graphs, "obstacle", lambda *tensors: None)
    monkeypatch.setattr(ntm_graphs, "total_memory", lambda device: 2**30)
    monkeypatch.setattr(ntm_graphs, "RECORDINGS", recordings)
    return recordings


@pytest.fixture
def path(request):
    """A way to run the loop over time."""
    if request.param == "graph":
        request.getfixturevalue("without_gpu")
    return request.param
