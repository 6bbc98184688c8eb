"""Values that JSON and OTLP can hold, made from whatever an application logs.

Nothing raises here, but for the application's time limit, which may strike anywhere.
"""

from __future__ import annotations

import math
from typing import Any

from otel_shim._guard import is_time_limit

_DEPTH = 6
"""Levels of a structure that are kept; what is deeper, or contains itself, ends as text."""
_LONGEST = 8192
"""Characters of the text of an object that is no text itself."""


def exportable(value: Any, depth: int = _DEPTH) -> Any:
    """The value itself where both formats can hold it; else the nearest that they can, else its text."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return encodable(value)
    if kind is int or kind is float:
        return value if _fits(value) else written(value)
    if depth > 0 and kind is dict:
        return {_key(key): exportable(item, depth - 1) for key, item in value.items()}
    if depth > 0 and kind in (list, tuple, set, frozenset):
        return [exportable(item, depth - 1) for item in value]
    return written(value)


def _fits(number: float) -> bool:
    """Whether a number is one of JSON, and of 64 bits where it is an integer."""
    return -(1 << 63) <= number < 1 << 63 if type(number) is int else math.isfinite(number)


def encodable(text: str) -> str:
    """Text without lone surrogates, which no encoder accepts."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _key(key: Any) -> str:
    return encodable(key) if type(key) is str else written(key)


def written(value: Any) -> str:
    """The text of an object, or its type where it cannot be written."""
    try:
        return encodable(str(value)[:_LONGEST])
    except Exception as error:  # code of the application, which may do anything
        if is_time_limit(error):
            raise
        return f"<{type(value).__name__}>"
