#!/usr/bin/env bash
# Training on one CUDA GPU, from a bare copy of the repository and without a network: nothing is installed.
# Needs torch, transformers, accelerate, pyarrow, typer and this package's other dependencies; wheels that Python
# does not find by itself can lie unpacked in a folder named by WHEELS. TRL takes part where it is there.
#
#   benchmarks/gpu.sh [--out FILE] [--smoke]
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src:$PWD/benchmarks${WHEELS:+:$WHEELS}" HF_HUB_OFFLINE=1
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
