"""What may change between two attempts of one run: nothing that would change rounds already done."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedreid_mpi.config.sections import Experiment

HARMLESS = (
    *("run.name", "run.label", "run.position"),
    *("data.stage", "checkpoint", "reliability", "compute.share_gpus"),
)
"""Keys and sections on which no round depends."""

CHECKED_OTHERWISE = ("run.rounds", "model.weights", "data.archives", "data.unseen", "data.public")
"""Keys with rules of their own; of archives the content counts, not the path."""


def refused_changes(before: Experiment, now: Experiment) -> Iterator[str]:
    """Name each change of an experiment that would make a resumed run another run.

    Parameters
    ----------
    before
        The experiment as the run was begun with it.
    now
        The one that it is to continue with.

    Yields
    ------
    str
        Key, what was found, what was expected.
    """
    old, new = _keys(before), _keys(now)
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key) and not may_change(key):
            yield f"{key} is {_shown(new.get(key))}, expected {_shown(old.get(key))}"
    found, least = now.run.rounds, before.run.rounds
    if found < least:
        yield f"run.rounds is {found}, expected at least {least}"
    elif found > least and now.optimizer.schedule == "cosine":
        yield (
            f"run.rounds is {found}, expected {least}: with optimizer.schedule = 'cosine' more rounds would "
            "change the learning rates of completed rounds"
        )
    if (before.model.weights is None) != (now.model.weights is None):
        yield f"model.weights is {_shown(now.model.weights)}, expected {_shown(before.model.weights)}"


def may_change(key: str) -> bool:
    """Return whether a key may differ from one attempt to the next, or has a rule of its own."""
    return key in CHECKED_OTHERWISE or key in HARMLESS or key.partition(".")[0] in HARMLESS


def _keys(experiment: Experiment) -> dict[str, Any]:
    """Return the settings by dotted key; a table within a section counts as one value."""
    keys: dict[str, Any] = {}
    for section, value in experiment.model_dump(mode="json").items():
        if isinstance(value, Mapping):
            keys.update({f"{section}.{name}": setting for name, setting in value.items()})
        else:
            keys[section] = value
    return keys


def _shown(value: object) -> str:
    return "unset" if value is None else repr(value) if isinstance(value, str) else str(value)
