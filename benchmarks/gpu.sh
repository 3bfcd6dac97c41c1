#!/usr/bin/env bash
# Check sidtune and measure training on one CUDA GPU from a copy of the repository, without installing it and without a network.
# torch, transformers, accelerate, pyarrow, typer and the package's other dependencies must be importable; unpacked
# wheels in the folder named by WHEELS count. TRL is measured if it is installed.
#
#   benchmarks/gpu.sh [--out FILE] [--smoke] [--checks]
#
# It begins with checks that print a PASS, FAIL or SKIP line each, in minutes; --checks makes these alone:
# full, frozen and LoRA tuning in every layout, quantised bases, max_tokens: auto, smaller passes where memory runs
# out, a killed run, the optimizer's state (bf16, 8bit, offloaded), sharding (FSDP2) on one rank, beam search and
# evaluation against the CPU, and reinforcement. They need pytest too. bitsandbytes is optional: without it,
# quantised bases and 8bit are skipped. --smoke tests the script itself, on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src:$PWD/benchmarks${WHEELS:+:$WHEELS}" HF_HUB_OFFLINE=1
# Runs that are compared to the bit need it.
export CUBLAS_WORKSPACE_CONFIG=:4096:8
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
