import os

import pytest
import safetensors.torch
import torch
from torch import nn

from attn.training.checkpoint import (
    CheckpointError,
    check_belongs,
    load_checkpoint,
    load_model,
    save_checkpoint,
)

STATE = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)},
    "optimizers": [{0: {"step": 4, "average": torch.ones(2, dtype=torch.float64)}, 10: {}}],
    "numbers": [0.1 + 0.2, None, True, "text", float("inf")],
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "folder" / "checkpoint"
    save_checkpoint(path, STATE)
    assert same(load_checkpoint(path), STATE)
    assert os.listdir(path.parent) == ["checkpoint"]


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    def make():
        model = nn.Sequential(nn.Embedding(200, 50), nn.Linear(50, 200, bias=False))
        model[1].weight = model[0].weight
        return model

    model, other = make(), make()
    save_checkpoint(tmp_path / "c", {"model": model.state_dict()})
    assert (tmp_path / "c").stat().st_size < 1.5 * model[0].weight.nbytes
    load_model(tmp_path / "c", other, load_checkpoint(tmp_path / "c")["model"])
    assert torch.equal(other[0].weight, model[0].weight)
    assert other[1].weight is other[0].weight


def test_views_and_transposed_tensors_keep_their_values(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"row": whole[1], "column": whole[:, 1], "transposed": whole.T, "whole": whole, "none": whole[:0]}
    save_checkpoint(tmp_path / "c", state)
    assert same(load_checkpoint(tmp_path / "c"), state)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nothing cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize("size", [0, 4, 60, 650, -1])
def test_a_cut_file_is_refused(tmp_path, size):
    path = tmp_path / "c"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    assert len(content) > 650
    path.write_bytes(content[:size])
    with pytest.raises(CheckpointError, match="c cannot be read as a checkpoint .* delete it") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("not a checkpoint, but long enough to look for a header in it")
    with pytest.raises(CheckpointError, match="text cannot be read"):
        load_checkpoint(tmp_path / "text")
    torch.save(STATE, tmp_path / "pickle")
    with pytest.raises(CheckpointError, match="pickle cannot be read"):
        load_checkpoint(tmp_path / "pickle")
    safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="weights is not a checkpoint: its format is None"):
        load_checkpoint(tmp_path / "weights")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failure_while_writing_leaves_the_old_file_alone(tmp_path, monkeypatch, call):
    path = tmp_path / "c"
    save_checkpoint(path, {"step": 1})

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, call, fail)
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["c"]


def test_what_a_kill_left_is_overwritten(tmp_path):
    (tmp_path / "c.tmp").write_bytes(b"half")
    save_checkpoint(tmp_path / "c", {"step": 1})
    assert os.listdir(tmp_path) == ["c"]


def test_keys_other_than_strings_and_integers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="checkpoint key 0.5 is not valid"):
        save_checkpoint(tmp_path / "c", {"a": {0.5: 1}})


def test_a_checkpoint_of_another_run_is_refused():
    saved = {"seed": 1, "config": {"lr": 0.1, "betas": [0.9, 0.999]}}
    check_belongs("c", saved, {"seed": 1, "config": {"lr": 0.1, "betas": (0.9, 0.999)}})
    with pytest.raises(CheckpointError, match="c belongs .* its config lr is 0.1, this run's is 0.2"):
        check_belongs("c", saved, {"seed": 1, "config": {"lr": 0.2, "betas": (0.9, 0.999)}})
    with pytest.raises(CheckpointError, match="its seed is 1, this run's is 2"):
        check_belongs("c", saved, saved | {"seed": 2})


def test_weights_of_another_model_are_refused():
    saved = nn.Linear(2, 3).state_dict()
    with pytest.raises(CheckpointError, match=r"its shape of weight is \[3, 2\], this run's is \[3, 4\]"):
        load_model("c", nn.Linear(4, 3), saved)
    with pytest.raises(CheckpointError, match=r"its shape of bias is \[3\], this run's is None"):
        load_model("c", nn.Linear(2, 3, bias=False), saved)
