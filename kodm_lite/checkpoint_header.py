"""The header of a model's file: what is in it, and what is refused before anything is believed.

A file may come from anywhere, so every field has a rule, and sizes are bounded before memory is allocated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

__all__ = [
    "FORMAT",
    "check_options",
    "check_same",
    "json_text",
    "parse_json",
    "read_header",
    "seal",
    "shorten",
    "shown",
]

#: Version of the file format that is written, and the only one that is read.
FORMAT = 2

KEY = "kodm_lite"  # of our JSON text in the metadata of the file

_MAX_HEADER = 4 * 2**20  # bytes; a reference phase for each of 3 x 128 x 128 pixels takes one million
_MAX_CARD = 2**20  # characters
_MAX_PARAMETERS = 2**27  # four times the largest named size
_MAX_NESTING = 16


def read_header(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our header with all fields checked on their own, and the table of tensors as it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length > size - 8:
        raise ValueError(
            f"got {_guess(start, size)}, expected a whole safetensors file; kodm_lite never loads pickles, because "
            "they can run code; try re-saving with kodm_lite.checkpoints.save"
        )
    if length > _MAX_HEADER:
        raise ValueError(f"header: got {length} bytes, expected at most {_MAX_HEADER}; no model needs more")
    table = parse_json(start[8:] + file.read(length - 1))
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {KEY} or not isinstance(metadata[KEY], str):
        raise ValueError(
            f"metadata: got {shown(metadata)}, expected one text under {KEY!r}: the file is of another program; "
            "try re-saving with kodm_lite.checkpoints.save"
        )
    header = parse_json(metadata[KEY].encode())
    _check_header(header)
    expected = 8 + length + 4 * header["parameters"]
    if size != expected:
        raise ValueError(f"file: got {size} bytes, expected {expected}; try to copy or download it again")
    return header, table


def _guess(start: bytes, size: int) -> str:
    if size < 10:
        return f"a file of {size} bytes"
    if start.startswith(b"PK"):
        return "a zip archive, which is how torch.save writes pickles"
    return "a pickle" if start.startswith(b"\x80") else "a truncated or unknown file"


def parse_json(text: bytes) -> dict[str, Any]:
    """A JSON object without what Python's parser forgives: NaN, huge numbers, duplicate keys, deep nesting."""
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_short_integer,
        )
        json_text(value).encode()  # half a surrogate pair can be escaped in JSON, and never be printed
    except (UnicodeError, json.JSONDecodeError) as error:
        raise ValueError(f"header: got damaged JSON, expected valid JSON ({error})") from error
    except RecursionError:
        value = None
    if not (isinstance(value, dict) and _nested_at_most(_MAX_NESTING, value)):
        raise ValueError(f"header: got no JSON object, or a deep one, expected {_MAX_NESTING} levels at most")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"header: got duplicate keys, {shown([key for key, _ in pairs])}, expected each one once")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"header: got the number {shown(text)}, expected a finite one")
    return value


def _short_integer(text: str) -> int:
    if len(text) > 18:  # more are no 64-bit number
        raise ValueError(f"header: got an integer of {len(text)} digits, expected at most 18")
    return int(text)


def _nested_at_most(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_nested_at_most(levels - 1, x) for x in inner)


class _Rule(NamedTuple):
    """What a value of the header has to be, for the machine and for the reader of its complaint."""

    accepts: Callable[[Any], bool]
    text: str

    def check(self, name: str, value: Any) -> None:
        if not self.accepts(value):
            raise ValueError(f"{name}: got {shown(value)}, expected {self.text}")


def _integer(low: int, high: int) -> _Rule:
    return _Rule(lambda x: type(x) is int and low <= x <= high, f"an integer from {low} to {high}")  # True is none


def _number(low: float, high: float) -> _Rule:
    return _Rule(lambda x: type(x) in (int, float) and low <= x <= high, f"a number from {low} to {high}")


def _list(item: _Rule, shortest: int, longest: int) -> _Rule:
    return _Rule(
        lambda x: isinstance(x, list) and shortest <= len(x) <= longest and all(map(item.accepts, x)),
        f"a list, {shortest} to {longest} times {item.text}",
    )


def _optional(rule: _Rule) -> _Rule:
    return _Rule(lambda x: x is None or rule.accepts(x), f"null or {rule.text}")


_ANY_OBJECT = _Rule(lambda x: isinstance(x, dict), "an object")
_DIGEST = _Rule(lambda x: isinstance(x, str) and len(x) == 64, "64 hexadecimal digits")
_CARD = _Rule(lambda x: isinstance(x, dict) and len(json_text(x)) <= _MAX_CARD, f"an object, {_MAX_CARD} characters")
_FORMAT = _Rule(lambda x: type(x) is int and x == FORMAT, f"format {FORMAT}; try a newer kodm_lite")
_NUMBERS = _list(_number(0, 1e12), 1, 10_000)
_SHARE = _number(0, 1)
_CALIBRATION = _Rule(
    lambda x: (
        isinstance(x, dict)
        and set(x) - {"damping"} == {"times", "second_moments"}
        and _NUMBERS.accepts(x["times"])
        and _NUMBERS.accepts(x["second_moments"])
        and _SHARE.accepts(x.get("damping", 0))
    ),
    "times and second_moments, lists of up to 10000 numbers from 0 to 1e12, and damping, a number from 0 to 1",
)

_FIELDS = {
    "format": _FORMAT,
    "network": _ANY_OBJECT,
    "process": _ANY_OBJECT,
    "shape": _list(_integer(1, 2**20), 1, 3),
    "encoding": _ANY_OBJECT,
    "calibration": _optional(_CALIBRATION),
    "card": _CARD,
    "parameters": _integer(1, _MAX_PARAMETERS),
    "weights_sha256": _DIGEST,
    "header_sha256": _DIGEST,
}

# Bounds on what a description may ask for: at most a second of work before its tensors are compared with the file's.
_OPTIONS = {
    "kind": _Rule(lambda x: isinstance(x, str), "a name"),
    "dim": _integer(1, 2**20),
    "channels": _integer(1, 2**10),
    "width": _integer(1, 2**13),
    "depth": _integer(1, 2**8),
    "multipliers": _list(_integer(1, 32), 1, 8),
    "blocks": _integer(1, 32),
    "patch": _integer(1, 64),
    "attention": _list(_integer(0, 7), 0, 8),
    "periodic_boundary": _Rule(
        lambda x: isinstance(x, bool) or (isinstance(x, list) and len(x) == 2 and all(isinstance(y, bool) for y in x)),
        "true or false, or one of them for each direction",
    ),
    "classes": _optional(_integer(0, 2**16)),
    "spectrum": _list(_number(1e-12, 1e12), 1, 512),
    "oversampling": _number(1, 4),
}


def _check_header(header: dict[str, Any]) -> None:
    _FORMAT.check("format", header.get("format"))  # first: another version may have other fields
    if header.keys() != _FIELDS.keys():
        raise ValueError(f"header: got fields {shown(list(header))}, expected {', '.join(_FIELDS)}")
    for name, rule in _FIELDS.items():
        rule.check(name, header[name])
    if header["header_sha256"] != _header_digest(header):
        raise ValueError("header: got another checksum, expected that of its content; it was damaged or edited")


def check_same(name: str, got: dict[str, Any], expected: dict[str, Any]) -> None:
    """As JSON, where 1 and true differ: Python forgives a flag for a number, and fills in a missing option."""
    if json.dumps(got, sort_keys=True) != json.dumps(expected, sort_keys=True):
        raise ValueError(f"{name}: got {shown(got)}, expected {shown(expected)}")


def check_options(description: dict[str, Any]) -> None:
    """Refuse a description of one of our networks that asks for too much.

    Raises:
        ValueError: says of which option.
    """
    for name, value in description.items():
        if name in _OPTIONS:  # others are none of the network's
            _OPTIONS[name].check(f"network, {name}", value)


def seal(header: dict[str, Any]) -> dict[str, Any]:
    """The header with the digest of all its fields."""
    return {**header, "header_sha256": _header_digest(header)}


def _header_digest(header: dict[str, Any]) -> str:
    fields = {name: value for name, value in header.items() if name != "header_sha256"}
    return hashlib.sha256(json_text(fields).encode()).hexdigest()


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def shown(value: Any) -> str:
    return shorten(repr(value), 60)


def shorten(text: str, length: int) -> str:
    """The start of a text, where a message says what was got, and more of its end, where it says what was expected."""
    start = length // 3
    return text if len(text) <= length else f"{text[:start]} ... {text[start + 5 - length :]}"
