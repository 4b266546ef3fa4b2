# genaug in a container, for a CPU or an NVIDIA GPU, as a user without rights.
#
#   docker build --target cpu  -t genaug:cpu  .
#   docker build --target cuda -t genaug:cuda .
#   docker run --rm -v "$PWD/outputs:/genaug/outputs" genaug:cpu run experiment=demo/compare seed=0
#   docker run --rm --gpus all -v "$PWD/outputs:/genaug/outputs" genaug:cuda run prior=sd15 ...
FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 WANDB_MODE=offline
RUN useradd --create-home --uid 1000 genaug && mkdir -p /genaug/outputs && chown -R genaug:genaug /genaug
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE constraints.txt ./
COPY conf conf
COPY experiments experiments
COPY src src

# Without CUDA libraries: torch and torchvision of the same CPU build, as PyTorch's own instructions name it.
FROM base AS cpu
ARG TORCH_INDEX
RUN ${TORCH_INDEX:+env PIP_INDEX_URL="$TORCH_INDEX"} pip install -c constraints.txt torch torchvision \
    && pip install -c constraints.txt .
USER 1000
WORKDIR /genaug
VOLUME /genaug/outputs
ENTRYPOINT ["genaug"]
CMD ["--help"]

FROM base AS cuda
RUN pip install -c constraints.txt .
USER 1000
WORKDIR /genaug
VOLUME /genaug/outputs
ENTRYPOINT ["genaug"]
CMD ["--help"]
