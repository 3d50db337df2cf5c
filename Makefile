# SPDX-License-Identifier: Apache-2.0
#
# Everything runs from .venv, which stands on Debian's own interpreter: its python3-bpfcc is the
# only bcc, and whatever other python3 comes first in PATH does not see it.
PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

C_FILES := $(wildcard bpf/*.c bpf/*.h bench/ipvs/*.c bench/lab/*.c bench/lab/*.h \
	ebpfmesh/lab/images/*.c tests/lab/faults/*.c)

# Under sudo, what needs no root is done as the user who called it, so that nothing in a checkout
# of theirs ends up as root's. A checkout that is root's own stays so.
USER_OF_SUDO := $(if $(filter $(SUDO_UID),$(shell stat -c %u .)),sudo -EH -u $(SUDO_USER))

# Root leaves no caches behind, for the same reason.
ROOT_PYTEST := PYTHONDONTWRITEBYTECODE=1 $(BIN)/pytest -p no:cacheprovider

# Whole files go to so many workers, in order of their names. In xdist's own order the fewest tests
# come last, and with them the longest: the fuzzer's.
WORKERS := 2
SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# One after the other, but for what only reads (`checks`).
ifndef ONLY_READING
.NOTPARALLEL:
endif
.DELETE_ON_ERROR:

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: packages $(STAMP) ## Debian packages (needs root if any is missing) and .venv

.PHONY: packages
packages:
	@scripts/setup-debian.sh

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "run: sudo make setup" >&2; exit 1; }
	$(USER_OF_SUDO) $(PYTHON) -m venv --system-site-packages $(VENV)
	$(USER_OF_SUDO) $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(USER_OF_SUDO) touch $@

.PHONY: demo
demo: need-root setup ## A Swarm of three nodes on this machine, balanced by ebpfmesh (root)
	$(BIN)/ebpfmesh demo

.PHONY: test
test: need-root setup checks unit bpf lab ## All of the checks below (root)

DOCS_STAMP := $(VENV)/.installed-docs

.PHONY: checks
checks: $(STAMP) $(DOCS_STAMP)
	@scripts/setup-tools.sh alerts promtool:prometheus
	$(MAKE) --jobs $(WORKERS) --output-sync=target --no-print-directory ONLY_READING=1 \
		types lint alerts docs

.PHONY: lint
lint: $(STAMP) ## Style, format and direction of imports
	$(USER_OF_SUDO) $(BIN)/ruff check .
	$(USER_OF_SUDO) $(BIN)/ruff format --check .
	$(if $(C_FILES),$(BIN)/clang-format --dry-run -Werror $(C_FILES))
	$(USER_OF_SUDO) $(BIN)/lint-imports --no-logo

.PHONY: types
types: $(STAMP) ## mypy --strict
	$(USER_OF_SUDO) $(BIN)/mypy

.PHONY: unit
unit: $(STAMP) ## Tests of pure code: no root, no kernel, no Docker
	$(USER_OF_SUDO) $(BIN)/pytest $(SIDE_BY_SIDE) tests/unit

.PHONY: alerts
alerts: $(STAMP) ## Prometheus's own opinion of rules and metrics (root, to install it)
	@scripts/setup-tools.sh alerts promtool:prometheus
	$(USER_OF_SUDO) $(BIN)/pytest tests/alerts

# PICTURES=/tmp keeps what it has looked at, as PNGs.
.PHONY: test-page
test-page: $(STAMP) ## The agent's page in headless Chromium (root, to install it)
	@scripts/setup-tools.sh test-page chromium:chromium
	$(USER_OF_SUDO) env PICTURES=$(PICTURES) $(BIN)/pytest tests/page

.PHONY: test-page-lab
test-page-lab: need-root $(STAMP) ## The page of a real agent under load, by a browser on the lab's LAN (root)
	@scripts/setup-tools.sh test-page-lab chromium:chromium
	PICTURES=$(PICTURES) $(ROOT_PYTEST) -o python_files=shown.py tests/lab/page

$(DOCS_STAMP): $(STAMP)
	$(USER_OF_SUDO) $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@$(USER_OF_SUDO) touch $@

.PHONY: docs
docs: $(DOCS_STAMP) ## The documentation as pages, in build/docs; no warning is let through
	$(USER_OF_SUDO) env NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# These wait for the kernel, mostly.
bpf: WORKERS = 3

.PHONY: bpf
bpf: need-root $(STAMP) ## Packets through the programs in the kernel (root)
	$(ROOT_PYTEST) $(SIDE_BY_SIDE) tests/bpf

COUNT := 1000000
SEED := 1

.PHONY: fuzz
fuzz: need-root $(STAMP) ## Hostile packets through every program, COUNT=1000000 SEED=1 (root)
	PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.bpf.fuzz --count $(COUNT) --seed $(SEED)

.PHONY: lab
lab: need-root $(STAMP) ## Traffic through a real Swarm in network namespaces (root)
	@scripts/setup-tools.sh lab prometheus:prometheus
	$(ROOT_PYTEST) tests/lab

TIMES := 1
MINUTES := 20

# TIMES=2 makes each twice as often (updates: ten times); ONLY="update,worker" those that begin so.
.PHONY: test-changes
test-changes: need-root $(STAMP) ## Every change under load, TIMES=1; prints a table (root; slow)
	cd tests && PYTHONDONTWRITEBYTECODE=1 ../$(BIN)/python -m lab.changes --times $(TIMES) \
		"--only=$(ONLY)"

# LOGS=/tmp/logs keeps what dockerd and agents had to say.
.PHONY: test-chaos
test-chaos: need-root $(STAMP) ## Changes at random under load, SEED=1 MINUTES=20 (root; slow)
	cd tests && PYTHONDONTWRITEBYTECODE=1 ../$(BIN)/python -m lab.changes.chaos --seed $(SEED) \
		--minutes $(MINUTES) $(addprefix --logs=,$(LOGS))

# KERNEL=6.1 tests on that one only; ONLY=load loads the programs, and leaves the tests out.
.PHONY: test-kernels
test-kernels: need-root $(STAMP) ## The BPF tests on Debian's kernels, in QEMU (root; slow)
	@scripts/setup-kernels.sh
	PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.kernels $(addprefix --kernel=,$(KERNEL)) \
		$(if $(filter load,$(ONLY)),--load-only) $(addprefix --mirror=,$(MIRROR))

# SUITE=trixie tries it on that one only; ONLY=unit without dockerd.
.PHONY: test-systemd
test-systemd: wheel ## docs/install.md under the systemd of Debian 12 and 13 (root; needs debootstrap)
	@scripts/setup-roots.sh
	PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.systemd $(addprefix --suite=,$(SUITE)) \
		$(addprefix --mirror=,$(MIRROR)) $(if $(filter unit,$(ONLY)),--without-docker)

.PHONY: wheel
wheel: need-root $(STAMP) ## dist/ebpfmesh-*.whl, with the compiled programs in it (root)
	scripts/wheel.sh $(BIN)/python

IMAGE := ebpfmesh:latest

.PHONY: image
image: wheel ## The image of deploy/Dockerfile, by this machine's Docker: IMAGE=ebpfmesh:latest (root)
	docker build --file deploy/Dockerfile --tag $(IMAGE) .

.PHONY: image-archive
image-archive: need-root $(STAMP) ## dist/ebpfmesh-image.tar for docker load; needs no registry (root)
	@scripts/setup-roots.sh
	scripts/wheel.sh $(BIN)/python
	cd tests && PYTHONDONTWRITEBYTECODE=1 ../$(BIN)/python -m lab.deploy ../dist/ebpfmesh-image.tar

.PHONY: lock
lock: $(STAMP) ## deploy/requirements.txt: what the image installs, with hashes
	$(BIN)/python scripts/lock.py >deploy/requirements.txt.new
	mv deploy/requirements.txt.new deploy/requirements.txt

# Tests that are no test_*.py are not found by the others' runs.
.PHONY: test-deploy
test-deploy: need-root $(STAMP) ## The image in a stack on the lab's Swarm (root; needs debootstrap)
	@scripts/setup-roots.sh
	$(ROOT_PYTEST) --timeout 1800 -o python_files=deployed.py tests/lab/deploy

# ENGINE=sid tests with that one only; TESTS="tests/lab/test_vip.py ..." runs these only.
.PHONY: test-engines
test-engines: need-root $(STAMP) ## Lab tests on Docker Engine 20.10, 26.1, 28.5 (root; slow)
	@scripts/setup-roots.sh
	cd tests && PYTHONDONTWRITEBYTECODE=1 ../$(BIN)/python -m lab.engines \
		$(addprefix --engine=,$(ENGINE)) $(TESTS)

.PHONY: sbom
sbom: $(STAMP) ## build/sbom.json: what the image is made of; with IMAGE=NAME (or archive) its Debian packages
	mkdir -p build
	$(BIN)/python -m scripts.sbom $(if $(filter command line,$(origin IMAGE)),$(IMAGE)) >build/sbom.json

BENCH_STAMP := $(VENV)/.installed-bench

$(BENCH_STAMP): $(STAMP)
	$(USER_OF_SUDO) $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@$(USER_OF_SUDO) touch $@

# ARGS go to the bench: ARGS=--quick to see that it works, ARGS=--help for all. What it does on a
# busy machine is of no use: bench/README.md.
BENCH := PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m bench

.PHONY: bench-maglev
bench-maglev: need-root $(BENCH_STAMP) ## Lookup tables: time to build, balance, what moves (root)
	$(BENCH).maglev $(ARGS)

.PHONY: bench-programs
bench-programs: need-root $(BENCH_STAMP) ## Nanoseconds per packet of each program (root)
	$(BENCH).programs $(ARGS)

.PHONY: bench-lab
bench-lab: need-root $(BENCH_STAMP) ## Paths to a task: direct, ebpfmesh, iptables, nftables (root)
	@scripts/setup-tools.sh bench-lab nft:nftables
	$(BENCH).lab $(ARGS)

.PHONY: bench-convergence
bench-convergence: need-root $(BENCH_STAMP) ## From a change to the maps of each node, in the lab (root)
	$(BENCH).convergence $(ARGS)

.PHONY: bench-scale
bench-scale: need-root $(BENCH_STAMP) ## A made-up Swarm of 10,000 tasks: hub and agents (root)
	$(BENCH).scale $(ARGS)

.PHONY: bench-ipvs
bench-ipvs: need-root $(BENCH_STAMP) ## Against IPVS: instructions per packet of a QEMU guest (root; slow)
	@scripts/setup-kernels.sh
	$(BENCH).ipvs $(addprefix --mirror=,$(MIRROR)) $(ARGS)

.PHONY: need-root
need-root:
	@test "$$(id -u)" = 0 || { echo "this needs root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }

.PHONY: format
format: $(STAMP) ## Put Python and C into their format
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .
	$(if $(C_FILES),$(BIN)/clang-format -i $(C_FILES))

.PHONY: clean
clean: ## Remove .venv, what was built and every cache
	rm -rf $(VENV) build dist .coverage .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
