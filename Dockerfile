# The image of the service: `docker build --build-arg EPP_BUILD_COMMIT=$(git rev-parse HEAD) -t endpoint-picker .`
# Pin the bases by digest for a release: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:...
# All are of one Debian release: the extension runs with the C library that it is linked with. Its Python may be another.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
# with a C compiler, which links
ARG COMPILER_IMAGE=python:3.13-bookworm
ARG RUST_IMAGE=rust:1.95-slim-bookworm

FROM ${RUST_IMAGE} AS rust

FROM ${COMPILER_IMAGE} AS native
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
WORKDIR /src
COPY requirements-build.lock ./
RUN python -m pip install --require-hashes -r requirements-build.lock
WORKDIR /src/native
# the pinned crates first, below an empty crate: this layer is built again only when they change
COPY native/Cargo.toml native/crates.txt native/crates.py native/pyproject.toml ./
RUN mkdir src && touch src/lib.rs && python crates.py pin \
 && maturin build --release --strip --locked --interpreter python --out /empty
COPY native/epp_native.pyi ./
COPY native/src ./src
# cargo goes by times, and those of the sources may be before that of the empty crate
RUN touch src/lib.rs && maturin build --release --strip --locked --interpreter python --out /dist

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/epp
# dependencies first: this layer is built again only when the lock changes
COPY requirements-build.lock requirements-runtime.lock requirements-last.lock ./
RUN python -m pip install --require-hashes -r requirements-build.lock \
 && python -m pip --python /opt/epp/bin/python install --require-hashes --only-binary :all: -r requirements-runtime.lock \
 && python -m pip --python /opt/epp/bin/python install --require-hashes --only-binary :all: --no-deps --force-reinstall -r requirements-last.lock
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY plugins ./plugins
COPY epp ./epp
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && python -m pip --python /opt/epp/bin/python install --no-deps --no-index /dist/*.whl
COPY --from=native /dist /dist/native
RUN python -m pip --python /opt/epp/bin/python install --no-deps --no-index /dist/native/*.whl
COPY docker/prune_protos.py ./docker/
# pip has compiled everything, so nothing is written when the service runs
RUN PYTHONDONTWRITEBYTECODE=1 /opt/epp/bin/python docker/prune_protos.py

FROM ${PYTHON_IMAGE}
ARG EPP_BUILD_COMMIT=""
ARG EPP_BUILD_REF=""
LABEL org.opencontainers.image.title="endpoint-picker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${EPP_BUILD_COMMIT}"
# PYTHONSAFEPATH: `python -m` must not look for modules in the working directory
ENV PATH=/opt/epp/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    EPP_BUILD_COMMIT=${EPP_BUILD_COMMIT} \
    EPP_BUILD_REF=${EPP_BUILD_REF}
COPY --from=build /opt/epp /opt/epp
WORKDIR /
USER 65532:65532
# ext_proc, gRPC health, metrics
EXPOSE 9002 9003 9090
ENTRYPOINT ["python", "-m", "epp"]
CMD ["--help"]
