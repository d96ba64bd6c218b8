# The Label Studio server: its pins clash with Airflow's, so it has an image of its own.
FROM python:3.11.14-slim-bookworm

# hadolint ignore=DL3008 # Debian keeps only the newest version of a package; the base image's tag fixes the rest
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/environment/bin:$PATH \
    PYTHONUNBUFFERED=1

COPY infra/images/install-lock.sh /usr/local/bin/install-lock
RUN --mount=type=bind,source=headrace/stack/label-studio.txt,target=/tmp/label-studio.txt \
    python -m venv /opt/environment \
    && install-lock /tmp/label-studio.txt

RUN useradd --uid 50000 --gid 0 --create-home annotate \
    && install --directory --owner=50000 --group=0 --mode=0770 /data

# No sign-up without an invitation, no analytics, no outgoing call.
ENV LABEL_STUDIO_BASE_DATA_DIR=/data \
    LABEL_STUDIO_COLLECT_ANALYTICS=false \
    LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK=true \
    LABEL_STUDIO_FRONTEND_SENTRY_DSN= \
    LABEL_STUDIO_LATEST_VERSION_CHECK=false \
    LABEL_STUDIO_SENTRY_DSN=
USER 50000:0
WORKDIR /data
EXPOSE 8080
CMD ["label-studio", "start", "--no-browser", "--internal-host", "0.0.0.0", "--port", "8080"]
