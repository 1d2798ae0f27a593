import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attn.training import distributed, train
from attn.training.distributed import gather_to_main, is_main, rank, world_size
from tests.training.toy import CarryingWorkload, TableWorkload, ToyWorkload, config, facts

ROOT = Path(__file__).parents[2]


def test_without_torchrun_there_is_one_process():
    with distributed("cpu") as device:
        assert device == torch.device("cpu")
        assert (rank(), world_size(), is_main(), gather_to_main("a")) == (0, 1, True, ["a"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="device='cuda' is not valid: .* use 'cpu'"), distributed("cuda"):
        raise AssertionError("must not get here")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two Gloo processes under torchrun found."""
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.training.toy", "distributed", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


SINGLE = {
    "plain": (ToyWorkload, {"dropout": 0.3}, {"grad_clip_norm": 0.5, "grad_accum_steps": 2}, 1e-6),
    "accumulated": (ToyWorkload, {"dropout": 0.3}, {"grad_accum_steps": 4}, 1e-6),
    "single precision": (ToyWorkload, {"dtype": torch.float32}, {}, 1e-3),
    "carrying": (CarryingWorkload, {"dropout": 0.3}, {"grad_accum_steps": 2}, 1e-6),
    "table": (TableWorkload, {}, {"grad_clip_norm": 0.5, "grad_accum_steps": 4}, 1e-9),
    "table, one piece each": (TableWorkload, {}, {"grad_accum_steps": 2}, 1e-9),
}


@pytest.mark.parametrize("name", SINGLE)
def test_two_processes_equal_one(two_processes, name):
    """Also with dropout, unequal weights of the pieces, state carried by each process, and sparse gradients."""
    kind, model, training, tolerance = SINGLE[name]
    workload = kind(**model)
    alone = facts(train(workload, config(**training), seed=5), workload.model)
    for found, expected in zip(two_processes[name], alone, strict=True):
        found, expected = flat(found), flat(expected)
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_two_processes_resume_exactly(two_processes):
    assert two_processes["carrying, stopped"] == two_processes["carrying"]


def flat(tree, prefix=""):
    """Leaves by their path; None as -1, since approx compares numbers only."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, item in items for path, leaf in flat(item, f"{prefix}/{key}").items()}
    return {prefix: -1 if tree is None else tree}
