"""What a TOML file says, key by key: known, there and of its type, or refused.

Whoever reads a file asks for its keys one by one, and then for the `end`, at which a key that
nobody asked for is refused: nothing is guessed, and nothing that was meant is passed over.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from codec.errors import FeatureCodecError

__all__ = ["LARGE", "MISSING", "Fields", "is_integer", "kind_of", "list_of", "read_toml"]

LARGE: Final = 1e9
"""Numbers of a description are below that, so that arithmetic on them does not overflow."""
MISSING: Final = object()
"""In place of a default: the key must be there."""
_SHOWN: Final = 60


def read_toml(path: Path, error: type[FeatureCodecError]) -> dict[str, Any]:
    """Read a file.

    Raises:
        FeatureCodecError: of the class `error`: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise error(f"{path}: {(failure.strerror or str(failure)).lower()}") from failure
    except (ValueError, RecursionError) as failure:  # of TOML or of UTF-8; of lists in lists
        raise error(f"{path}: is no TOML: {failure}") from failure


class Fields:
    """Gives the values of a description one by one, checked.

    Args:
        source: what to call it in messages.
        values: by key.
        error: the class that blames it.
    """

    def __init__(
        self, source: str, values: Mapping[str, Any], error: type[FeatureCodecError]
    ) -> None:
        self._source, self._values, self._error = source, values, error
        self._asked: list[str] = []

    def end(self) -> None:
        """Refuse keys that nobody has asked for."""
        unknown = sorted(set(self._values) - set(self._asked))
        if unknown:
            self.refuse(f"unknown key {unknown[0]!r}; expected only {', '.join(self._asked)}")

    def refuse(self, what: str) -> NoReturn:
        """Blame the description.

        Raises:
            FeatureCodecError: always.
        """
        raise self._error(f"{self._source}: {what}")

    def take(
        self,
        key: str,
        expected: str,
        fits: Callable[[Any], bool],
        default: object = MISSING,
    ) -> Any:  # noqa: ANN401 - of the type that `fits` has seen
        """Return a value that `fits`, or the default; `expected` says what that is."""
        self._asked.append(key)
        if key not in self._values:
            if default is MISSING:
                self.refuse(f"key {key!r} is missing; expected {expected}")
            return default
        value = self._values[key]
        if not fits(value):
            self.refuse(f"{key} is {_shown(value)}; expected {expected}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: object = MISSING) -> str:
        """Return one of several words."""
        expected = f"one of {', '.join(choices)}"
        return cast(
            str, self.take(key, expected, lambda v: isinstance(v, str) and v in choices, default)
        )

    def number(
        self, key: str, default: object = MISSING, *, low: float = -LARGE, high: float = LARGE
    ) -> float:
        """Return a number between bounds, inclusive."""
        expected = f"a number{_between(low, high)}"
        return float(
            self.take(key, expected, lambda v: _is_number(v) and low <= v <= high, default)
        )

    def numbers(
        self, key: str, count: int, default: object = MISSING, *, low: float, high: float
    ) -> list[float]:
        """Return so many numbers between bounds, inclusive."""
        fits = list_of(lambda v: _is_number(v) and low <= v <= high)
        found = self.take(
            key,
            f"{count} numbers{_between(low, high)}",
            lambda value: fits(value) and len(value) == count,
            default,
        )
        return [float(each) for each in found]

    def count(
        self, key: str, default: object = MISSING, *, low: int = 1, high: float = LARGE
    ) -> int:
        """Return an integer between bounds, inclusive."""
        expected = (
            f"an integer{_between(low, high)}" if high < LARGE else "a positive integer below 10^9"
        )
        return int(self.take(key, expected, lambda v: is_integer(v) and low <= v <= high, default))

    def counts(
        self, key: str, count: int, default: object = MISSING, *, low: int, high: int
    ) -> list[int]:
        """Return so many integers between bounds, inclusive."""
        fits = list_of(lambda v: is_integer(v) and low <= v <= high)
        found = self.take(
            key,
            f"{count} integers{_between(low, high)}",
            lambda value: fits(value) and len(value) == count,
            default,
        )
        return list(found)


def is_integer(value: Any) -> bool:  # noqa: ANN401
    """Tell whether it is an integer; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (is_integer(value) or isinstance(value, float)) and value == value  # noqa: PLR0124


def list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return what tells whether something is a list, not empty, of things that fit."""
    return lambda value: isinstance(value, list) and value != [] and all(map(fits, value))


def kind_of(value: object) -> str:
    """Return what kind of value it is, in words."""
    names = {dict: "a table", list: "a list", str: "a string", bool: "a truth value"}
    return names.get(type(value), type(value).__name__)


def _between(low: float, high: float) -> str:
    return "" if high >= LARGE else f" from {low:g} to {high:g}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{kind_of(value)} ({text[: _SHOWN - 10]}…)"
