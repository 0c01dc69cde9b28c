"""Settings that decide what a candle file leaves open."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from kronos_lightning.settings import Section

from .features import FEATURES


class LayoutSection(Section):
    """Layout of a candle file; null = read from the file, and refused where it is ambiguous there."""

    columns: dict[str, str | Annotated[int, Field(ge=1)] | None] | None = None
    decimal: Literal["point", "comma"] | None = None
    date_order: Literal["day_first", "month_first"] | None = None
    timezone: str | None = None
    stamp: Literal["open", "close"] | None = None

    @field_validator("columns")
    @classmethod
    def _roles(cls, columns: dict[str, str | int | None] | None) -> dict[str, str | int | None] | None:
        roles = ["timestamps", *FEATURES]
        for role, name in (columns or {}).items():
            if role not in roles:
                raise ValueError(f"{role!r} is none of {', '.join(roles)}; write data.columns={{volume: Vol}}")
            if name is None and role not in ("volume", "amount"):
                raise ValueError(f"{role} is required; only volume and amount may be null (= not used)")
        return columns

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (KeyError, ValueError, OSError) as error:
                raise ValueError(f"{zone!r} is no time zone; write one like UTC or Europe/Berlin") from error
        return zone

    @property
    def key(self) -> str:
        """Text that is equal for equal settings."""
        return self.model_dump_json(include=set(LayoutSection.model_fields))
