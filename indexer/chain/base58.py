"""
Base58 of any length, which the RPC uses for instruction data. Keys and signatures go through solders, which is faster.
"""

from operator import mul

from indexer.errors import DataError

_ALPHABET = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = bytes(_ALPHABET.find(letter) & 0xFF for letter in range(256))
# An instruction has ten KiB of data at most, which is fourteen thousand letters; the time grows with their square.
LETTERS_MAX = 65_536
_CHUNK = 64
_POWERS = tuple(58**exponent for exponent in reversed(range(_CHUNK)))
_BASE = 58**_CHUNK


def decode_base58(text: str) -> bytes:
    """
    Return the bytes that `text` stands for.

    Raises:
        DataError: a letter that base58 does not have, or more than LETTERS_MAX of them.
    """
    if len(text) > LETTERS_MAX:
        raise DataError(f"base58 of {len(text)} letters is longer than any data of an instruction")
    try:
        digits = text.encode("ascii").translate(_DIGITS)
    except UnicodeEncodeError:
        digits = b"\xff"
    if 0xFF in digits:
        raise DataError(f"{text[:60]!r} is not base58")
    number = 0
    head = len(digits) % _CHUNK
    if head:
        number = sum(map(mul, _POWERS[-head:], digits))
    for start in range(head, len(digits), _CHUNK):
        number = number * _BASE + sum(map(mul, _POWERS, digits[start : start + _CHUNK]))
    # A leading 1 is a zero byte that the number cannot show.
    zeros = len(digits) - len(digits.lstrip(b"\0"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
