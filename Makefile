# Two commands do everything on a fresh Debian or Ubuntu machine, as root: make run, make test.

# The distribution's own Python starts fastest; any of 3.10 or later will do.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
PREFIX ?= /opt/minirun
BINDIR ?= /usr/local/bin
VENV := .venv
MINIRUN := $(VENV)/bin/minirun
SOURCES := $(wildcard csrc/*) setup.py pyproject.toml minirun/linux/ffi_build.py minirun/linux/seccomp_build.py

.DEFAULT_GOAL := help
.PHONY: help run test install uninstall build bench lint format vm vm-images vm-qemu vm-shell clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## install what is needed, build, and run `minirun run --net br0 alpine sh`
	@scripts/first-run.sh $(MINIRUN)

test: vm-images ## install what is needed and pass all tests
	@scripts/provision.sh test vm clients
	$(VENV)/bin/pytest -q

install: ## install into $(PREFIX), with a link in $(BINDIR)
	@scripts/provision.sh build run
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/pip install --quiet .
	$(PREFIX)/bin/python scripts/launcher.py $(PREFIX)/bin/minirun
	ln -sf $(PREFIX)/bin/minirun $(PREFIX)/bin/minirun-oci $(PREFIX)/bin/minirun-cni $(BINDIR)
	@$(BINDIR)/minirun version

uninstall: ## remove what `make install` installed (images and networks stay)
	rm -f $(BINDIR)/minirun $(BINDIR)/minirun-oci $(BINDIR)/minirun-cni
	rm -rf $(PREFIX)

build: $(VENV)/.built ## build in this checkout; the programs are .venv/bin/minirun, minirun-oci and minirun-cni

$(VENV)/.packages: pyproject.toml scripts/provision.sh
	@scripts/provision.sh build run
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet setuptools $$($(PYTHON) scripts/requirements.py)
	@touch $@

$(VENV)/.built: $(VENV)/.packages $(SOURCES) scripts/launcher.py
	$(VENV)/bin/python setup.py --quiet build_ext --inplace
	$(VENV)/bin/python scripts/launcher.py $(MINIRUN) .
	@touch $@

bench: build ## medians of interleaved runs beside runc, crun, podman and docker, where installed
	$(VENV)/bin/python tests/bench/bench.py

lint: build ## ruff, mypy --strict, clang-format, -Werror (the tests run these too)
	$(VENV)/bin/pytest -q tests/lint

format: ## reformat Python and C
	$(VENV)/bin/ruff format minirun tests scripts setup.py
	$(VENV)/bin/ruff check --fix minirun tests scripts setup.py
	clang-format -i csrc/*.c csrc/*.h

vm-images: build
	$(MINIRUN) --root build/vm-images --state build/vm-images/state image build busybox

vm: vm-images ## the cgroup v2 tests in a throw-away User-mode Linux
	@scripts/provision.sh vm
	$(VENV)/bin/python tests/vm/vm.py --kind uml -- $(CURDIR)/$(VENV)/bin/pytest -q -p no:cacheprovider tests/vm/guest

vm-qemu: vm-images ## the same in qemu with a Debian kernel, networks included
	@scripts/provision.sh vm
	$(VENV)/bin/python tests/vm/vm.py --kind qemu -- $(CURDIR)/$(VENV)/bin/pytest -q -p no:cacheprovider tests/vm/guest

vm-shell: vm-images ## a shell in User-mode Linux, with cgroup v2; exit ends it
	@scripts/provision.sh vm
	$(VENV)/bin/python tests/vm/vm.py --kind uml

clean: ## remove what was built here
	rm -rf $(VENV) build *.egg-info minirun/libexec minirun/linux/*.so
