"""
Parameters of a request, checked as a validator checks them and refused in its words.

A method takes what it needs from `Params` one by one; each taker raises an RpcError with code -32602.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from solders.pubkey import Pubkey
from solders.signature import Signature

from localnet.chain import Commitment
from localnet.rpc.errors import RpcError, invalid_params

COMMITMENTS: tuple[Commitment, ...] = ("processed", "confirmed", "finalized")
U64_MAX = 2**64 - 1

Choice = TypeVar("Choice", bound=str)


def described(value: Any) -> str:
    """Return a JSON value as serde names it in "invalid type: ..."."""
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f'string "{value[:200]}"'
        case list():
            return "sequence"
        case _:
            return "map"


def wrong_type(value: Any, expected: str) -> RpcError:
    """Return the refusal of a value of another type."""
    return invalid_params(f"Invalid params: invalid type: {described(value)}, expected {expected}.")


def as_text(value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise wrong_type(value, "a string")
    return value


def as_u64(value: Any, kind: str = "u64") -> int:
    """Return an unsigned integer; `kind` is the type's name in the refusal."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(value, kind)
    if not 0 <= value <= U64_MAX:
        raise invalid_params(f"Invalid params: invalid value: integer `{value}`, expected {kind}.")
    return value


def as_bool(value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise wrong_type(value, "a boolean")
    return value


def as_choice(value: Any, choices: Sequence[Choice]) -> Choice:
    """Return one of `choices`."""
    text = as_text(value)
    for choice in choices:
        if text == choice:
            return choice
    expected = ", ".join(f"`{choice}`" for choice in choices)
    raise invalid_params(f"Invalid params: unknown variant `{text[:200]}`, expected one of {expected}.")


def as_pubkey(value: Any) -> bytes:
    """Return the 32 bytes of a base58 address."""
    text = as_text(value)
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError as error:
        raise invalid_params(f"Invalid param: {_base58_fault(error)}") from error


def as_signature(value: Any) -> bytes:
    """Return the 64 bytes of a base58 signature."""
    text = as_text(value)
    try:
        return bytes(Signature.from_string(text))
    except ValueError as error:
        raise invalid_params(f"Invalid param: {_base58_fault(error)}") from error


def _base58_fault(error: ValueError) -> str:
    return "WrongSize" if "wrong size" in str(error).lower() else "Invalid"


class Config:
    """The optional object that ends most requests."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def __contains__(self, name: str) -> bool:
        return self._given.get(name) is not None

    def raw(self, name: str) -> Any:
        """Return a member unchecked, None where it is absent."""
        return self._given.get(name)

    def commitment(self, default: Commitment = "finalized") -> Commitment:
        """Return the commitment."""
        value = self._given.get("commitment")
        return default if value is None else as_choice(value, COMMITMENTS)

    def u64(self, name: str) -> int | None:
        """Return an unsigned integer or None."""
        value = self._given.get(name)
        return None if value is None else as_u64(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        value = self._given.get(name)
        return default if value is None else as_bool(value)

    def choice(self, name: str, choices: Sequence[Choice], default: Choice) -> Choice:
        """Return one of `choices`."""
        value = self._given.get(name)
        return default if value is None else as_choice(value, choices)

    def signature(self, name: str) -> bytes | None:
        """Return a signature or None."""
        value = self._given.get(name)
        return None if value is None else as_signature(value)

    def mapping(self, name: str) -> "Config | None":
        """Return an object within, or None."""
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise wrong_type(value, f"struct {name}")
        return Config(value)


class Params:
    """The positional parameters of a request; null counts as absent where a parameter may be."""

    def __init__(self, given: Any, *, required: int, allowed: int) -> None:
        """
        Args:
            given: `params` of the request; None where it has none.
            required: how many the method cannot do without.
            allowed: how many it can take.
        """
        if given is None:
            given = []
        if not isinstance(given, list):
            raise invalid_params("`params` should be an array")
        if len(given) < required:
            raise invalid_params(f"`params` should have at least {required} argument(s)")
        if len(given) > allowed:
            if allowed == 0:
                raise RpcError(-32602, "Invalid parameters: No parameters were expected", str(given)[:200])
            raise invalid_params(f"Invalid params: invalid length {len(given)}, expected fewer elements in array.")
        self._given: list[Any] = given

    def raw(self, position: int) -> Any:
        """Return a parameter unchecked, None where it is absent."""
        return self._given[position] if position < len(self._given) else None

    def text(self, position: int) -> str:
        """Return a string."""
        return as_text(self.raw(position))

    def u64(self, position: int) -> int:
        """Return an unsigned integer."""
        return as_u64(self.raw(position))

    def pubkey(self, position: int) -> bytes:
        """Return an address, 32 bytes."""
        return as_pubkey(self.raw(position))

    def signature(self, position: int) -> bytes:
        """Return a signature, 64 bytes."""
        return as_signature(self.raw(position))

    def list_of(self, position: int, *, at_most: int) -> list[Any]:
        """Return an array of at most so many elements."""
        value = self.raw(position)
        if not isinstance(value, list):
            raise wrong_type(value, "a sequence")
        if len(value) > at_most:
            raise invalid_params(f"Too many inputs provided; max {at_most}")
        return value

    def config(self, position: int, struct: str) -> Config:
        """Return the optional object; `struct` is its type's name in the refusal."""
        value = self.raw(position)
        if value is None:
            return Config({})
        if not isinstance(value, dict):
            raise wrong_type(value, f"struct {struct}")
        return Config(value)
