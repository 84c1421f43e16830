# Airflow with registry-sync, for docker-compose.yaml: every package locked and checked against its hash.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/registry-sync
COPY requirements/runtime.txt requirements/
RUN /opt/registry-sync/bin/pip install --require-hashes --requirement requirements/runtime.txt
COPY pyproject.toml LICENSE README.md ./
COPY plugins plugins
COPY docs docs
COPY tools/wheel_documentation.py tools/
RUN /opt/registry-sync/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/registry-sync/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/registry-sync/bin/pip uninstall --yes uv

FROM python:${PYTHON_VERSION}-slim-bookworm
# The folders that become volumes are the user's before anything is mounted there.
RUN useradd --uid 50000 --create-home --home-dir /opt/airflow airflow \
    && install --directory --owner airflow /opt/airflow/logs /opt/airflow/auth /var/lib/registry-sync
COPY --from=build /opt/registry-sync /opt/registry-sync
COPY dags /opt/airflow/dags
# What tasks need at their start is in memory before they are forked.
COPY docs/examples/airflow_local_settings.py /opt/airflow/config/
ENV PATH=/opt/registry-sync/bin:$PATH \
    AIRFLOW_HOME=/opt/airflow \
    PYTHONUNBUFFERED=1
USER airflow
WORKDIR /opt/airflow
ENTRYPOINT ["airflow"]
CMD ["version"]
