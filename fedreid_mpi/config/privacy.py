"""The table ``[privacy]``: what bounds that which leaves a client."""

from typing import Annotated

from pydantic import Field

from fedreid_mpi.config.types import NonNegative, Section


class Privacy(Section):
    """What bounds that which leaves a client."""

    secure_aggregation: bool = Field(
        False, description="mask what leaves a client rank, so that the server sees sums alone"
    )
    neighbours: int = Field(
        4, ge=0, multiple_of=2, description="client ranks that each one shares masks with, even; 0 = all"
    )
    clip: Annotated[float, Field(ge=0, lt=2**8)] = Field(
        0.0,
        description="differential privacy: L2 norm that a client's update of the shared parameters is scaled "
        "down to; 0 = off",
    )
    statistics_clip: Annotated[float, Field(gt=0, lt=2**20)] = Field(
        1.0, description="the same for its update of BatchNorm's statistics"
    )
    noise_multiplier: NonNegative = Field(
        0.0, description="standard deviation of the noise on the sum of updates, as a multiple of the clip"
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-5, description="δ, the probability that ε does not bound what is learnt about a client"
    )
