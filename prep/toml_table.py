"""A TOML table taken key by key: a missing, mistyped or unknown key is an error that names it."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from prep.program import UserError

T = TypeVar("T")


class Table:
    """A TOML table whose keys are taken one by one; `end` refuses what is left over."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._values = dict(values)
        self._where = where
        self._taken: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str, kind: type[T]) -> T:
        if key not in self._values:
            raise UserError(f"{self._where}: {key} is missing; add it")
        self._taken.append(key)
        value = self._values.pop(key)
        if type(value) is not kind:
            raise UserError(
                f"{self._where}: {key} is {value!r:.80}, it must be of type {kind.__name__}"
            )
        if isinstance(value, int) and value < 0:
            raise UserError(f"{self._where}: {key} is {value}, it must be at least 0")
        return value

    def take_or(self, key: str, kind: type[T], default: T | None) -> Any:
        self._taken.append(key)
        return self.take(key, kind) if key in self._values else default

    def strings(self, key: str) -> tuple[str, ...]:
        values: list[Any] = self.take(key, list)
        for value in values:
            if not isinstance(value, str):
                raise UserError(f"{self._where}: {key} holds {value!r:.80}, which is no text")
        return tuple(values)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        values: list[Any] = self.take(key, list)
        if len(values) != count or any(type(value) is not float for value in values):
            raise UserError(f"{self._where}: {key} is {values!r:.80}, it must be {count} floats")
        return tuple(values)

    def tables(self, key: str) -> dict[str, Table]:
        inner: dict[str, Any] = self.take(key, dict)
        return {name: self._inner(f"{key}.{name}", value) for name, value in inner.items()}

    def list_of_tables(self, key: str) -> list[Table]:
        inner: list[Any] = self.take_or(key, list, [])
        return [self._inner(f"{key} {i}", value) for i, value in enumerate(inner, 1)]

    def _inner(self, name: str, value: Any) -> Table:
        if not isinstance(value, dict):
            raise UserError(f"{self._where}: {name} is {value!r:.80}, it must be a table")
        return Table(value, f"{self._where}, {name}")

    def end(self) -> None:
        for key in self._values:
            close = difflib.get_close_matches(key, self._taken, n=1)
            hint = f"did you mean {close[0]}?" if close else f"keys are {', '.join(self._taken)}"
            raise UserError(f"{self._where}: unknown key {key!r}; {hint}")

    def ended(self, record: T) -> T:
        self.end()
        return record
