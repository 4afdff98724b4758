# run-batch on a GPU. Build it from a checkout:
#
#     docker build -t run-batch .
#
# and run a job of the working folder, with the Hub's cache outside of the image:
#
#     docker run --gpus all --shm-size 1g --user "$(id -u):$(id -g)" \
#         -v "$PWD:/job" -v "$HOME/.cache/huggingface:/cache/huggingface" run-batch --config job.toml
#
# Needs a driver for CUDA 13.0 (580 or later), and NVIDIA's container toolkit.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# vLLM compiles kernels when a model is loaded: nvcc is in the base image, the C compiler and Python's headers are here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/run-batch
ENV PATH=/opt/run-batch/bin:$PATH

# The versions of pyproject.toml; the layer is made again only when that changes.
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY io io
COPY model model
COPY jobs jobs
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[gpu,s3,gs]' && rm -rf /src

# Any user may run it, also one without a name, for whom torch asks; what vLLM and the Hub keep goes to /cache.
ENV HF_HOME=/cache/huggingface VLLM_CACHE_ROOT=/cache/vllm HOME=/cache XDG_CACHE_HOME=/cache LOGNAME=run-batch
RUN mkdir -p /cache/huggingface /cache/vllm && chmod -R 0777 /cache
USER 1000:1000
WORKDIR /job
ENTRYPOINT ["run-batch"]
CMD ["--help"]
