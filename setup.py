"""For tools that look for a ``setup.py``; all there is to say stands in ``pyproject.toml``."""

from setuptools import setup

setup()
