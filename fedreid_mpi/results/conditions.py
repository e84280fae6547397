"""Selection of runs by their configuration."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedreid_mpi.config import RENAMED
from fedreid_mpi.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Condition:
    """A value that a key of the configuration must have, as ``aggregation.weights=cosine-distance``.

    Attributes
    ----------
    key
        Dotted.
    value
        As TOML says it.
    """

    key: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read ``key=value``; the value is TOML, or a plain word.

        Raises
        ------
        ConfigurationError
            It is neither.
        """
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or "." not in key:
            raise ConfigurationError(f"--where {text}: expected section.key=value")
        try:
            return cls(key, tomllib.loads(f"value = {value}")["value"])
        except tomllib.TOMLDecodeError:
            return cls(key, value)

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Return whether a configuration has the value."""
        flat = flatten(settings)
        return self.key in flat and flat[self.key] == self.value


def check_keys(conditions: Sequence[Condition], configurations: Iterable[Mapping[str, Any]]) -> None:
    """Refuse keys that no configuration has, which would quietly select nothing.

    Raises
    ------
    ConfigurationError
        Naming the key.
    """
    known = {key for settings in configurations for key in flatten(settings)}
    for condition in conditions:
        if condition.key in RENAMED:
            raise ConfigurationError(f"--where {condition.key}: is now called {RENAMED[condition.key]}")
        if known and condition.key not in known:
            raise ConfigurationError(f"--where {condition.key}: no run has such a key in its configuration")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration as dotted keys and values."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
