import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy", "--cache-dir=/dev/null", "--show-traceback"),  # no cache that others might be writing
        ("lint-imports", "--no-logo"),
    ],
    ids=" ".join,
)
def test_checker_is_content(command):
    def check():
        return subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)

    checked = check()
    if (
        "INTERNAL ERROR" in checked.stdout + checked.stderr
    ):  # mypy itself fell, which it did once in many runs
        checked = check()
    assert checked.returncode == 0, checked.stdout + checked.stderr


def trees_of_the_page():
    """Read the trees of docs/architecture.md: folder to its layers, top-down, each a set of module names."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = {}
    for block in re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[:2]:
        for line in block.splitlines():
            if heading := re.fullmatch(r"([a-z_0-9/]+)/", line):
                layers = found.setdefault(heading[1].replace("/", "."), [])
            elif names := re.match(r"  (\S+(?: \| \S+)*)(?:  |$)", line):
                layers.append({name.removesuffix("/").removesuffix(".py") for name in names[1].split(" | ")})
    return found


def test_the_page_shows_the_tree_of_the_import_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    expected = {
        container.removeprefix("fedreid_mpi."): [set(layer.split(" | ")) for layer in contract["layers"]]
        for contract in contracts["contracts"]
        if contract["type"] == "layers"
        for container in contract["containers"]
    }
    assert trees_of_the_page() == expected


def test_no_module_of_the_tests_imports_a_test_module():
    """What several of them need is in tests/support/."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
            names.append(getattr(node, "module", None) or "")
            if any(part.startswith("test_") for name in names for part in name.split(".")):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_every_test_module_is_in_a_layer():
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == {"unit", "mpi", "slurm", "campaigns"}
