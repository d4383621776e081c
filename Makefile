# Finer targets than ./run and ./check. All of them want the environment that `make dev` prepares.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
BIN := .venv/bin
CODE := $(wildcard src tests bench scripts)
# Tests start hundreds of processes: without compiled files each would read all of our source anew.
export PYTHONDONTWRITEBYTECODE :=
QUICK := not vm and not net and not pg and not slow

.PHONY: dev environment demo lint format test-fast net vm check bench lock docs

dev: ## everything that tests, linters and the product need on this machine
	@. scripts/prepare.sh && prepare dev

environment: ## only .venv; needs no root
	@. scripts/prepare.sh && prepare_environment dev

demo: environment ## everything on simulated hosts
	$(BIN)/inn demo

lint: environment
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo

format: environment
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

test-fast: environment ## no root, no KVM, no network, less than a minute
	$(BIN)/pytest -n 3 -m "$(QUICK)"

net: dev ## root and network namespaces, or a PostgreSQL server of our own
	$(BIN)/pytest -m "(net or pg) and not vm and not slow"

vm: dev ## real QEMU, and whatever takes long
	$(BIN)/pytest -n 2 --dist loadfile -m "vm or slow"

check:
	./check

bench: dev
	for bench in $$(grep -l __main__ bench/*.py); do $(BIN)/python "$$bench"; done

# The resolver does not read pip's configuration, so the hashes are those of the public index, for every platform.
# Pins stay as they are unless asked: make lock UPGRADE=--upgrade
RESOLVE = build/uv/bin/uv pip compile pyproject.toml --group build --universal --python-version 3.11 --quiet \
	--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' $(UPGRADE)

lock: ## pins and hashes of all that is installed by pip
	python3 -m venv build/uv
	build/uv/bin/pip install --quiet --upgrade uv
	$(RESOLVE) --output-file requirements.lock
	$(RESOLVE) --group dev --constraint requirements.lock --output-file requirements-dev.lock
	rm -rf build/uv

docs: environment ## docs/reference from the program itself; then every link is checked
	if [ -f scripts/reference.py ]; then $(BIN)/python scripts/reference.py docs/reference; fi
	$(BIN)/pytest -q tests/house/test_documents.py
