"""What a training run is told: one frozen, validated dataclass."""

from dataclasses import dataclass
from math import isfinite

OPTIMIZERS = ("rmsprop_graves", "rmsprop", "adam", "adamw", "adagrad", "sgd")
SCHEDULES = ("constant", "linear_warmup", "inverse_sqrt", "cosine")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train: optimiser, schedule, clipping, precision and how often to look.

    Raises:
        ValueError: if a field is outside the range its line states.
    """

    max_steps: int  # optimiser updates, at least 1
    batch_size: int  # units (sequences or tokens) per update, after accumulation, over all devices
    optimizer: str  # one of OPTIMIZERS; rmsprop_graves is Graves 2013, the NTM's
    lr: float  # learning rate, or what the schedule multiplies; above 0
    grad_accum_steps: int = 1  # equal parts one device splits its share of an update into
    momentum: float = 0.0  # in [0, 1); of rmsprop_graves, rmsprop and sgd
    betas: tuple[float, float] = (0.9, 0.999)  # Adam's averaging constants, each in [0, 1)
    eps: float | None = None  # keeps denominators from 0; None is the optimiser's own default
    decay: float = 0.95  # averaging constant of the two RMSprops, in [0, 1)
    weight_decay: float = 0.0  # L2 gradient term; decoupled in adamw
    schedule: str = "constant"  # one of SCHEDULES, see attn.training.schedules
    warmup_steps: int = 0  # updates over which the rate rises; at least 1 for warm-up schedules
    final_steps: int = 0  # last updates, run at final_factor of the rate the schedule gives
    final_factor: float = 0.1  # what the last final_steps updates multiply the rate by
    grad_clip_norm: float | None = None  # largest gradient norm; None does not clip
    grad_clip_per_parameter: bool = False  # grad_clip_norm holds for each tensor by itself
    grad_clip_value: float | None = None  # largest absolute gradient component; None does not clip
    precision: str = "fp32"  # one of PRECISIONS; the lower two run under autocast, weights stay fp32
    eval_every: int = 0  # updates between evaluations; 0 evaluates only at the start and the end
    checkpoint_every: float = 30.0  # seconds between checkpoints; 0 writes one after every update

    def __post_init__(self):
        if isinstance(self.betas, list):  # as JSON and YAML give it
            object.__setattr__(self, "betas", tuple(self.betas))
        self._check_counts()
        self._check_choices()
        self._check_numbers()

    def _check_counts(self):
        least = {"max_steps": 1, "batch_size": 1, "grad_accum_steps": 1, "warmup_steps": 0, "final_steps": 0}
        for name, lowest in {**least, "eval_every": 0}.items():
            value = getattr(self, name)
            _require(type(value) is int and value >= lowest, name, value, f"an integer of at least {lowest}")
        wanted = f"at most max_steps={self.max_steps}"
        _require(self.final_steps <= self.max_steps, "final_steps", self.final_steps, wanted)
        if self.schedule in ("linear_warmup", "inverse_sqrt"):
            wanted = f"at least 1 with schedule={self.schedule!r}"
            _require(self.warmup_steps >= 1, "warmup_steps", self.warmup_steps, wanted)

    def _check_choices(self):
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            value = getattr(self, name)
            _require(value in choices, name, value, "one of " + ", ".join(choices))
        if self.optimizer not in ("rmsprop_graves", "rmsprop", "sgd"):
            _require(self.momentum == 0, "momentum", self.momentum, f"0 with optimizer={self.optimizer!r}")
        if self.optimizer == "sgd":
            _require(self.eps is None, "eps", self.eps, "None with optimizer='sgd'")

    def _check_numbers(self):
        _require(_is_number(self.lr) and self.lr > 0, "lr", self.lr, "a finite number above 0")
        for name in ("weight_decay", "final_factor", "checkpoint_every"):
            value = getattr(self, name)
            _require(_is_number(value) and value >= 0, name, value, "a finite number of at least 0")
        for name in ("eps", "grad_clip_norm", "grad_clip_value"):
            value = getattr(self, name)
            valid = value is None or (_is_number(value) and value > 0)
            _require(valid, name, value, "None or a finite number above 0")
        for name in ("momentum", "decay"):
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value < 1, name, value, "a number in [0, 1)")
        valid = isinstance(self.betas, tuple) and len(self.betas) == 2
        valid = valid and all(_is_number(beta) and 0 <= beta < 1 for beta in self.betas)
        _require(valid, "betas", self.betas, "two numbers in [0, 1)")
        if self.grad_clip_norm is None:
            wanted = "False unless grad_clip_norm is set"
            _require(self.grad_clip_per_parameter is False, "grad_clip_per_parameter",
                     self.grad_clip_per_parameter, wanted)  # fmt: skip
        else:
            wanted = "None when grad_clip_norm is set"
            _require(self.grad_clip_value is None, "grad_clip_value", self.grad_clip_value, wanted)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _require(condition: bool, name: str, value, valid: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value!r} is not valid: it must be {valid}.")
