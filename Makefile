# Everything one does with this repository. Python 3.11 or newer and make are all it assumes.

VENV ?= .venv
# More than there are cores: tests of processes wait more than they compute.
WORKERS ?= 3
COVERED ?= tests/unit
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3 python
PY := $(abspath $(VENV))/bin/python
NODE := $(VENV)/.node
READY := $(VENV)/.ready
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: setup run test test-fast check coverage rooms migrate demo bench chaos fuzz simulation

# The virtual environment with everything in it. Each half is made again where its requirements have changed;
# a node starts with the first, so that the first verdict does not wait for the tools.
setup: $(READY)

$(NODE): requirements.txt
	@if ! "$(PY)" -c '$(IS_NEW_ENOUGH)' 2>/dev/null || ! "$(PY)" -m pip --version >/dev/null 2>&1; then \
	  found=; for python in $(PYTHONS); do \
	    if $$python -c '$(IS_NEW_ENOUGH)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "Python 3.11 or newer is needed; tried $(PYTHONS)." >&2; exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear "$(VENV)" || exit 1; \
	fi
	@echo "Installing what a node needs: about a minute, once"
	@"$(PY)" -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(READY): $(NODE) requirements-dev.txt clients/python/pyproject.toml
	@"$(PY)" -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt
	@touch $@

# A serving node on the embedded ledger, with a demo license and the ready-made call printed.
run: $(NODE)
	cd api && PROTECAO_DEMO=1 exec "$(PY)" app.py

# Every test. More for pytest in ARGS: make test ARGS="-k lease -x"
test: setup
	@"$(PY)" -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# Unit and contract tests with fewer generated examples: at most a minute on two quiet cores, for while one works.
test-fast: setup
	@TEST_PROFILE=fast "$(PY)" -m pytest -q -n $(WORKERS) --dist worksteal tests/unit tests/contract $(ARGS)

# What the tests in COVERED run of the whole, branches included, as one line. More: COVERED="tests/unit tests/contract"
coverage: setup
	@TEST_PROFILE=fast "$(PY)" -m pytest -q -n $(WORKERS) --dist worksteal $(COVERED) \
	  --cov=api --cov=failover --cov=license_client --cov-branch --cov-report= $(ARGS)
	@echo "Coverage of api, failover and license_client by $(COVERED), branches included: $$("$(PY)" -m coverage report --format=total) %"

# What needs no running: style, types, import rules, and every branch of the decision.
check: setup
	@"$(PY)" -m ruff check
	@"$(PY)" -m ruff format --check
	@"$(PY)" -m mypy
	@"$(abspath $(VENV))/bin/lint-imports"
	@"$(PY)" -m pytest -q tests/unit/test_frame.py tests/unit/licensing \
	  --cov=api.licensing --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered
	@"$(PY)" -m pytest -q tests/unit/failover/test_decide.py \
	  --cov=failover.decide --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered

# How the rooms of api/ hang together: their number, circles of imports, imports that run up.
rooms: setup
	@"$(PY)" -m tests.rooms $(ARGS)

# Assembles clients/ahk/v1/License.ahk and v2/License.ahk from clients/ahk/src.
.PHONY: clients
clients: setup
	@"$(PY)" clients/ahk/assemble.py $(ARGS)

# Brings the ledger that DATABASE_URL names (none: the embedded one) to the newest schema.
migrate: $(NODE)
	@"$(PY)" -m flask db upgrade

# The image, built from the Dockerfile without Docker or a registry, and run: some minutes, as root on Debian, after
# apt-get install buildah crun debootstrap. IMAGE_STORE=<folder> keeps its base for the next time.
.PHONY: image-test
image-test: setup
	@"$(PY)" -m pytest -q -s tests/image/checks.py $(ARGS)

# Each host with three nodes, from a clone to service by its own build and start commands, timed: some minutes.
.PHONY: journeys
journeys: setup
	@"$(PY)" -m pytest -q -s tests/journeys/whole.py $(ARGS)

# Three nodes on a shared Postgres, clients that walk them, faults, and a live picture. ARGS="--fast --plain"
demo: setup
	@"$(PY)" -m tests.demo $(ARGS)

# Ours, a bare Flask route and a naive check side by side, on Postgres.
bench: setup
	@"$(PY)" -m tests.bench $(ARGS)

# Real nodes, a real Postgres, 50 checks a second, and 300 faults (about an hour). Every kind once: ARGS=--short
chaos: setup
	@"$(PY)" -m tests.chaos.cluster $(ARGS)

# Ten thousand generated calls at a running node, from its own OpenAPI description. Without its ledger: ARGS=--isolated
# Connections with garbled, cut and pipelined requests: ARGS="--http --cases 100000"
fuzz: setup
	@"$(PY)" -m tests.fuzz $(ARGS)

# Nodes, ledger, network and clocks in one process under a seeded scheduler. Longer: make simulation ARGS="--seed 7"
simulation: setup
	@"$(PY)" -m tests.chaos --steps 1000000 $(ARGS)
