import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports", "--no-logo"),
    ],
    ids=" ".join,
)
def test_checker_is_content(command):
    checked = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
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
