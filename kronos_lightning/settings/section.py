"""Base class of all settings, and the bounded numbers that they are made of.

A section of the configuration is the argument of the class it configures: it is written once. Values and their
explanations are in `conf/`.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Part of the configuration: immutable, without unknown keys and silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


def as_list(value: str | list[str]) -> list[str]:
    """One symbol or several, as a list."""
    return [value] if isinstance(value, str) else list(value)
