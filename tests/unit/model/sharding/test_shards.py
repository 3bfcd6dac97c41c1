"""What a sharded model is made of and becomes again in one piece."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from tests.tiny_models import ARCHITECTURES, make_config, random_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from sidtune.config.model import LoraConfig
from sidtune.model.sharding.shards import gather, scatter, shard
from sidtune.model.tuning import TUNINGS

ROWS, SIDS = 200, torch.arange(150, 180)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def tuned(model: PreTrainedModel, tuning: str) -> PreTrainedModel:
    TUNINGS[tuning].apply(model, SIDS)
    TUNINGS[tuning].adapt(model, LoraConfig(), seed=0)
    return model


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gathering_gives_back_what_was_scattered(
    architecture: str, tuning: str, alone: None
) -> None:
    """Buffers too, which modules may share, as two of Gemma's embeddings share their scale."""
    config = make_config(architecture, True, ROWS)
    plain = tuned(random_model(copy.deepcopy(config)), tuning)
    with torch.device("meta"):
        sharded, outline = (
            tuned(AutoModelForCausalLM.from_config(copy.deepcopy(config)), tuning) for _ in range(2)
        )
    shard(sharded, torch.device("cpu"), False)
    scatter(sharded, plain)
    whole = gather(sharded, outline)
    for mine, given in zip(whole.modules(), plain.modules(), strict=True):
        own = mine._parameters | mine._buffers
        for name, value in (given._parameters | given._buffers).items():
            assert (own[name] is None) == (value is None)
            assert value is None or torch.equal(own[name], value)
