import json
from dataclasses import asdict

import pytest

from attn.training import TrainingConfig

MINIMAL = {"max_steps": 10, "batch_size": 4, "optimizer": "adam", "lr": 1e-3}
WRONG = [
    ({"max_steps": 0}, "max_steps=0 .* at least 1"),
    ({"batch_size": 2.5}, "batch_size=2.5 .* integer"),
    ({"grad_accum_steps": True}, "grad_accum_steps=True .* integer"),
    ({"optimizer": "lion"}, "optimizer='lion' .* one of rmsprop_graves, .* sgd"),
    ({"lr": 0.0}, "lr=0.0 .* above 0"),
    ({"lr": float("nan")}, "lr=nan .* above 0"),
    ({"lr": "fast"}, "lr='fast' .* above 0"),
    ({"optimizer": "sgd", "momentum": 1.0}, r"momentum=1.0 .* \[0, 1\)"),
    ({"momentum": 0.9}, "momentum=0.9 .* 0 with optimizer='adam'"),
    ({"optimizer": "sgd", "eps": 1e-8}, "eps=1e-08 .* None with optimizer='sgd'"),
    ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) .* two numbers"),
    ({"betas": 0.9}, "betas=0.9 .* two numbers"),
    ({"eps": 0.0}, "eps=0.0 .* above 0"),
    ({"decay": -0.1}, r"decay=-0.1 .* \[0, 1\)"),
    ({"weight_decay": -1.0}, "weight_decay=-1.0 .* at least 0"),
    ({"schedule": "step"}, "schedule='step' .* constant, linear_warmup, inverse_sqrt, cosine"),
    ({"schedule": "inverse_sqrt"}, "warmup_steps=0 .* at least 1 with schedule='inverse_sqrt'"),
    ({"warmup_steps": -1}, "warmup_steps=-1 .* at least 0"),
    ({"final_steps": 11}, "final_steps=11 .* at most max_steps=10"),
    ({"grad_clip_norm": 0.0}, "grad_clip_norm=0.0 .* None or"),
    ({"grad_clip_per_parameter": True}, "grad_clip_per_parameter=True .* grad_clip_norm"),
    ({"grad_clip_norm": 1.0, "grad_clip_value": 1.0}, "grad_clip_value=1.0 .* None when"),
    ({"precision": "fp8"}, "precision='fp8' .* fp32, bf16, fp16"),
    ({"eval_every": -1}, "eval_every=-1 .* at least 0"),
    ({"checkpoint_every": -1}, "checkpoint_every=-1 .* at least 0"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[str(change) for change, _ in WRONG])
def test_wrong_values_are_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as error:
        TrainingConfig(**(MINIMAL | change))
    assert "\n" not in str(error.value)


def test_a_config_survives_json():
    config = TrainingConfig(**MINIMAL, betas=(0.9, 0.98), eps=1e-9)
    assert TrainingConfig(**json.loads(json.dumps(asdict(config)))) == config


RECIPES = {
    "graves2014ntm": {"optimizer": "rmsprop_graves", "lr": 1e-4, "momentum": 0.9, "grad_clip_value": 10.0},
    "vaswani2017": {"optimizer": "adam", "lr": 512**-0.5, "betas": (0.9, 0.98), "eps": 1e-9,
                    "schedule": "inverse_sqrt", "warmup_steps": 4000},
    "sukhbaatar2019span": {"optimizer": "adagrad", "lr": 0.07, "grad_clip_norm": 0.03,
                           "grad_clip_per_parameter": True, "schedule": "linear_warmup",
                           "warmup_steps": 32000, "final_steps": 20000},
    "lample2019pkm": {"optimizer": "adam", "lr": 2.5e-4 * 4000**0.5, "betas": (0.9, 0.98),
                      "precision": "fp16", "schedule": "inverse_sqrt", "warmup_steps": 4000},
}  # fmt: skip


@pytest.mark.parametrize("paper", RECIPES)
def test_the_recipes_of_the_papers_can_be_said(paper):
    config = TrainingConfig(max_steps=100000, batch_size=64, **RECIPES[paper])
    assert RECIPES[paper].items() <= asdict(config).items()
