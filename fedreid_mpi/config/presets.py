"""What a preset sets; a file and the command line go before it."""

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    # What the paper's text says; what it leaves open is as by default.
    "paper": {
        "optimizer": {"schedule": "step"},
        "aggregation": {"probe": "public"},
        "distillation": {"lr": 0.0005},
    },
    # What the authors' public code does where that is not plainly a bug.
    "published": {
        "federation": {"drop_last": True},
        "aggregation": {"bn": "reference"},
        "distillation": {
            "every": 10,
            "lr_factor": 0.01,
            "loss": "mse",
            "normalize": "teachers",
            "batchnorm": "train",
        },
        "clustering": {"max_distance": 0.9},
        "evaluation": {"protocol": "published"},
    },
}
