"""Stock fairseq-train in this process."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch

SETTINGS = [
    "--task",
    "multitask_translation",
    "--arch",
    "moe_transformer_tiny",
    "--embed-dim",
    "32",
    "--ffn-dim",
    "64",
    "--attention-heads",
    "4",
    "--num-experts",
    "4",
    "--criterion",
    "moe_cross_entropy",
    "--label-smoothing",
    "0.05",
    "--optimizer",
    "fused_adam",
    "--lr",
    "0.01",
    "--lr-scheduler",
    "inverse_sqrt",
    "--warmup-updates",
    "30",
    "--clip-norm",
    "1.0",
    "--max-tokens",
    "600",
    "--num-workers",
    "0",
    "--no-progress-bar",
    "--log-format",
    "json",
    "--log-interval",
    "1",
    "--seed",
    "3",
    "--no-epoch-checkpoints",
]


def train(data: Path, save_dir: Path, *options: str) -> dict[str, Any]:
    """Train, and return the last checkpoint's whole state; later options win."""
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.logging import metrics
    from fairseq_cli.train import main

    import mtmoe.models.moe_transformer
    import mtmoe.tasks.multitask_translation  # noqa: F401  (what --user-dir imports)

    metrics.reset()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = fairseq_options.get_training_parser()
            words = [str(data), "--save-dir", str(save_dir), *SETTINGS, *options]
            main(convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, words)))
    finally:
        logging.disable(logging.NOTSET)
    last = save_dir / "checkpoint_last.pt"
    if not last.exists():
        return {}
    state: dict[str, Any] = torch.load(last, weights_only=True)
    return state
