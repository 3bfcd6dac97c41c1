"""Weights that are divided among processes: by PyTorch's `fully_shard` (FSDP2)."""
