"""Learning rates as pure functions of the update number, which counts from 1."""

from math import cos, pi

from attn.training.config import TrainingConfig


def linear_warmup(step: int, *, warmup_steps: int) -> float:
    """Rise in proportion to the step up to 1 at `warmup_steps`, then stay (adaptive span, all-attention)."""
    return min(1.0, step / warmup_steps)


def inverse_sqrt(step: int, *, warmup_steps: int) -> float:
    """Attention Is All You Need, Sec. 5.3, eq. 3, without its factor d_model**-0.5.

    The peak, at `warmup_steps`, is warmup_steps**-0.5: for a peak rate p, set `lr` to p * warmup_steps**0.5.
    """
    return min(step**-0.5, step * warmup_steps**-1.5)


def cosine(step: int, *, warmup_steps: int, max_steps: int) -> float:
    """Linear warm-up to 1, then half a cosine wave that reaches 0 at `max_steps`."""
    if step <= warmup_steps:
        return step / warmup_steps
    return 0.5 * (1 + cos(pi * (step - warmup_steps) / (max_steps - warmup_steps)))


def learning_rate(
    config: TrainingConfig, step: int, *, lr: float | None = None, schedule: str | None = None
) -> float:
    """The learning rate of update `step`, counted from 1.

    Args:
        config: gives schedule, warm-up, length and the last stretch at a lower rate.
        step: number of the update, from 1 to `config.max_steps`.
        lr, schedule: a parameter group's own values, in place of the config's.
    """
    schedule = config.schedule if schedule is None else schedule
    if schedule == "linear_warmup":
        factor = linear_warmup(step, warmup_steps=config.warmup_steps)
    elif schedule == "inverse_sqrt":
        factor = inverse_sqrt(step, warmup_steps=config.warmup_steps)
    elif schedule == "cosine":
        factor = cosine(step, warmup_steps=config.warmup_steps, max_steps=config.max_steps)
    else:
        factor = 1.0
    if step > config.max_steps - config.final_steps:
        factor *= config.final_factor
    return (config.lr if lr is None else lr) * factor
