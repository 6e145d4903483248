"""TOML text of plain values, for the files we write, and read from whoever wrote it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

_WHOLE_NUMBERS = range(-(1 << 63), 1 << 63)
"""Those that TOML promises to hold; a longer one could neither be checked nor told again."""


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML text's content; it may come from anybody.

    Raises:
        ValueError: not TOML, nested too deeply, or with a whole number beyond 64 bits; the message says which.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # more digits than Python reads
        raise ValueError("a number has too many digits") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    pending: list[object] = [content]
    while pending:
        match pending.pop():
            case int() as number if number not in _WHOLE_NUMBERS:
                raise ValueError("a whole number is beyond 64 bits")
            case dict() as table:
                pending.extend(table.values())
            case list() as values:
                pending.extend(values)
    return content


def toml_text(content: Mapping[str, object]) -> str:
    """TOML that ``tomllib`` reads back to the same content.

    Args:
        content: Strings, numbers, booleans, sequences of them, mappings, and sequences of mappings.

    Raises:
        TypeError: a value that TOML has no form for, None among them.

    >>> print(toml_text({"name": "x", "grid": {"shape": [8, 8]}, "edit": [{"mm": 1.5}]}), end="")
    name = "x"
    <BLANKLINE>
    [grid]
    shape = [8, 8]
    <BLANKLINE>
    [[edit]]
    mm = 1.5
    """
    return "\n".join(_table(content, "")) + "\n"


def _table(content: Mapping[str, object], path: str) -> list[str]:
    lines, below = [], []
    for key, value in content.items():
        place = f"{path}{_key(key)}"
        if isinstance(value, Mapping):
            below += ["", f"[{place}]", *_table(value, f"{place}.")]
        elif _is_tables(value):
            for entry in value:  # type: ignore[attr-defined]  # a sequence, by the line above
                below += ["", f"[[{place}]]", *_table(entry, f"{place}.")]
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    return lines + below


def _is_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(entry, Mapping) for entry in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
            return f'"{escaped}"'
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            raise TypeError(f"no TOML form for {type(value).__name__}")
