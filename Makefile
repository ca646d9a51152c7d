# make run    everything on this machine: Redis, MongoDB, the worker and the API; Ctrl-C stops all of it.
#             PORT, REDIS_PORT, MONGO_PORT and DATA override 8000, 6379, 27017 and ./.data: make run PORT=9000
#             PYTHON=<path> names the interpreter when .venv is made: Python 3.11, 3.12 or 3.13
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
FITS := import platform as p, sys; fits = (3, 11) <= sys.version_info[:2] <= (3, 13) and (sys.platform, p.machine()) == ("linux", "x86_64")
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(FITS); print(sys.executable) if fits else sys.exit(1)' 2>/dev/null && exit; done; echo python3)
UV = $(shell command -v uv || echo $(VENV)/bin/uv)

.PHONY: run test bench torture lint spec docs clean fits

run: fits $(INSTALLED)
	@PYTHONDONTWRITEBYTECODE= exec $(VENV)/bin/python -m service --embedded

test: fits $(TOOLS)
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

# Has the interpreter wheels of the embedded servers?
fits:
	@python="$(firstword $(wildcard $(VENV)/bin/python) $(PYTHON))"; \
	"$$python" -c '' 2>/dev/null || { echo "$$python is no Python that runs here. PYTHON=<path> names one: 3.11, 3.12 or 3.13."; exit 1; }; \
	"$$python" -c '$(FITS); sys.exit(not fits)' || { echo "The embedded servers need Python 3.11, 3.12 or 3.13 on Linux x86-64, and" \
		"this is $$("$$python" -c 'import platform as p; print(p.python_version() + " on " + p.system() + " " + p.machine())')." \
		"PYTHON=<path> names another Python (after make clean); README.md says how to use servers of your own."; exit 1; }

# What running takes. uv needs a fifth of the time that pip needs, its own download included; what uv can't reach, pip may.
$(INSTALLED): pyproject.toml
	@echo "Setting up $(VENV) with $(PYTHON) ..."
	@if command -v uv >/dev/null; then uv venv --allow-existing --python "$(PYTHON)" $(VENV); \
	else "$(PYTHON)" -m venv $$("$(PYTHON)" -m pip --python "$(PYTHON)" --version >/dev/null 2>&1 && echo --without-pip) $(VENV) && { $(call pip,uv) || true; }; fi
	@$(call install,embedded)
	@touch $@

# What tests and linters take beside it.
$(TOOLS): $(INSTALLED)
	@echo "Adding what tests and linters take ..."
	@$(call install,embedded$(COMMA)dev)
	@touch $@

COMMA := ,
install = $(UV) pip install --python $(VENV)/bin/python -e ".[$(1)]" || $(call pip,-e ".[$(1)]")
pip = "$$([ -x $(VENV)/bin/pip ] && echo $(VENV)/bin/python || echo "$(PYTHON)")" -m pip --disable-pip-version-check --python $(VENV)/bin/python \
	install --no-compile $(1)
