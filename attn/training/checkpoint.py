"""Checkpoints: one safetensors file each, written whole or not at all, loaded without running any code."""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

FORMAT = "attn-checkpoint-1"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or belongs to another run."""


def save_checkpoint(path: str | os.PathLike, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that a kill at any moment leaves the old file or the new one.

    Args:
        path: file to write; its folder is created.
        state: nested dicts (keys strings or integers) and lists of tensors and JSON values. A tensor that
            occurs twice, such as a tied weight, is stored once.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, "", tensors, {})
    temporary = path.with_name(f"{path.name}.tmp")  # one name, so that what a kill leaves is overwritten
    try:
        metadata = {"format": FORMAT, "state": json.dumps(tree)}
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)  # the rename itself must survive a power cut, too
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, tensors on the CPU.

    Raises:
        CheckpointError: if the file cannot be read, is cut or is not one of ours.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                found = metadata.get("format")
                raise CheckpointError(f"{path} is not a checkpoint: its format is {found!r}, not {FORMAT!r}.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        return _unpack(json.loads(metadata["state"]), tensors)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({error}): delete it to start the run again."
        ) from error


def check_belongs(path: str | os.PathLike, saved: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse a checkpoint whose description, a nested dict of JSON values, differs from the run's.

    Raises:
        CheckpointError: naming the first field that differs, with both values.
    """
    saved, expected = _flat(saved), _flat(json.loads(json.dumps(expected)))
    for name in sorted({*saved, *expected}):
        if saved.get(name) != expected.get(name):
            raise CheckpointError(
                f"{path} belongs to another run: its {name} is {saved.get(name)!r}, this run's is "
                f"{expected.get(name)!r}; choose another path or delete the file."
            )


def load_model(path: str | os.PathLike, model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Load weights into `model`, refusing those of another model.

    Raises:
        CheckpointError: naming the first tensor that is missing, unknown or of another shape.
    """
    own = {name: list(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    check_belongs(path, {"shape of": {k: list(v.shape) for k, v in saved.items()}}, {"shape of": own})
    model.load_state_dict(saved)


def _pack(value, name: str, tensors: dict[str, Tensor], known: dict[tuple, str]):
    """`value` as JSON; its tensors go to `tensors` under the path `name` and leave a reference."""
    if isinstance(value, Tensor):
        memory = (value.device, value.untyped_storage().data_ptr(), value.storage_offset())
        place = (*memory, value.shape, value.stride(), value.dtype)
        if place not in known:
            known[place] = name
            tensors[name] = _whole(value.detach())
        return {"tensor": known[place]}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, int | str) or isinstance(key, bool):
                raise ValueError(f"checkpoint key {key!r} is not valid: it must be a string or an integer.")
        return {"items": [[key, _pack(item, f"{name}/{key}", tensors, known)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{name}/{index}", tensors, known) for index, item in enumerate(value)]
    return value


def _unpack(value, tensors: dict[str, Tensor]):
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _unpack(item, tensors) for key, item in value["items"]}
    return value


def _whole(tensor: Tensor) -> Tensor:
    """A contiguous CPU tensor that fills its storage; safetensors refuses views into shared memory."""
    tensor = tensor.cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _flat(tree, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.strip(): tree}
    return {name: leaf for key, item in tree.items() for name, leaf in _flat(item, f"{prefix} {key}").items()}


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
