# Flashplane: `make up` runs the product, `make test` proves it. Both set up .venv first.

BIN := .venv/bin
UP_FLAGS := $(if $(DETACH),--detach) $(if $(FRESH),--fresh) \
	$(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) \
	$(if $(MODEL),--model $(MODEL)) $(if $(ADMIN_PORT),--admin-port $(ADMIN_PORT)) $(if $(WORKER_PORT),--worker-port $(WORKER_PORT))
COMPILE := $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	--strip-extras --allow-unsafe --all-build-deps
RUNTIME_EXTRAS := --extra controlplane --extra worker --extra embedded

.DEFAULT_GOAL := help
.PHONY: help up down status test test-gpu storm bench bench-kernels bench-operator bench-money lint lock install install-dev

help: ## Tell what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: install ## Run everything: DETACH=1 FRESH=1 MODEL=tiny HOST= PORT= ADMIN_PORT= WORKER_PORT=
	@$(BIN)/flashplane up $(strip $(UP_FLAGS))

down: install ## Stop what `make up` started
	@$(BIN)/flashplane down

status: install ## Tell what runs
	@$(BIN)/flashplane status

test: install-dev ## Run all tests, two at a time: ARGS="-k gateway -n 0"
	@$(BIN)/pytest -m "not storm" -n 2 --dist loadfile $(ARGS)

test-gpu: install-dev ## Run the tests of kernels on a Hopper GPU, long ones too
	@$(BIN)/pytest tests/unit/worker/kernels $(ARGS)

storm: install-dev ## Run the long fault storms
	@$(BIN)/pytest -m storm $(ARGS)

bench: install-dev ## Measure the engine, 30 minutes: ARGS=--quick
	@$(BIN)/python -m benchmarks.engine $(ARGS)

bench-kernels: install-dev ## Measure kernels on a Hopper GPU: ARGS="--rows 1,3 --quick"
	@$(BIN)/python -m benchmarks.kernels $(ARGS)

bench-operator: install-dev ## Measure the operator with 5,000 replicas, 20 minutes: ARGS=--quick
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.operator $(ARGS)

bench-money: install-dev ## Measure holds, settlement and invoices; usage and recovery with ARGS="--events 10000000 --mib 1024"
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.money $(ARGS)

lint: install-dev ## Check format, style, types and floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: install-dev ## Resolve the locked versions anew: ARGS=--upgrade
	$(COMPILE) $(ARGS) $(RUNTIME_EXTRAS) --output-file requirements.lock pyproject.toml
	$(COMPILE) $(ARGS) $(RUNTIME_EXTRAS) --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml
	$(COMPILE) $(ARGS) --extra controlplane --constraint requirements.lock \
		--output-file deploy/controlplane.lock pyproject.toml
	$(COMPILE) $(ARGS) --extra worker --constraint requirements.lock \
		--output-file deploy/worker.lock pyproject.toml
	$(BIN)/python deploy/without_torch.py requirements.lock requirements-dev.lock \
		deploy/controlplane.lock deploy/worker.lock

install:
	@deploy/install runtime

install-dev:
	@deploy/install dev
