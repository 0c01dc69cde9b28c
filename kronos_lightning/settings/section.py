"""Base class of all settings, and the bounded number types that they use.

A section of the configuration is also the argument of the class that it configures, so every setting is declared once.
Values and their explanations are in `conf/`.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Section of the configuration: immutable, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


def as_list(value: str | Sequence[str]) -> list[str]:
    """Return one symbol or several symbols as a list."""
    return [value] if isinstance(value, str) else list(value)
