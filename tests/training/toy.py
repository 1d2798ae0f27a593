"""Small workloads for tests of the training loop; as a script, runs that a test can kill or distribute."""

import json
import sys
import time

import torch
from torch import nn

from attn.kernels.product_keys import read_values
from attn.training import BatchLoss, TrainingConfig, distributed, generator_for, train
from attn.training.distributed import is_main


class ToyWorkload:
    """Fit a function of random vectors; some targets do not count, so that pieces differ in weight."""

    unit = "sequences"

    def __init__(self, *, batch_size=12, dropout=0.0, dtype=torch.float64, delay=0.0):
        self.batch_size, self.dtype, self.delay = batch_size, dtype, delay
        layers = [nn.Linear(5, 7), nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 1)]
        self.model = nn.Sequential(*layers).to(dtype)
        generator = generator_for(0, "toy weights")
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.copy_(0.5 * torch.randn(weight.shape, generator=generator, dtype=dtype))

    def batch(self, step, part, n_parts):
        time.sleep(self.delay)
        generator = generator_for(1, "toy data", step)
        inputs = torch.randn(self.batch_size, 5, generator=generator, dtype=self.dtype)
        counts = torch.rand(self.batch_size, generator=generator) < 0.7
        counts[:: self.batch_size // 4] = True  # at least one in each of up to 4 pieces
        return tuple(tensor.chunk(n_parts)[part] for tensor in (inputs, inputs.sum(-1).sin(), counts))

    def loss(self, model, batch):
        inputs, targets, counts = batch
        errors = (model(inputs).squeeze(-1) - targets).square()
        return BatchLoss((errors * counts).sum(), int(counts.sum()), len(inputs))

    def evaluate(self, model):
        loss = self.loss(model, self.batch(0, 0, 1))
        return {"mse": float(loss.total) / loss.weight}


class CarryingWorkload(ToyWorkload):
    """Carries a state from batch to batch, each piece its own, as a language model carries its cache."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.carried = {}

    def batch(self, step, part, n_parts):
        return part, super().batch(step, part, n_parts)

    def loss(self, model, batch):
        part, (inputs, targets, counts) = batch
        mixed = 0.5 * inputs + 0.5 * self.carried.get(part, torch.zeros_like(inputs))
        self.carried[part] = mixed
        return super().loss(model, (mixed, targets, counts))

    def evaluate(self, model):
        return {}

    def state_dict(self):
        return {"carried": self.carried}

    def load_state_dict(self, state):
        self.carried = state["carried"]


class TableModel(nn.Module):
    """A linear layer, and rows of a table with sparse gradients; some pieces of a batch read none."""

    def __init__(self, dtype):
        super().__init__()
        self.linear = nn.Linear(5, 1)
        self.table = nn.Parameter(torch.empty(9, 1, dtype=dtype))
        self.to(dtype)

    def forward(self, inputs):
        outputs = self.linear(inputs)
        if inputs[0, 0] < 0:
            return outputs
        slots = (4 * inputs[:, :3].abs()).long().clamp(max=8)
        return outputs + read_values(self.table, slots, inputs[:, 2:].softmax(-1))


class TableWorkload(ToyWorkload):
    """Part of the model is a table that is updated by rows, as a product-key memory's values are."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        weights = generator_for(0, "table weights")
        self.model = TableModel(self.dtype)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=weights, dtype=self.dtype))

    def parameter_groups(self):
        model = self.model
        return [{"params": model.linear.parameters()}, {"params": [model.table], "optimizer": "row_adam"}]


def config(**changes):
    """A short run with an optimiser that has state of every kind."""
    settings = {"max_steps": 12, "batch_size": 12, "optimizer": "adam", "lr": 0.02, "eval_every": 4}
    return TrainingConfig(**(settings | changes))


def facts(result, model):
    """All of a result that does not depend on the clock, as JSON with every digit."""
    history = [{k: value for k, value in entry.items() if k != "seconds"} for entry in result.history]
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    return json.loads(json.dumps([result.step, result.seen, result.first_losses, history, weights]))


def _run_to_be_killed(checkpoint):
    train(ToyWorkload(dropout=0.3, delay=0.01), config(max_steps=400, checkpoint_every=0.0), seed=5,
          checkpoint_path=checkpoint)  # fmt: skip


def _run_distributed(folder):
    """Plain, single precision, carrying, and carrying with a stop on the way; rank 0 writes the facts."""
    found = {}
    with distributed("cpu"):
        for name, make, changes in (
            ("plain", lambda: ToyWorkload(dropout=0.3), {"grad_clip_norm": 0.5}),
            ("accumulated", lambda: ToyWorkload(dropout=0.3), {"grad_accum_steps": 2}),
            ("single precision", lambda: ToyWorkload(dtype=torch.float32), {}),
            ("carrying", lambda: CarryingWorkload(dropout=0.3), {}),
            ("table", TableWorkload, {"grad_clip_norm": 0.5, "grad_accum_steps": 2}),
            ("table, one piece each", TableWorkload, {}),
        ):
            workload = make()
            found[name] = facts(train(workload, config(**changes), seed=5), workload.model)
        path = f"{folder}/checkpoint"
        train(CarryingWorkload(dropout=0.3), config(), seed=5, checkpoint_path=path, stop_after=5)
        workload = CarryingWorkload(dropout=0.3)
        result = train(workload, config(), seed=5, checkpoint_path=path)
        found["carrying, stopped"] = facts(result, workload.model)
        if is_main():
            with open(f"{folder}/found.json", "w") as file:
                json.dump(found, file)


if __name__ == "__main__":
    {"killed": _run_to_be_killed, "distributed": _run_distributed}[sys.argv[1]](sys.argv[2])
