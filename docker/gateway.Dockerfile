# The gateway: Debian's nginx with the configuration and the pages of gateway/. serving/gateway.py writes the
# configuration when the container starts, as it does on a machine without containers, and becomes nginx.
#
# Build context: the repository; `wheelhouse` is a second one, for Swagger UI's files.

FROM debian:bookworm-slim AS base
# Unpinned: Debian's stable release changes packages for security alone, and drops the versions before.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends nginx-light python3 python3-psutil \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

FROM base AS pages
WORKDIR /pages
RUN --mount=type=bind,from=wheelhouse,target=/wheels \
    python3 -m zipfile --extract /wheels/swagger_ui_py-*.whl /unpacked \
    && install -D --mode=644 --target-directory=swagger_ui/static \
        /unpacked/swagger_ui/static/swagger-ui.css /unpacked/swagger_ui/static/swagger-ui-bundle.js \
    && touch swagger_ui/__init__.py

FROM base AS gateway
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fashion-serve gateway" \
      org.opencontainers.image.description="nginx in front of fashion-serve, with the playground" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="debian:bookworm-slim"
# The access log goes to the standard output, where the container engine keeps and rotates it.
RUN groupadd --gid 10001 fashion \
    && useradd --uid 10001 --gid fashion --home-dir /app --no-create-home --shell /usr/sbin/nologin fashion \
    && install --directory --owner fashion --group fashion /state \
    && install --directory /app/logs \
    && ln -s /dev/stdout /app/logs/access.log
WORKDIR /app
COPY --from=pages /pages ./
COPY handlers/__init__.py handlers/limits.py handlers/
COPY serving serving
COPY gateway gateway
# Nothing can be written here later.
RUN python3 -m compileall -q handlers serving
ENV PYTHONDONTWRITEBYTECODE=1 \
    FASHION_LISTEN=0.0.0.0 \
    FASHION_RUN_DIR=/state \
    FASHION_LOG_DIR=/app/logs
USER 10001:10001
EXPOSE 8000 8001
# nginx answers what it has begun, and ends.
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=2 \
    CMD ["python3", "-m", "serving.containers.health"]
CMD ["python3", "-m", "serving.containers.gateway"]
