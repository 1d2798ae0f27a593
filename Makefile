# The book's commands. PYTHON makes the environment, VENV is where it lives, JOBS is how many processes work at a time.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=
LOCK_ARGS ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/attn-env.stamp

# Start-up files and history of the user's own IPython stay out of the kernels.
export IPYTHONDIR := $(CURDIR)/_build/ipython
# A kernel named python3 elsewhere on the machine must not run the notebooks.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH

.PHONY: help env test book notebooks lint lock clean
.DELETE_ON_ERROR:

help:
	@echo 'make book       run every chapter and build the pages into _build/html'
	@echo 'make test       run all tests, the notebooks among them; no network, no GPU needed'
	@echo 'make env        make the environment that the other targets use (they do so by themselves)'
	@echo 'make notebooks  run every chapter and rewrite its committed outputs'
	@echo 'make lint       check the style of the code'
	@echo 'make lock       resolve requirements.lock again from pyproject.toml (needs uv)'
	@echo 'make clean      remove what was built; the environment stays'
	@echo
	@echo 'PYTHON=python3        the Python that makes the environment: 3.11, 3.12 or 3.13'
	@echo '                      if it has torch, that torch is used and never replaced'
	@echo 'VENV=.venv            where the environment is; an existing one is used as it is and what is pinned'
	@echo '                      is installed into it (the active one: make env VENV="$$VIRTUAL_ENV")'
	@echo 'JOBS=2                processes at a time: test workers, chapters'
	@echo 'PYTEST_ARGS=          more arguments for pytest, as in: make test PYTEST_ARGS="-k schedule"'

env: $(STAMP)

$(STAMP): requirements.lock pyproject.toml tools/make_env.py
	$(PYTHON) tools/make_env.py $(VENV)
	@touch $@

# IPython warns, on the output of whatever runs it, if the folder above its own is missing.
_build/ipython:
	@mkdir -p $@

# One thread a process: as many as JOBS run at a time, and small models gain nothing from a second one.
test: export OMP_NUM_THREADS := 1
test: $(STAMP) | _build/ipython
	@$(PY) -m pytest -n $(JOBS) --dist loadfile \
		--nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
		$(PYTEST_ARGS) tests notebooks

book: export OMP_NUM_THREADS := 1
book: $(STAMP) | _build/ipython
	@$(PY) -m tools.build_book --jobs $(JOBS)

notebooks: export OMP_NUM_THREADS := 1
notebooks: $(STAMP) | _build/ipython
	@$(PY) -m tools.notebooks --jobs $(JOBS) notebooks/*.ipynb

lint: $(STAMP)
	$(PY) -m ruff check .

lock:
	$(PYTHON) tools/lock.py $(LOCK_ARGS)

clean:
	rm -rf _build build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
