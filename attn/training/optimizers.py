"""Optimisers by name, Graves' RMSprop, and gradient clipping."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from attn.training.config import OPTIMIZERS, SCHEDULES, TrainingConfig
from attn.training.sparse_optimizer import RowAdam, coalesced


class GravesRMSprop(torch.optim.Optimizer):
    """RMSprop with centred second moment and momentum (Graves 2013, arXiv:1308.0850, eqs. 38-45).

        n     <- decay n + (1 - decay) g^2
        m     <- decay m + (1 - decay) g
        delta <- momentum delta - lr g / sqrt(n - m^2 + eps)
        w     <- w + delta

    Unlike `torch.optim.RMSprop(centered=True)`, `eps` stands inside the root and the momentum averages
    updates that already carry their learning rate.

    Args:
        params: parameters or parameter groups, with dense gradients.
        lr: learning rate, above 0 (1e-4 in the paper).
        decay: averaging constant of both moments, in [0, 1).
        momentum: share of the last update that is repeated, in [0, 1).
        eps: added to the variance, above 0.
        weight_decay: times the weight, added to the gradient; at least 0.

    Raises:
        ValueError: if a constant is outside its range.
    """

    def __init__(
        self,
        params,
        lr: float = 1e-4,
        decay: float = 0.95,
        momentum: float = 0.9,
        eps: float = 1e-4,
        weight_decay: float = 0.0,
    ):
        for name, value in (("lr", lr), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"{name}={value!r} is not valid: it must be above 0.")
        for name, value in (("decay", decay), ("momentum", momentum)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value!r} is not valid: it must be in [0, 1).")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay={weight_decay!r} is not valid: it must be at least 0.")
        defaults = {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in _by_device_and_dtype(p for p in group["params"] if p.grad is not None):
                self._update(weights, group)
        return loss

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        grads = [weight.grad for weight in weights]
        for weight in weights:
            if not self.state[weight]:
                for name in ("square_avg", "grad_avg", "delta"):
                    self.state[weight][name] = torch.zeros_like(weight)
        square_avg, grad_avg, delta = (
            [self.state[weight][name] for weight in weights] for name in ("square_avg", "grad_avg", "delta")
        )
        decay = group["decay"]
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, weights, alpha=group["weight_decay"])
        torch._foreach_mul_(square_avg, decay)
        torch._foreach_addcmul_(square_avg, grads, grads, value=1 - decay)
        torch._foreach_lerp_(grad_avg, grads, 1 - decay)
        root = torch._foreach_addcmul(square_avg, grad_avg, grad_avg, value=-1)
        # Rounding can leave a large, steady gradient a variance below -eps.
        torch._foreach_clamp_min_(root, 0)
        torch._foreach_add_(root, group["eps"])
        torch._foreach_sqrt_(root)
        torch._foreach_mul_(delta, group["momentum"])
        torch._foreach_addcdiv_(delta, grads, root, value=-group["lr"])
        torch._foreach_add_(weights, delta)


def _by_device_and_dtype(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Lists that one foreach call can take at full speed."""
    groups = defaultdict(list)
    for weight in weights:
        groups[weight.device, weight.dtype].append(weight)
    return groups.values()


def build_optimizers(config: TrainingConfig, groups: Iterable) -> list[torch.optim.Optimizer]:
    """The optimisers of a run: one, unless a parameter group asks for another.

    Args:
        config: names the optimiser and its constants.
        groups: parameters, or dicts with `params` and, where they differ from the config, `lr`, `schedule`,
            `weight_decay`, `betas` (Adam's only) or `optimizer` (any name the config knows, or "row_adam" for
            tables with sparse gradients). Each group of the result holds `base_lr` and `schedule` for
            `learning_rate`.

    Raises:
        ValueError: for an empty list of parameters or a group with an unknown optimiser, schedule or key.
    """
    groups = list(groups)
    if not all(isinstance(group, dict) for group in groups):
        groups = [{"params": groups}]
    by_name = defaultdict(list)
    for group in groups:
        _check_group(group)
        settings = {"base_lr": group.get("lr", config.lr), "schedule": config.schedule, **group}
        settings["params"] = list(group["params"])
        by_name[settings.pop("optimizer", config.optimizer)].append(settings)
    if not any(group["params"] for members in by_name.values() for group in members):
        raise ValueError("parameters=[] is not valid: at least one parameter must be trained.")
    return [_build(name, members, config) for name, members in by_name.items()]


def _check_group(group: dict[str, Any]) -> None:
    known = ("params", "lr", "schedule", "weight_decay", "betas", "optimizer")
    if unknown := set(group) - set(known):
        valid = ", ".join(known)
        raise ValueError(f"parameter group key {min(unknown)!r} is not valid: it must be one of {valid}.")
    for key, choices in (("optimizer", (*OPTIMIZERS, "row_adam")), ("schedule", SCHEDULES)):
        if key in group and group[key] not in choices:
            valid = ", ".join(choices)
            raise ValueError(f"parameter group {key}={group[key]!r} is not valid: it must be one of {valid}.")


def _build(name: str, groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    eps = {} if config.eps is None else {"eps": config.eps}
    common = {"lr": config.lr, "weight_decay": config.weight_decay}
    match name:
        case "rmsprop_graves":
            return GravesRMSprop(groups, decay=config.decay, momentum=config.momentum, **common, **eps)
        case "rmsprop":
            constants = {"alpha": config.decay, "momentum": config.momentum}
            return torch.optim.RMSprop(groups, **constants, foreach=True, **common, **eps)
        case "adam":
            return torch.optim.Adam(groups, betas=config.betas, fused=True, **common, **eps)
        case "adamw":
            return torch.optim.AdamW(groups, betas=config.betas, fused=True, **common, **eps)
        case "adagrad":
            return torch.optim.Adagrad(groups, foreach=True, **common, **eps)
        case "sgd":
            return torch.optim.SGD(groups, momentum=config.momentum, fused=True, **common)
    groups = [{key: value for key, value in group.items() if key != "weight_decay"} for group in groups]
    return RowAdam(groups, lr=config.lr, betas=config.betas, **eps)


def scale_gradients(grads: list[Tensor], factor: float | Tensor) -> None:
    """Multiply gradients in place by `factor`."""
    if isinstance(factor, Tensor):
        torch._foreach_mul_(grads, factor.to(grads[0].dtype))  # another dtype would be a kernel a tensor
    elif factor != 1.0:
        torch._foreach_mul_(grads, factor)


def clip_gradients(grads: list[Tensor], config: TrainingConfig) -> Tensor:
    """Clip gradients in place as the config says and return their total norm from before (0-dimensional).

    Clipping components copes with any size: where the norm from before overflows, that of the clipped gradient is
    returned. It is not a number only if a component is.
    """
    norms = torch._foreach_norm(grads)
    total = torch.linalg.vector_norm(torch.stack(norms))
    if config.grad_clip_value is not None:
        torch._foreach_clamp_max_(grads, config.grad_clip_value)
        torch._foreach_clamp_min_(grads, -config.grad_clip_value)
        clipped = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        return torch.where(total.isfinite(), total, clipped)
    if config.grad_clip_norm is not None:
        bounds = torch.stack(norms) if config.grad_clip_per_parameter else total
        factors = (config.grad_clip_norm / bounds).clamp(max=1.0)
        torch._foreach_mul_(grads, list(factors) if config.grad_clip_per_parameter else factors)
    return total


def dense_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients there are, for work in place; of a sparse one, the rows it touches, duplicates summed."""
    grads = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = coalesced(parameter.grad)
            grads.append(parameter.grad._values())
        else:
            grads.append(parameter.grad)
    return grads
