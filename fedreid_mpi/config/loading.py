"""Reads an experiment file into an `Experiment`; every mistake is reported at once."""

import difflib
import glob
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fedreid_mpi.config.presets import PRESETS
from fedreid_mpi.config.renamed import RENAMED
from fedreid_mpi.config.sections import Experiment
from fedreid_mpi.config.training import Model
from fedreid_mpi.config.unused import unused_settings
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.storage.regular import read_text
from fedreid_mpi.wording import counted

EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "an integer",
    "model_type": "a table",
    "path_type": "a path",
    "string_type": "text",
    "tuple_type": "a list",
}
"""What a value of the wrong type should be, in TOML's terms instead of pydantic's."""

PATHS = ("data.archives", "data.unseen", "data.public", "model.weights")
"""Keys whose values are files."""

LONGEST = 80
"""Characters of a wrong value that a message repeats."""


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file.

    Parameters
    ----------
    path
        TOML file.
    overrides
        ``"section.key=value"`` each; the value is TOML, or a plain word.

    Raises
    ------
    ConfigurationError
        Naming the file and every key that is wrong.
    """
    content = read_toml(path, "experiment")
    for override in overrides:
        apply_override(content, override)
    return resolve(content, str(path), path)


def stored_experiment(content: Mapping[str, Any], path: Path) -> Experiment:
    """Make an experiment of the resolved configuration that a run has stored in a file.

    Raises
    ------
    DataError
        It is not one of this version.
    """
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise DataError(
            f"{path}: its configuration is not one of this version ({'; '.join(explain(error))}): "
            "only the version of this program that began the run can resume it"
        ) from error


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file; ``what`` it is appears in the message if it cannot be read."""
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or too long or deep for its parser
        raise ConfigurationError(f"{path}: not a TOML file: {error}") from error


def resolve(content: Mapping[str, Any], label: str, path: Path) -> Experiment:
    """Make an experiment of a parsed file.

    Parameters
    ----------
    content
        The file, overrides applied.
    label
        Prefix of a message.
    path
        The file; paths in it are relative to its folder.

    Raises
    ------
    ConfigurationError
        Naming every key that is wrong.
    """
    preset = content.get("preset", "default")
    merged: dict[str, Any] = {name: dict(keys) for name, keys in PRESETS.get(str(preset), {}).items()}
    for name, value in content.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    try:
        experiment = Experiment.model_validate(merged)
    except ValidationError as error:
        raise ConfigurationError(f"{label}: " + "; ".join(explain(error))) from error
    if unused := list(unused_settings(experiment)):
        raise ConfigurationError(f"{label}: " + "; ".join(unused))
    return _with_absolute_paths(experiment, label, path.resolve().parent)


def with_relative_paths(experiment: Experiment, run_dir: Path) -> Experiment:
    """Make an experiment as a run stores it: its paths are relative to the run directory.

    A stored configuration may be passed on, and need not reveal the name of a home directory. A path that has
    nothing but the root in common with the run directory stays as it is.
    """
    base = run_dir.resolve()

    def relative(key: str, path: Path) -> Path:
        if not path.is_absolute() or os.path.commonpath((base, path)) == base.root:
            return path
        return Path(os.path.relpath(path, base))

    return _with_paths(experiment, relative)


def _with_paths(experiment: Experiment, change: Callable[[str, Path], Path]) -> Experiment:
    """Change all paths of an experiment, each given with its key."""
    public, weights = experiment.data.public, experiment.model.weights
    data = {
        "archives": tuple(change("data.archives", path) for path in experiment.data.archives),
        "unseen": tuple(change("data.unseen", path) for path in experiment.data.unseen),
        "public": public and change("data.public", public),
    }
    model = {"weights": weights and change("model.weights", weights)}
    return experiment.model_copy(
        update={
            "data": experiment.data.model_copy(update=data),
            "model": experiment.model.model_copy(update=model),
        }
    )


def model_settings(**keys: Any) -> Model:  # noqa: ANN401 (values of a file)
    """Make a ``[model]`` section of some keys.

    Raises
    ------
    ConfigurationError
        Naming every key that is wrong.
    """
    try:
        return Model.model_validate(keys)
    except ValidationError as error:
        raise ConfigurationError("; ".join(f"model.{line}" for line in explain(error, Model))) from error


def _with_absolute_paths(experiment: Experiment, label: str, folder: Path) -> Experiment:
    """Make paths independent of the working directory, which differs between a login node and a job."""

    def absolute(key: str, path: Path) -> Path:
        try:
            whole = folder / path.expanduser()
        except RuntimeError as error:
            found = f"{label}: {key}: '{path}' names the home of a user who has none here"
            raise ConfigurationError(f"{found}, expected a path without '~'") from error
        try:
            str(whole).encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                f"{label}: {key}: {str(whole)!r} is not UTF-8, expected another name"
            ) from error
        return whole

    def pattern(key: str, path: Path) -> Path:
        """Keep brackets of the folder's name from being taken for part of a pattern."""
        whole = absolute(key, path)
        literal = key != "data.archives" or whole.exists() or not glob.has_magic(str(path))
        return whole if literal else Path(glob.escape(str(folder)), path.expanduser())

    return _with_paths(experiment, pattern)


def apply_override(content: dict[str, Any], override: str) -> None:
    """Apply one ``key=value`` to the parsed file, in place; its paths are relative to the current folder."""
    key, equals, text = override.partition("=")
    *tables, name = key.strip().split(".")
    if not equals or not name or not all(tables) or len(override.splitlines()) != 1:
        raise ConfigurationError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    value = _from_here(".".join([*tables, name]), value)
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise ConfigurationError(f"--set {override}: {table} is a value, not a section")
    content[name] = value


def _from_here(key: str, value: Any) -> Any:  # noqa: ANN401 (a value of a file)
    """Make the paths in a value absolute: the user who types one is not in the experiment's folder."""
    if isinstance(value, dict):
        return {name: _from_here(f"{key}.{name}", part) for name, part in value.items()}
    if isinstance(value, list):
        return [_from_here(key, part) for part in value]
    if key not in PATHS or not isinstance(value, str) or not value or value.startswith("~"):
        return value
    here = Path.cwd()
    is_pattern = glob.has_magic(value) and not (here / value).exists()
    return os.path.join(glob.escape(str(here)) if is_pattern else str(here), value)  # noqa: PTH118 (keeps "..")


def explain(error: ValidationError, root: type[BaseModel] = Experiment) -> Iterator[str]:
    """Yield each mistake in a file as key, found, expected; ``root`` is what the file should be."""
    for mistake in error.errors():
        location = [str(part) for part in mistake["loc"]]
        key = ".".join(location) or "experiment"
        if mistake["type"] == "extra_forbidden" and key in RENAMED:
            yield f"{key} is now called {RENAMED[key]}"
        elif mistake["type"] == "extra_forbidden":
            yield f"unknown key {key}{_nearest(location, root)}"
        elif mistake["type"] == "missing":
            yield f"{key} is missing"
        elif mistake["type"] == "too_short":
            found, least = mistake["ctx"]["actual_length"], mistake["ctx"]["min_length"]
            yield f"{key} has {counted(found, 'entry', 'entries')}, expected at least {least}"
        elif mistake["type"] == "value_error":
            yield f"{key}: {mistake['ctx']['error']}" if location else str(mistake["ctx"]["error"])
        else:
            expected = EXPECTED.get(mistake["type"], mistake["msg"].removeprefix("Input should be "))
            if mistake["type"] == "tuple_type" and location[0] == "data":
                expected = "a list of paths"
            found = repr(mistake["input"])
            yield f"{key} is {found if len(found) <= LONGEST else found[:LONGEST] + '…'}, expected {expected}"


def _nearest(location: Sequence[str], section: type[BaseModel]) -> str:
    """Suggest the valid key that looks most like an unknown one."""
    for part in location[:-1]:
        annotation = section.model_fields[part].annotation
        section = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
    names = difflib.get_close_matches(location[-1], section.model_fields, n=1, cutoff=0.5)
    if not names:
        return f" (valid here: {', '.join(section.model_fields)})"
    return f" (did you mean {'.'.join([*location[:-1], names[0]])}?)"
