"""What of a configuration tells two methods apart."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fedreid_mpi.config import Experiment, Section

LABELS = ("run.name", "run.seed", "run.label", "run.position")
"""The seed, and what a run is called: they tell no two methods apart."""

HARMLESS = (
    *("preset", "run.rounds", "data.public", "data.unseen", "data.exclude_overlap", "data.stage"),
    *("evaluation.every", "evaluation.local_models", "evaluation.reestimate_bn"),
    *("compute.", "checkpoint.", "reliability.", "privacy.secure_aggregation", "privacy.neighbours"),
)
"""What cannot change a figure."""

_HARMFUL = ("compute.precision",)
_PATHS = ("data.archives", "data.unseen", "data.public", "model.weights")


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration as ``"section.key"`` to value, with the defaults of keys that it lacks.

    Of paths only the file's name is kept.
    """
    return _defaults() | dict(_flatten(settings))


def differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys in which configurations differ, but for names and seeds."""
    keys = sorted({key for one in settings for key in one} - set(LABELS))
    return [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]


def without(settings: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Drop keys and, where a name ends with a dot, sections; a cosine schedule needs the rounds."""
    cosine = settings.get("optimizer.schedule") == "cosine"

    def drops(key: str) -> bool:
        named = any(key == name or (name.endswith(".") and key.startswith(name)) for name in left_out)
        return named and key not in _HARMFUL and not (cosine and key == "run.rounds")

    return {key: value for key, value in settings.items() if not drops(key)}


@cache
def _defaults() -> dict[str, Any]:
    """Return what was computed before a key was there: its default; of keys that have one."""
    sections = {name: kind.annotation for name, kind in Experiment.model_fields.items()}
    return {
        f"{section}.{key}": field.default
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section)
        for key, field in kind.model_fields.items()
        if not field.is_required() and field.default is not None
    }


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        key = prefix + name
        if isinstance(value, dict) and key != "federation.availability":
            yield from _flatten(value, f"{key}.")
        elif key in _PATHS:
            yield key, [Path(one).name for one in value] if isinstance(value, list) else Path(value).name
        else:
            yield key, value
