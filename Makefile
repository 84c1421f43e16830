# All commands of the project. Everything they create is in .local/, which `make clean` removes.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
.NOTPARALLEL:

LOCAL := .local
VENV := $(LOCAL)/venv
STATE := $(VENV)/stamps
BIN := $(VENV)/bin
LOCAL_AIRFLOW = PYTHONPATH=tools $(BIN)/python -m local_airflow
PYTEST = $(BIN)/python -m pytest
# Of two cores, one process more than cores: while one waits for its Airflow, others work. Quick tests wait for nothing.
TEST_PROCESSES ?=
# A tenth more work for the processes of the tests; COVERAGE=0 does without.
COVERAGE ?= 1
LOCK_GROUP = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate --no-header \
	$(UPGRADE)
LOCK = $(LOCK_GROUP) pyproject.toml

# The variables, set as in `make sync NAME=library/alpine` or in the environment.
SYNC_VARIABLES := REMOTE NAME REPOSITORY TAGS EXCLUDE_TAGS SEMVER NEWEST ORDER NEWER_THAN PLATFORMS POLICY MODE CONN PUBLISH_AS REPLACE_UPSTREAM PORT
export $(SYNC_VARIABLES) PULL_PORT PYTHON
# What is compiled once is not compiled again by each of many processes, whatever the machine's habit is.
unexport PYTHONDONTWRITEBYTECODE
# Names of variables on the command line that `make sync` does not know.
MISTYPED = $(filter-out $(SYNC_VARIABLES) PYTHON VENV,$(foreach name,$(.VARIABLES),$(if $(findstring \
	command line,$(origin $(name))),$(filter-out -% MAKE%,$(name)))))

# An option of a command, if the variable is set.
option = $(if $($2),--$1="$($2)")

# Nothing is installed into an environment that the user sets (make VENV=…).
ifeq ($(origin VENV),command line)
READY :=
TEST_READY :=
DOCS_READY :=
else
READY := $(STATE)/project
TEST_READY := $(STATE)/dev $(STATE)/project $(STATE)/debian
DOCS_READY := $(STATE)/docs $(STATE)/project
# In a new environment: what the tests import is compiled once. Each of the processes of the tests would do it otherwise,
# at the same time.
COMPILE = $(if $(wildcard $(STATE)/compiled),,$(PYTEST) --numprocesses 0 --collect-only --quiet >$(STATE)/compiled 2>&1)
endif
# Between these mypy runs beside tests; its errors come last, and fail the tests.
BESIDE_TYPES = mkdir -p $(LOCAL); $(BIN)/mypy >$(LOCAL)/types 2>&1 & types=$$!; trap "kill $$types 2>/dev/null; true" EXIT; $(if $(COMPILE),$(COMPILE);)
AND_TYPES = ; status=$$?; wait $$types || status=1; trap - EXIT; cat $(LOCAL)/types; exit $$status
# Pulp's clients, of today and of the documented workflow's time, which tests run against the REST API.
# And Airflow's provider for OpenLineage, and those for Slack and Apprise, which a test each has on its path.
OTHERS_READY := $(LOCAL)/pulp/today/installed $(LOCAL)/pulp/then/installed $(LOCAL)/lineage/installed $(LOCAL)/notifiers/installed
# Beside the compilation. A variable, so that make -n runs nothing.
INSTALL_OTHERS = $(MAKE) others-ready

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

.PHONY: sync
sync: known-variables $(READY) ## Sync a repository and print its version: REMOTE= NAME= REPOSITORY= TAGS= EXCLUDE_TAGS= SEMVER= NEWEST= ORDER= NEWER_THAN= PLATFORMS= POLICY= MODE= CONN= PUBLISH_AS= REPLACE_UPSTREAM=
	@$(LOCAL_AIRFLOW) sync

.PHONY: known-variables
known-variables:
	@$(if $(MISTYPED),$(error make sync does not know $(MISTYPED); it accepts $(SYNC_VARIABLES)))

.PHONY: up
up: $(READY) ## Start a local Airflow and the pull server and keep them running: PORT=8080 PULL_PORT=5050
	@$(LOCAL_AIRFLOW) up

.PHONY: down
down: $(READY) ## Stop the local Airflow and the pull server
	@$(LOCAL_AIRFLOW) down

.PHONY: status
status: $(READY) ## Show what of the local Airflow runs
	@$(LOCAL_AIRFLOW) status

.PHONY: token
token: $(READY) ## Print a bearer token for its REST API
	@$(LOCAL_AIRFLOW) token

.PHONY: test
test: style ## Check the style and run all tests; at the end the branch coverage, unless COVERAGE=0
	@$(if $(COMPILE),$(COMPILE) &) $(INSTALL_OTHERS) || exit; wait; COVERAGE=$(COVERAGE) $(PYTEST) --numprocesses $(or $(TEST_PROCESSES),3) --dist loadfile

.PHONY: others-ready
others-ready: $(OTHERS_READY)
	@:

.PHONY: test-quick
test-quick: style ## Run the checks, the unit tests and the contracts on SQLite and local files, without those that take long
	@$(BESIDE_TYPES) $(PYTEST) --numprocesses $(or $(TEST_PROCESSES),2) --dist loadfile -m 'not e2e and not slow' -k 'not postgresql and not s3' tests/architecture tests/unit tests/contract $(AND_TYPES)

.PHONY: check
check: $(TEST_READY) ## Check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(if $(COMPILE),$(COMPILE) &) $(BIN)/mypy; status=$$?; wait; exit $$status

.PHONY: types
types: $(TEST_READY)
	@$(BIN)/mypy

.PHONY: style
style: $(TEST_READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: clients
clients: $(TEST_READY) $(LOCAL)/go/built ## Try crane, oras, regctl and the OCI conformance suite on the pull server; takes Go
	@PYTHONPATH=plugins:tests:tools $(BIN)/python -m conformance
	@$(PYTEST) --numprocesses 0 tests/clients

.PHONY: receivers
receivers: $(TEST_READY) $(LOCAL)/receivers/built ## Try metrics, traces and the dashboard on real receivers: StatsD, Prometheus, OpenTelemetry; takes Go
	@$(PYTEST) --numprocesses 0 tests/receivers

.PHONY: bench
bench: $(TEST_READY) ## Measure what the documentation promises, and syncs beside other programs: ONLY= SHAPES= NETWORKS= CONTENDERS= RUNS= PATIENCE= JSON=
	@PYTHONPATH=plugins:tests:tools $(BIN)/python -m benchmarks $(call option,only,ONLY) $(call option,shapes,SHAPES) $(call option,networks,NETWORKS) $(call option,contenders,CONTENDERS) $(call option,runs,RUNS) $(call option,patience,PATIENCE) $(call option,json,JSON)

.PHONY: docs
docs: $(DOCS_READY) ## Build the documentation as a site, with a reference generated from the code: .local/docs/html
	@PYTHONPATH=tools $(BIN)/python -W ignore -m documentation $(LOCAL)/docs

.PHONY: dist
dist: $(TEST_READY) ## Build what a release publishes, and try it in a fresh environment: .local/dist
	@PYTHONPATH=tools $(BIN)/python -m release $(LOCAL)/dist

.PHONY: lock
lock: $(TEST_READY) ## Lock the packages again after a change of pyproject.toml; newer ones with UPGRADE=--upgrade
	@$(LOCK) --extra amazon --extra postgresql --extra s3 --group dev --output-file requirements/dev.txt
	@$(LOCK) --extra postgresql --group build --constraint requirements/dev.txt --output-file requirements/runtime.txt
	@$(LOCK:3.10=3.11) --extra postgresql --extra docs --constraint requirements/dev.txt --output-file requirements/docs.txt
	@$(LOCK_GROUP) --group pulp-today --output-file requirements/pulp-today.txt
	@$(LOCK_GROUP) --group pulp-then --output-file requirements/pulp-then.txt
	@$(LOCK_GROUP) --no-deps --group lineage --constraint requirements/dev.txt --output-file requirements/lineage.txt
	@$(LOCK_GROUP) --no-deps --group notifiers --constraint requirements/dev.txt --output-file requirements/notifiers.txt

.PHONY: clean
clean: ## Stop what runs and remove .local/
	@if [ -x $(BIN)/python ] && [ -e $(LOCAL)/run/instance.json ]; then $(LOCAL_AIRFLOW) down; fi
	@rm -rf $(LOCAL)

# -- set-up: the stamps are in the environment that they describe ------------------------------------------------

$(STATE)/venv: $(if $(wildcard $(BIN)/python),,FORCE)
	@tools/bootstrap.sh venv $(VENV)
	@mkdir -p $(STATE) && touch $@

$(STATE)/runtime: requirements/runtime.txt $(STATE)/venv
	@tools/bootstrap.sh requirements $(VENV) $<
	@touch $@

$(STATE)/dev: requirements/dev.txt $(STATE)/runtime
	@tools/bootstrap.sh requirements $(VENV) $<
	@touch $@

$(STATE)/docs: requirements/docs.txt $(STATE)/runtime
	@$(BIN)/python -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "The site is built with Python 3.11 or later")'
	@tools/bootstrap.sh requirements $(VENV) $<
	@touch $@

$(STATE)/project: pyproject.toml $(STATE)/runtime
	@tools/bootstrap.sh project $(VENV)
	@touch $@

$(STATE)/debian: tools/debian-packages.txt $(STATE)/venv
	@tools/bootstrap.sh debian $<
	@touch $@

$(LOCAL)/pulp/%/installed: requirements/pulp-%.txt
	@tools/bootstrap.sh venv $(@D)
	@tools/bootstrap.sh requirements $(@D) $<
	@touch $@

$(LOCAL)/lineage/installed: requirements/lineage.txt $(STATE)/dev
	@tools/bootstrap.sh folder $(VENV) $< $(@D)
	@touch $@

$(LOCAL)/notifiers/installed: requirements/notifiers.txt $(STATE)/dev
	@tools/bootstrap.sh folder $(VENV) $< $(@D)
	@touch $@

$(LOCAL)/go/built: tools/go-programs.txt
	@tools/bootstrap.sh go $< $(@D)/bin
	@touch $@

$(LOCAL)/receivers/built: tools/receiver-programs.txt tools/receivers/go.mod $(wildcard tools/receivers/*/*.go)
	@tools/bootstrap.sh go $< $(@D)/bin
	@tools/bootstrap.sh go-module tools/receivers $(@D)/bin
	@touch $@

.PHONY: FORCE
FORCE:
