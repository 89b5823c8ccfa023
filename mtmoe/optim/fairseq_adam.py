"""AdamW in one pass over memory, on CPU and CUDA."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig


@register_optimizer("fused_adam", dataclass=FairseqAdamConfig)
class FusedAdam(FairseqAdam):
    """fairseq's `adam` with its flags, stepped by PyTorch's fused AdamW.

    fairseq's own makes ten passes per parameter on a CPU; with experts, most parameters of the
    model see few tokens and the optimizer is a large part of an update.
    """

    def __init__(self, cfg: FairseqAdamConfig, params: Any) -> None:
        FairseqOptimizer.__init__(self, cfg)
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)
