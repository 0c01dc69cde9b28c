"""JSON files from disk or a hub: read once, in bounded memory, and checked against a model of their content."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .dates import as_utc, parse_interval
from .text import printable

LARGEST = 64 * 2**20  # bytes of a JSON file
SHOWN = 60  # characters of a wrong value in a message


class Stored(BaseModel):
    """Content of a JSON file; keys that are not declared are kept as they are, because other versions wrote them."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    def content(self) -> dict[str, Any]:
        """Return the keys of the file with their checked values."""
        return self.model_dump(exclude_unset=True, by_alias=True)


def _is_date(text: str) -> str:
    as_utc(text)
    return text


def _is_interval(text: str) -> str:
    parse_interval(text)
    return text


Date = Annotated[str, AfterValidator(_is_date)]
IntervalName = Annotated[str, AfterValidator(_is_interval)]
Metric = Annotated[int, Field(ge=-(2**53), le=2**53)] | float
File = TypeVar("File", bound=BaseModel)


def read_stored(path: Path, model: type[File], error: Callable[[str], Exception], remedy: str) -> File | None:
    """Read a JSON file; return None if there is none.

    Args:
        path: the file.
        model: model of its content.
        error: class of the raised error.
        remedy: what a user can do about a damaged file.

    Raises:
        error: the path is not a regular file, or its content does not fit; the message names the file and the field.
    """
    try:
        if not path.is_file():
            if path.exists():
                raise error(f"{path}: not a regular file; {remedy}")
            return None
        if (size := path.stat().st_size) > LARGEST:
            raise error(f"{path}: {size} bytes, more than such a file can have; {remedy}")
        return model.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}); {remedy}") from problem
    except ValidationError as problem:
        raise error(f"{path}: damaged ({explain(problem)}); {remedy}") from None


def explain(problem: ValidationError) -> str:
    """Return the first error of a validation as text: the field, the reason and the value."""
    first = problem.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return reason
    value = "" if first["type"] == "missing" else f" (it is {_short(first['input'])})"
    more = f", and {problem.error_count() - 1} more" if problem.error_count() > 1 else ""
    return printable(f"{field}: {reason}{value}{more}".removeprefix(": ").replace("\n", " "))


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
