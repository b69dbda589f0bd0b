"""The one JSON reader and writer: strict, and without importing ``json``.

``json`` costs 8 ms to import (it needs ``re``); its C scanner alone, 0.4 ms. The scanner is strict where ``json`` is
lenient, because documents come from strangers: duplicate keys, NaN and Infinity, and trailing text are refused, and
deep nesting ends in an error instead of a crash (RFC 8259 leaves all four to the implementation).
"""

from __future__ import annotations

from _json import encode_basestring, make_encoder, make_scanner, scanstring

from minirun.errors import InvalidDocument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_SIZE = 16 * 1024 * 1024  # bytes: an OCI config.json is some 10 kB; this bounds memory, not use
_SPACE = " \t\n\r"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidDocument(f"duplicate key {key!r}")
            seen.add(key)
    return result


def _no_constant(name: str) -> NoReturn:
    raise InvalidDocument(f"{name} is not JSON")


class _Context:
    """What ``_json.make_scanner`` reads its settings from (the attributes of json.JSONDecoder)."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_no_duplicates)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_no_constant)
    parse_string = staticmethod(scanstring)
    memo: dict[str, str] = {}


_scan = make_scanner(_Context())  # type: ignore[arg-type]  # any object with these attributes will do


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode = make_encoder(None, _refuse, encode_basestring, None, ": ", ", ", False, False, False)


def loads(text: bytes | str, where: str = "JSON") -> Any:
    """Parse one JSON text (UTF-8 bytes or str); ``where`` names it in the error.

    Raises InvalidDocument for anything that is not exactly one strict JSON value.
    """
    if len(text) > MAX_SIZE:
        raise InvalidDocument(where, f"larger than {MAX_SIZE} bytes")
    try:
        string = text.decode("utf-8") if isinstance(text, bytes) else text
        start = len(string) - len(string.lstrip(_SPACE))
        value, end = _scan(string, start)
        if string[end:].strip(_SPACE):
            raise InvalidDocument(where, f"text after the end, at character {end}")
        return value
    except InvalidDocument as error:
        if error.what == where:
            raise
        raise InvalidDocument(where, str(error)) from None
    except StopIteration as error:
        raise InvalidDocument(where, f"no value at character {error.value}") from None
    except RecursionError:
        raise InvalidDocument(where, "nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InvalidDocument(where, f"not UTF-8 at byte {error.start}") from None
    except SystemError:  # _json raises JSONDecodeError only if json.decoder is loaded: load it, and fail again
        import json.decoder  # noqa: F401

        return loads(text, where)
    except ValueError as error:
        raise InvalidDocument(where, str(error)) from None


def dumps(value: Any) -> str:
    """One line of JSON text for dict, list, str, int, float, bool and None; TypeError or ValueError otherwise."""
    return "".join(_encode(value, 0))
