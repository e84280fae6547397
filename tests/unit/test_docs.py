"""Links lead somewhere, and the documentation builds into a site without a warning."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "jobs" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
API = re.compile(r"^::: (\S+)(?:\n    options:\n      members: \[(.*)\])?", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(page):
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    files = [target.partition("#")[0] for target in targets]
    assert [file for file in files if file and not (page.parent / file).exists()] == []


def test_every_page_is_in_the_site():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r": ([\w-]+\.md)$", navigation, re.MULTILINE)) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md")
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, and which of the heavy modules the build imported."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="pip install '.[docs]'")
    program = """
import json, sys
from mkdocs.__main__ import cli
cli(["build", "--strict", "--config-file", sys.argv[1], "--site-dir", sys.argv[2]], standalone_mode=False)
print(json.dumps(sorted({"torch", "mpi4py", "fedreid_mpi"} & sys.modules.keys())))
"""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", program, ROOT / "mkdocs.yml", folder]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert built.returncode == 0, built.stderr
    return folder, json.loads(built.stdout)


def test_the_site_builds_without_a_warning(site):
    assert (site[0] / "configuration" / "index.html").exists()


def test_the_api_pages_are_made_from_the_source_alone(site):
    assert site[1] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("api-*.md")), ids=lambda page: page.stem)
def test_the_api_pages_show_every_name_that_they_list(site, page):
    html = (site[0] / page.stem / "index.html").read_text(encoding="utf-8")
    listed = [
        f"{module}.{name}"
        for module, names in API.findall(page.read_text(encoding="utf-8"))
        for name in (names.split(", ") if names else [])
    ]
    assert len(listed) > 2
    assert [name for name in listed if f'id="{name}"' not in html] == []
