"""The rights of somebody who is not root, for tests that run as root."""

import contextlib
import os


@contextlib.contextmanager
def as_nobody():
    """Take a superuser's rights away for a while."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)
