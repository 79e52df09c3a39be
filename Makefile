# Two commands matter: `make demo` and `make test`. Both set up what they need in .venv, from the locked versions.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
comma := ,

NATIVE := $(VENV)/.native
NATIVE_SOURCES := $(shell find native -name '*.rs' -not -path 'native/target/*' 2>/dev/null) native/Cargo.toml native/crates.txt native/pyproject.toml
HAS_CARGO := $(shell command -v cargo 2>/dev/null)
HAS_CHROMIUM := $(shell command -v chromium 2>/dev/null)

.PHONY: demo test check unit native check-native kube soak bench bench-micro ghz monitoring-tools protos lock wheel clean setup

demo: native
	$(BIN)/epp demo $(ARGS)

test: check native check-native unit

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: native
	$(BIN)/python -m pytest -n 2 --require=envoy,redis$(if $(HAS_CARGO),$(comma)native)$(if $(KUBE),$(comma)kube)$(if $(wildcard $(BIN)/promtool),$(comma)prometheus)$(if $(HAS_CHROMIUM),$(comma)chromium) $(ARGS)

# What tests/kube runs: kube-apiserver and helm from their Go modules, kept outside of this folder; etcd is Debian's etcd-server.
# Without them these tests skip; `make test KUBE=1` demands them.
kube: setup
	$(BIN)/python -m tests.kube.build
	@command -v etcd >/dev/null || echo 'etcd is not there: install the package etcd-server'

# The native transport: built where cargo is; everything works without it, slower.
ifdef HAS_CARGO
native: $(NATIVE)

$(NATIVE): $(STAMP) $(NATIVE_SOURCES)
	cd native && ../$(BIN)/python crates.py pin
	cd native && ../$(BIN)/maturin build --quiet --release --locked --interpreter ../$(BIN)/python --out ../dist/native
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall dist/native/epp_native-*.whl
	@touch $(NATIVE)

check-native: native
	cd native && ../$(BIN)/python crates.py check
	cd native && cargo fmt --check
	cd native && cargo clippy --quiet --locked --all-targets -- --deny warnings
	cd native && cargo test --quiet --locked --no-default-features
else
native: setup
	@echo 'cargo is not there: the native transport is not built, the picker serves through grpcio'

check-native: native
endif

soak: native
	$(BIN)/python -m tests.soak $(ARGS)

# Our picker against the naive one, in alternating segments of one run; other runs: bench/README.md.
BENCH_ARGS ?= --picker 'ours=$(BIN)/python -m epp serve --bind-address 127.0.0.1 --secure-serving=false --config-file {config} --grpc-port {port} --grpc-health-port {health_port} --metrics-port {metrics_port}' \
  --picker 'naive=$(BIN)/python -m bench.naive_picker --port {port} --endpoints {endpoints}'

bench: native
	$(BIN)/python -m bench.load $(BENCH_ARGS) $(ARGS)

bench-micro: setup
	$(BIN)/python -m bench.micro.request $(ARGS)

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock requirements-last.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); $(PYTHON) -m pip install --quiet --user virtualenv || $(PYTHON) -m pip install --quiet --user --break-system-packages virtualenv; $(PYTHON) -m virtualenv --quiet $(VENV); }
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall --require-hashes -r requirements-last.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# The load generator of `python -m bench.grpc_load`, from its Go module.
GHZ_VERSION := v0.120.0
ghz: setup
	@if command -v go >/dev/null; then GOBIN='$(abspath $(BIN))' go install github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION); \
	else echo 'go is not there: ghz is not built, bench.grpc_load skips'; fi

# Prometheus and promtool, with which tests check dashboards and alerts: Debian's package, unpacked beside Python, not installed.
monitoring-tools: setup
	@if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then \
	  mkdir -p $(VENV)/monitoring && cd $(VENV)/monitoring && rm -f prometheus_*.deb && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
	  && dpkg-deb -x prometheus_*.deb . && ln -sf ../monitoring/usr/bin/prometheus ../monitoring/usr/bin/promtool ../bin/ \
	  || echo 'the package prometheus cannot be had: tests of dashboards and alerts skip'; \
	else echo 'this is no Debian: tests of dashboards and alerts skip unless prometheus and promtool are on PATH'; fi

# Python classes and Rust field numbers from protos/; a test says when they are not current.
protos: setup
	$(BIN)/python protos/generate.py

# requirements-last.lock: installed after all others, as xds-protos brings older copies of the files of opentelemetry-proto.
# One lock for Python 3.11 to 3.13, with hashes and without the address of any index; and its subsets for the image.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

# What the image can do beyond the bare package.
IMAGE_EXTRAS := kubernetes kv-events redis tokenizer tracing

lock:
	$(COMPILE) --extra test pyproject.toml --output-file requirements.lock
	$(COMPILE) $(IMAGE_EXTRAS:%=--extra %) --constraint requirements.lock pyproject.toml --output-file requirements-runtime.lock
	printf 'opentelemetry-proto\n' | $(COMPILE) --no-deps --constraint requirements.lock - --output-file requirements-last.lock
	printf 'hatchling\nmaturin\n' | $(COMPILE) --constraint requirements.lock - --output-file requirements-build.lock

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@test -z '$(HAS_CARGO)' || $(MAKE) --no-print-directory native

clean:
	rm -rf $(VENV) dist build native/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
