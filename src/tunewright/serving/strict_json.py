"""Parse the JSON of requests strictly: refuse what parsers interpret differently."""

from __future__ import annotations

import json
import math
from typing import Any

from tunewright.errors import shorten
from tunewright.serving.request_limits import Limits, Refused

LARGEST = 2**63


def parse_json(body: bytes, limits: Limits) -> Any:
    """Parse a JSON text in UTF-8.

    Raises:
        Refused: it is no JSON, is nested too deeply or too large, or holds what JSON has not (NaN, lone surrogates) or
            readers disagree about (a key twice, whole numbers of more than 64 bits, numbers beyond any float).
    """
    if body.count(b",") >= limits.values:
        raise Refused(413, f"the JSON has more than {limits.values:,} values", "send less at a time")
    try:
        given = json.loads(
            body.decode(), object_pairs_hook=_object, parse_int=_whole, parse_float=_number, parse_constant=_constant
        )
        if b"\\ud" in body.lower():  # only an escape can give a lone surrogate
            json.dumps(given, ensure_ascii=False).encode()
    except RecursionError:
        raise Refused(400, "the JSON is nested too deeply", "send fewer levels of brackets") from None
    except UnicodeEncodeError:
        raise Refused(400, "a text has a lone surrogate", "escape both halves, or send UTF-8") from None
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 at byte {error.start:,}", "send the JSON as UTF-8") from None
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}", "correct it") from None
    return given


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise Refused(400, f"the key {shorten(twice, 60)!r} is duplicated in an object", "send each key once")
    return found


def _whole(text: str) -> int:
    if len(text) > 20 or not -LARGEST <= (number := int(text)) < LARGEST:
        raise Refused(400, f"{shorten(text, 40)} has more than 64 bits", "send it with a decimal point, or as a text")
    return number


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise Refused(400, f"{shorten(text, 40)} is too large for a number", "send a smaller one")
    return number


def _constant(text: str) -> Any:
    raise Refused(400, f"{text} is not JSON", "send null for a missing value")
