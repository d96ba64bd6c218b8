# The environment of every Headrace process: Airflow, Dask, DVC, Feast, and the engine as a wheel. Three targets: cpu, kubernetes, rapids.
# A project is not in the image: processes import the declarations of the workspace, a git clone, at the commit that it is at.

# The wheel, built with the tools that the locks pin.
FROM python:3.11.14-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY headrace headrace
RUN --mount=type=bind,source=requirements/bootstrap.txt,target=/tmp/bootstrap.txt \
    --mount=type=bind,source=requirements/dev.txt,target=/tmp/dev.txt \
    pip install --no-cache-dir --require-hashes --requirement /tmp/bootstrap.txt \
    && uv build --wheel --build-constraints /tmp/dev.txt --require-hashes --out-dir /wheels


FROM python:3.11.14-slim-bookworm AS cpu

# hadolint ignore=DL3008 # Debian keeps only the newest version of a package; the base image's tag fixes the rest
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl git openssh-client openssl \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/environment/bin:$PATH \
    PYTHONUNBUFFERED=1

# Byte-compiled here, once: the user at run time may not write into the environment.
COPY infra/images/install-lock.sh /usr/local/bin/install-lock
RUN --mount=type=bind,source=requirements/runtime.txt,target=/tmp/runtime.txt \
    python -m venv /opt/environment \
    && install-lock /tmp/runtime.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

# The checkout that compose.yaml mounts belongs to another user; git refuses to read it unless it is listed.
RUN git config --system --add safe.directory /repository \
    && git config --system --add safe.directory /repository/.git

# User 50000 of group 0: what Airflow's Helm chart and OpenShift expect.
RUN useradd --uid 50000 --gid 0 --create-home airflow \
    && install --directory --owner=50000 --group=0 --mode=0770 /opt/airflow /srv/dask-tls /srv/headrace /workspace

COPY infra/images/create-certificate.sh /usr/local/bin/create-certificate
COPY infra/images/open-workspace.sh /usr/local/bin/open-workspace
COPY infra/images/airflow-healthy.sh /usr/local/bin/airflow-healthy
COPY infra/images/airflow-init.sh /usr/local/bin/airflow-init

ENV AIRFLOW_HOME=/opt/airflow \
    HEADRACE_WORKSPACE=/workspace
USER 50000:0
WORKDIR /workspace
CMD ["headrace", "--help"]


# The same environment plus what Airflow needs to start a pod per task, to keep its log on S3, and to read DAG files from git.
FROM cpu AS kubernetes

USER 0:0
RUN --mount=type=bind,source=requirements/kubernetes.txt,target=/tmp/kubernetes.txt \
    install-lock /tmp/kubernetes.txt
USER 50000:0


# The same environment plus what cudf-polars needs; the driver comes from the host (NVIDIA Container Toolkit).
FROM cpu AS rapids

USER 0:0
RUN --mount=type=bind,source=requirements/gpu.txt,target=/tmp/gpu.txt \
    install-lock /tmp/gpu.txt

ENV HEADRACE_ENGINE=gpu \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all
USER 50000:0
