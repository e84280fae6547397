"""Files damaged at random are refused in one line, or read as they were written; nothing else happens.

``pytest tests/campaigns/test_fuzz.py --fuzz N`` plays N damages of each kind of file.
"""

import pytest

from campaigns.fuzzing import KINDS, Reader, damage, damaged, write_whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_whole(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_or_read_as_it_was(kind, whole, reader, tmp_path, pytestconfig):
    trials = damage(kind, whole[kind], reader, pytestconfig.getoption("--fuzz"), 0, tmp_path)
    assert [trial.broken for trial in trials if trial.broken] == []
    assert f"{kind} refused" in {trial.moment for trial in trials}


def test_damages_are_what_they_are_called():
    assert damaged(b"abcdef", [("flip", 1, b"\3\0")]) == b"aacdef"
    assert damaged(b"abcdef", [("overwrite", 4, b"xyz")]) == b"abcdxy"
    assert damaged(b"abcdef", [("insert", 2, b"x"), ("remove", 0, b"--")]) == b"xcdef"
    assert damaged(b"abcdef", [("cut", 3, b"")]) == b"abc"
