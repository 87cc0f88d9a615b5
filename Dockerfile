# syntax=docker/dockerfile:1
# Three images from one file: docker build --target api | worker-cpu | worker-gpu

FROM python:3.11-slim AS source
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY alembic alembic
COPY service service
COPY workers workers

FROM python:3.11-slim AS api
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 QUANTSIEVE_HOST=0.0.0.0 QUANTSIEVE_PORT=8080
RUN --mount=type=bind,from=source,source=/src,target=/src,rw \
    pip install --constraint /src/constraints.txt '/src[postgres,s3]'
RUN useradd --create-home --uid 10001 quantsieve \
    && install -d -o quantsieve -g quantsieve /var/lib/quantsieve/blobs
USER quantsieve
WORKDIR /home/quantsieve
EXPOSE 8080
CMD ["quantsieve", "api"]

FROM python:3.11-slim AS worker-cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 REMAP_SIGTERM=SIGQUIT QUANTSIEVE_DEVICE=cpu
RUN --mount=type=bind,from=source,source=/src,target=/src,rw \
    version="$(sed -n 's/^torch==//p' /src/constraints.txt)" \
    && pip install --index-url https://download.pytorch.org/whl/cpu "torch==${version}" \
    && pip install --constraint /src/constraints.txt '/src[cpu,postgres,s3]'
RUN useradd --create-home --uid 10001 quantsieve \
    && install -d -o quantsieve -g quantsieve /var/lib/quantsieve/blobs
USER quantsieve
WORKDIR /home/quantsieve
CMD ["quantsieve", "worker"]

# Ubuntu 24.04's own Python is 3.12; all that constraints.txt pins has wheels for it.
FROM nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 AS worker-gpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 REMAP_SIGTERM=SIGQUIT QUANTSIEVE_DEVICE=cuda:0
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/quantsieve
ENV PATH=/opt/quantsieve/bin:$PATH
RUN --mount=type=bind,from=source,source=/src,target=/src,rw \
    pip install --constraint /src/constraints.txt '/src[gpu,postgres,s3]'
RUN useradd --create-home --uid 10001 quantsieve \
    && install -d -o quantsieve -g quantsieve /var/lib/quantsieve/blobs
USER quantsieve
WORKDIR /home/quantsieve
CMD ["quantsieve", "worker"]
