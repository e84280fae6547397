"""The table ``[server]``: what the server makes of the clients' mean."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from fedreid_mpi.config.types import Positive, Section
from fedreid_mpi.records import ServerOptimizer

ADAPTIVE = ("adam", "yogi")
"""Optimisers that move each parameter by about their rate, however little the clients moved it."""

ADAPTIVE_RATE = 0.01


class Server(Section):
    """What the server makes of the clients' mean: its distance from the round's model is a gradient."""

    optimizer: ServerOptimizer = Field("none", description="none: the mean is the new model")
    lr: Positive = Field(
        1.0, description=f"learning rate; of adam and yogi {ADAPTIVE_RATE:g} where none is given"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="momentum; of adam and yogi, decay of the first moment"
    )
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="decay of adam's and yogi's second moment"
    )
    epsilon: Positive = Field(1e-3, description="keeps adam and yogi from dividing by very small numbers")

    @model_validator(mode="before")
    @classmethod
    def _rate_of_adaptive_optimizers(cls, content: Any) -> Any:  # noqa: ANN401 (whatever stands in a file)
        """Fill in a rate that they can be used with: steps of about 1 are larger than most weights."""
        if isinstance(content, dict) and content.get("optimizer") in ADAPTIVE:
            return {"lr": ADAPTIVE_RATE, **content}
        return content
