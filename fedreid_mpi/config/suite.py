"""A study's suite: one base experiment, the methods that differ from it, and the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from fedreid_mpi.config.loading import apply_override, explain, read_toml, resolve
from fedreid_mpi.config.sections import Experiment
from fedreid_mpi.config.types import File, Listed, Section
from fedreid_mpi.errors import ConfigurationError

LABEL = "label"
"""Key of a method that becomes ``run.label``."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class StudySection(Section):
    """The table ``[study]``."""

    name: str = Field(min_length=1, description="name of the study")
    base: File = Field(description="experiment that all methods start from, relative to the suite")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Listed] = Field(
        min_length=1, description="each method is run with each of them"
    )


class SuiteFile(Section):
    """A suite as it is in its file."""

    study: StudySection
    methods: dict[Name, dict[str, Any]] = Field(
        min_length=1,
        description="name of a method to its label and the tables in which it differs from the base",
    )


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run of a study: a method with a seed.

    Attributes
    ----------
    method
        Name of the method, ``run.name`` of the experiment.
    seed
        ``run.seed`` of the experiment.
    experiment
        Resolved.
    """

    method: str
    seed: int
    experiment: Experiment

    @property
    def name(self) -> str:
        """Name of its folder in the study's."""
        return f"{self.method}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Suite:
    """A study: its name and its runs, seed by seed, so that early results are of all methods."""

    name: str
    runs: tuple[StudyRun, ...]


def load_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite and resolve all its experiments, so that no mistake is found in the middle of a night.

    Parameters
    ----------
    path
        TOML file with ``[study]`` and one table ``[methods.NAME]`` per method, which holds ``label``, what
        reports call the method, and tables of an experiment, with paths relative to the base's folder.
        Reports show methods in this order.
    overrides
        ``"section.key=value"`` each, for all runs.

    Raises
    ------
    ConfigurationError
        Naming the file, the method and every key that is wrong.
    """
    try:
        suite = SuiteFile.model_validate(read_toml(path, "suite"))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: " + "; ".join(explain(error, SuiteFile))) from error
    base = path.parent / suite.study.base
    text = read_toml(base, "experiment")
    if len(set(suite.study.seeds)) < len(suite.study.seeds):
        raise ConfigurationError(f"{path}: study.seeds names a seed twice: {list(suite.study.seeds)}")
    runs = []
    for seed in suite.study.seeds:
        for position, (method, changes) in enumerate(suite.methods.items()):
            label = {key: value for key, value in changes.items() if key == LABEL}
            content = _merged(text, {key: value for key, value in changes.items() if key != LABEL})
            for override in overrides:
                apply_override(content, override)
            identity = {"name": method, "seed": seed, "position": position, **label}
            content["run"] = {**content.get("run", {}), **identity}
            runs.append(StudyRun(method, seed, resolve(content, f"{path}: methods.{method}", base)))
    return Suite(suite.study.name, tuple(runs))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with keys replaced; tables are merged."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
