# What tasks run in. `submit image build` builds it with your own requirements and modules and says what it did; by hand:
#   docker build --platform linux/amd64 -t foldfleet .                 scikit-learn alone
#   docker build --platform linux/amd64 -t foldfleet --target h2o .    with H2O and Java
# It keeps to what the classic builder understands: the Docker SDK has no BuildKit.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# --- the locked packages: unchanged, and cached, as long as the lock is ---
FROM ${BASE_IMAGE} AS packages
# Another index, if the build is given one; whatever it serves must have the lock's hashes.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_PROGRESS_BAR=off
RUN python3 -m venv /opt/foldfleet
COPY requirements.lock /build/
RUN /opt/foldfleet/bin/python -m pip install --quiet --only-binary :all: --require-hashes -r /build/requirements.lock \
 && /opt/foldfleet/bin/python -m pip list --format freeze >/build/constraints.txt

# --- the same without what no task runs; byte code is made here, since the image's file system may be read-only ---
FROM packages AS slim
# Tests, headers, installers, and Arrow's network protocol: a sixth of the size. Only Debian's packages stay as they are.
RUN /opt/foldfleet/bin/python -m pip uninstall --quiet --yes pip setuptools \
 && cd /opt/foldfleet && rm -rf include share && find bin -type f -delete && cd lib/python3*/site-packages \
 && rm -rf _distutils_hack distutils-precedence.pth pkg_resources \
 && find numpy scipy sklearn pyarrow joblib -depth -type d \( -name tests -o -name include \) -exec rm -rf {} + \
 && rm -rf joblib/test pyarrow/src pyarrow/_flight.* pyarrow/libarrow_flight.* pyarrow/libarrow_python_flight.* \
 && /opt/foldfleet/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .

# --- foldfleet itself ---
FROM packages AS project
COPY pyproject.toml README.md LICENSE /build/
COPY jobspec /build/jobspec
COPY containers /build/containers
COPY submitter /build/submitter
RUN cd /build && /opt/foldfleet/bin/python -m pip install --quiet --no-index --no-deps --no-build-isolation \
    --prefix /project . \
 && /opt/foldfleet/bin/python -m compileall -q --invalidation-mode unchecked-hash /project

# --- the user's own requirements, held to the versions of the lock; nothing by default ---
FROM packages AS requirements
# (A copy fails if it finds nothing; the lock is always there.)
COPY requirements.lock requirement[s].txt /build/
# One stream, so that a refusal's lines stay in their order.
RUN exec 2>&1 && mkdir -p /requirements && cd /build && if [ -s requirements.txt ]; then PYTHONUNBUFFERED=1 \
      /opt/foldfleet/bin/python -m pip install --prefix /requirements -c constraints.txt -r requirements.txt \
      && /opt/foldfleet/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /requirements; fi

# --- the user's own modules; nothing by default ---
FROM packages AS modules
COPY pyproject.toml module[s] /modules/
RUN rm /modules/pyproject.toml && /opt/foldfleet/bin/python -m compileall -q --invalidation-mode unchecked-hash /modules

# --- scikit-learn alone: the default ---
FROM ${BASE_IMAGE} AS sklearn
# The base's own installers, where it has any.
RUN python3 -m pip uninstall --quiet --yes --root-user-action ignore setuptools wheel pip 2>/dev/null || true
COPY --from=slim /opt/foldfleet /opt/foldfleet
COPY --from=requirements /requirements /opt/foldfleet
COPY --from=project /project /opt/foldfleet
COPY --from=modules /modules /opt/foldfleet-user
# Where AWS Batch mounts a folder of the host; a volume without one takes its owner from here.
RUN install -d -o 10001 -g 10001 /var/lib/foldfleet
ARG ALLOWED_MODULES=""
# Any uid may run it, without a name or a home; and there is nothing to write but what is mounted.
ENV PATH=/opt/foldfleet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 \
    FOLDFLEET_ALLOWED_MODULES=${ALLOWED_MODULES} FOLDFLEET_MODULE_PATH=/opt/foldfleet-user
WORKDIR /tmp
USER 10001:10001
# What follows names a module: `containers` for every step, `submitter.planner` where a state machine plans.
ENTRYPOINT ["/opt/foldfleet/bin/python", "-P", "-m"]
CMD ["containers", "--help"]
# Last, since labels differ from build to build. `foldfleet.engine_id` is set once the image has said what it computes.
ARG VERSION=unknown
ARG LOCK_DIGEST=unknown
LABEL org.opencontainers.image.title="foldfleet" \
      org.opencontainers.image.description="Cross-validated model search as one array job" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      foldfleet.lock="${LOCK_DIGEST}" \
      foldfleet.engine_id="unknown"

# --- with H2O and Java ---
FROM packages AS h2o-packages
COPY requirements-h2o.lock /build/
# The lock with H2O has the other packages at the same versions: they are there already.
RUN /opt/foldfleet/bin/python -m pip install --quiet --only-binary :all: --require-hashes --prefix /h2o \
    -r /build/requirements-h2o.lock \
 && /opt/foldfleet/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /h2o

FROM sklearn AS h2o
USER root
RUN apt-get update -qq && mkdir -p /usr/share/man/man1 \
 && apt-get install -qq -y --no-install-recommends openjdk-17-jre-headless >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* /usr/share/man/*
COPY --from=h2o-packages /h2o /opt/foldfleet
USER 10001:10001

# A plain `docker build .` makes the last stage. The classic builder makes every stage before its target, hence this order.
FROM sklearn
