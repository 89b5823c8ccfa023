"""`--user-dir tests/failing`: the plugin; rank 1 fails in its fourth batch as FAILURE says."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

import mtmoe.tasks.multitask_translation
from mtmoe.errors import DataError
from mtmoe.models.moe_transformer import MoeTransformer
from mtmoe.tasks.direction_dataset import DirectionDataset

FAILURE = os.environ["FAILURE"]
forward, collate = MoeTransformer.forward, DirectionDataset.collater
calls = 0


def is_time() -> bool:
    global calls
    calls += 1
    return calls == 4 and os.environ["RANK"] == "1"


def failing_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if FAILURE in ("memory", "stall") and self.training and is_time():
        torch.empty(1 << 55, dtype=torch.uint8) if FAILURE == "memory" else time.sleep(3600)
    return forward(self, *args, **kwargs)


def failing_collater(self: Any, *args: Any, **kwargs: Any) -> Any:
    if FAILURE == "data" and is_time():
        raise DataError("train.aa-bb.aa.bin must be whole, but is cut off. Binarise it again.")
    return collate(self, *args, **kwargs)


MoeTransformer.forward = failing_forward
DirectionDataset.collater = failing_collater
__all__ = ["mtmoe"]
