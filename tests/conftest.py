"""What several test modules share."""

import signal
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support", "campaigns")

from support.many_splits import archive, model  # noqa: F401 (fixtures)
from support.slurm_cluster import slurm  # noqa: F401 (a fixture)
from support.small import write_experiment, write_sites


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    return write_sites(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="session")
def experiment_file(archives, tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("experiment") / "small.toml", archives)


@pytest.fixture
def heeded():
    """Hangups and interrupts do what they do in a terminal, also where these tests run without one.

    Started by nohup or as a script's background job, a process ignores them, and so do its children.
    """
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=25, metavar="N", help="damages of each kind of file")
    parser.addoption("--renew", action="store_true", help="write generated pages instead of comparing them")


def pytest_collection_modifyitems(items):
    """The folder of a test is its layer."""
    for item in items:
        item.add_marker(item.path.relative_to(Path(__file__).parent).parts[0])


@pytest.fixture
def generated(request):
    """Compare a page with what it is made from; with ``--renew``, write it anew."""

    def check(path, renewed):
        page = path.read_text(encoding="utf-8")
        if request.config.getoption("renew"):
            path.write_text(renewed(page), encoding="utf-8")
        else:
            assert renewed(page) == page, f"{path.name} is out of date: make pages"

    return check
