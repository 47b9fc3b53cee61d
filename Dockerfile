# ilf-bench in a container. docs/containers.md has the commands.
#   docker build --target core --build-arg DEVICE=cpu -t ilf-bench .       the light core, for a CPU
#   docker build --target core --build-arg DEVICE=cuda -t ilf-bench .      the same for an NVIDIA GPU
#   docker build --target metrics -t ilf-bench:metrics .                   with the published metrics; runs on both
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS base
# g++: torch.compile; git: a run's record names the commit of a mounted checkout
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 bench \
    && mkdir /runs /cache \
    && chown bench /runs /cache
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 HF_HOME=/cache
WORKDIR /src
ENTRYPOINT ["ilf-bench"]
CMD ["run", "--out", "/runs"]

FROM base AS core
ARG DEVICE=cpu
COPY constraints/light-cpu.txt constraints/
# torch by itself: it is by far the largest layer and seldom changes. The package index has CUDA builds only, PyTorch's has both.
# hadolint ignore=DL3013
RUN case "${DEVICE}" in \
        cpu) set -- --index-url https://download.pytorch.org/whl/cpu ;; \
        cuda) set -- ;; \
        *) echo "DEVICE is cpu or cuda, not ${DEVICE}" >&2; exit 2 ;; \
    esac \
    && pip install "$@" "$(grep '^torch==' constraints/light-cpu.txt)"
COPY . .
RUN pip install --constraint constraints/light-cpu.txt ".[parquet,gpu,tensorboard,wandb]"
WORKDIR /runs
USER 1000

FROM base AS metrics
COPY constraints/full-metrics.txt constraints/
RUN pip install --constraint constraints/full-metrics.txt torch torchvision
COPY . .
RUN pip install --constraint constraints/full-metrics.txt ".[metrics,parquet,gpu]" \
    && pip install --no-deps image-reward==1.5 fairscale==0.4.13
WORKDIR /runs
USER 1000
