"""What the sections of the configuration have in common: their base, and the types of their keys."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict


def _in_one_line(text: Any) -> Any:  # noqa: ANN401 (the type of a key)
    if re.search(r"[\x00-\x1f\x7f-\x9f]", str(text)):
        raise ValueError(f"{str(text)!r} holds control characters")
    return text


Text = Annotated[str, AfterValidator(_in_one_line)]
Line = Annotated[Text, Field(min_length=1)]
File = Annotated[Path, Strict(False), AfterValidator(_in_one_line)]
Listed = Strict(False)
"""Marks a tuple, which TOML writes as an array; everything else must come as the type it has."""

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A table of the configuration: no unknown keys, no values of another type; values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
