"""
The three kinds of failure, sorted by what the caller does next.

A message says what was wrong, with the value, and what to do. It never carries a secret. Commands print it as one
sentence and leave with the exit code beside it; a traceback is for our own bugs only.
"""


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
