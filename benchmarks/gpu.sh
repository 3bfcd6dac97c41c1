#!/usr/bin/env bash
# Measure training on one CUDA GPU from a copy of the repository, without installing it and without a network.
# torch, transformers, accelerate, pyarrow, typer and the package's other dependencies must be importable; unpacked
# wheels in the folder named by WHEELS count. TRL is measured if it is installed.
#
#   benchmarks/gpu.sh [--out FILE] [--smoke] [--checks]
#
# It begins with checks of LoRA, quantised bases, the optimizer's state (bf16, 8bit, offloaded) and sharding (FSDP2)
# on one rank, a PASS, FAIL or SKIP line each; --checks makes these alone. bitsandbytes is optional: without it,
# quantised bases and 8bit are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src:$PWD/benchmarks${WHEELS:+:$WHEELS}" HF_HUB_OFFLINE=1
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
