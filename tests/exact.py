"""Exact comparisons in float64, for tests of mechanisms against slow definitions."""

import torch

DOUBLE = torch.float64


def random(*shape, seed=0, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=DOUBLE).to(dtype)


def gradients(outputs, inputs):
    """Of a sum with weights by formula, so that no two entries count the same; sparse ones as dense."""
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=DOUBLE).view(outputs.shape).to(outputs)
    found = torch.autograd.grad((outputs * weights).sum(), inputs)
    return [grad.to_dense() if grad.is_sparse else grad for grad in found]
