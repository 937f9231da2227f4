"""
The three kinds of failure, sorted by what the caller does next.

A message says what was wrong, with the value, and what to do. It never carries a secret. Commands print it as one
sentence and leave with the exit code beside it; a traceback is for our own bugs only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class CapstanError(Exception):
    """A failure with a sentence for the operator. Raised only through its three kinds below."""

    exit_code = 1


class RetryableError(CapstanError):
    """The same call may succeed later: call again, with backoff. `retry_after_s` is the server's own wish, if any."""

    exit_code = 75

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DataError(CapstanError):
    """Chain, IDL and schema disagree: stop, and let a person look."""

    exit_code = 65


class SettingsError(CapstanError):
    """The process cannot start as it was told to: the operator must act."""

    exit_code = 78


class Validation(Protocol):
    """What pydantic says about values that are none."""

    def errors(self, *, include_url: bool = True, include_input: bool = True) -> Sequence[Mapping[str, Any]]: ...


def settings_refusal(whose: str, error: Validation) -> SettingsError:
    """
    Return the first of pydantic's complaints as one sentence, which never shows the value: it may be a secret.

    Args:
        whose: what the sentence begins with, such as "the setting".
    """
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    return SettingsError(f"{whose} {name} is not valid: {_complaint(first)}")


def _complaint(first: Mapping[str, Any]) -> str:
    known = first.get("ctx", {})
    match first["type"]:
        case "value_error":
            return str(known["error"])
        case "greater_than_equal":
            return f"it must be {known['ge']} or more"
        case "greater_than":
            return f"it must be more than {known['gt']}"
        case "less_than_equal":
            return f"it must be {known['le']} or less"
        case "less_than":
            return f"it must be less than {known['lt']}"
        case "int_parsing" | "int_type" | "int_from_float":
            return "it must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "it must be a number"
        case "bool_parsing" | "bool_type":
            return "it must be true or false"
        case "path_type":
            return "it must be a path"
        case "string_type":
            return "it must be a text"
    text = str(first["msg"])
    return text[:1].lower() + text[1:]
