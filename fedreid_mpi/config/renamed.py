"""Keys that had another name in earlier versions: refused when a run starts or resumes, read in results."""

import tomllib
from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {"optimizer.label_smoothing": "objective.label_smoothing"}
"""What a key was called, and what it is called now: ``"section.key"`` each."""


def settings_of(configuration: str) -> dict[str, Any]:
    """Return the settings that a run has stored, whichever version it was, under the names of today.

    Parameters
    ----------
    configuration
        TOML, as `Experiment.to_toml` made it.

    Raises
    ------
    tomllib.TOMLDecodeError
        It is no TOML.
    """
    settings = tomllib.loads(configuration)
    for before, now in RENAMED.items():
        (old_section, old), (section, key) = before.split("."), now.split(".")
        if old in settings.get(old_section, {}):
            settings.setdefault(section, {}).setdefault(key, settings[old_section].pop(old))
    return settings
