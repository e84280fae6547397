"""What an archive says of the code that a run was played with."""

import subprocess

import fedreid_mpi
from fedreid_mpi.run.program import NO_CHECKOUT, PACKAGE, read_checkout, source_digest


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_a_checkout_is_dirty_once_the_package_is_changed(tmp_path):
    package, page = tmp_path / "package", tmp_path / "page.md"
    package.mkdir()
    assert read_checkout(package) == NO_CHECKOUT  # no checkout at all
    git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("environment/\n")
    (package / "one.py").write_text("pass\n")
    page.write_text("first\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = read_checkout(package)
    assert len(clean.commit) == 40
    assert not clean.dirty
    page.write_text("second\n")
    assert read_checkout(package) == clean  # no part of the package
    (package / "two.py").write_text("pass\n")
    dirty = read_checkout(package)
    assert (dirty.commit, dirty.dirty) == (clean.commit, True)
    (tmp_path / "environment").mkdir()
    assert read_checkout(tmp_path / "environment") == NO_CHECKOUT  # installed within somebody's checkout


def test_the_digest_is_that_of_sha256sum(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in {"b.py": "1", "sub/a.py": "2", "a.py": "3", "sub.py": "4", "note.txt": "5"}.items():
        (tmp_path / name).write_text(text)
    listing = "find . -name '*.py' | sed 's|^\\./||' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(["sh", "-c", listing], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert source_digest(tmp_path) == said.stdout.split()[0]
    page = (PACKAGE.parent / "docs" / "format.md").read_text(encoding="utf-8")
    assert listing.rpartition(" | ")[0] in page
    assert [str(PACKAGE)] == list(fedreid_mpi.__path__)
