"""Whether this machine has bfloat16 instructions, or only emulates them."""

from __future__ import annotations

from pathlib import Path

import torch

# CPU features by their names in torch and Linux: AVX-512, AMX, and two of Arm.
BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16", "sve_bf16", "svebf16"}


def device_type() -> str:
    """The device type that training runs on: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def cpu_features() -> set[str]:
    """Names of this CPU's features."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return {name for name, has in ask().items() if has is True}
    # Older versions of torch do not report them. Linux does.
    described = Path("/proc/cpuinfo")
    return (
        set(described.read_text(encoding="utf-8", errors="replace").split())
        if described.is_file()
        else set()
    )


def has_bf16(device: str) -> bool:
    """Whether this machine's device has instructions for bfloat16; others emulate it in float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        # torch uses these instructions through oneDNN's matmuls.
        return bool(torch._C._has_mkldnn and cpu_features() & BF16_INSTRUCTIONS)
    return False


def emulated(precision: str) -> str | None:
    """The warning text if bf16 would be emulated and thus slow on this machine, else None."""
    device = device_type()
    if precision != "bf16" or device == "mps" or has_bf16(device):
        return None
    name = "GPU" if device == "cuda" else "CPU"
    return (
        f"this {name} has no bfloat16 instructions and emulates them; a step may take many times as"
        " long"
    )
