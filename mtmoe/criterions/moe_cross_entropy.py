"""Label-smoothed cross-entropy with router losses, and the routers' statistics in the log."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.logging import metrics
from torch import Tensor

from mtmoe.config import CriterionConfig
from mtmoe.data.vocabulary import PAD
from mtmoe.fairseq_view import core_config, fairseq_view, one_sentence
from mtmoe.modules.embedding import VocabularyEmbedding
from mtmoe.modules.router import Routing, router_loss
from mtmoe.modules.statistics import routing_statistics
from mtmoe.modules.vocabulary_loss import smoothed_nll
from mtmoe.ops.precision import autocast

View = fairseq_view(
    CriterionConfig, "CriterionView", borrowed={"sentence_avg": "optimization.sentence_avg"}
)


@register_criterion("moe_cross_entropy", dataclass=View)
class MoeCrossEntropy(FairseqCriterion):
    """Cross-entropy over real target tokens, plus the router losses of each MoE layer, weighted.

    Only real tokens are projected onto the vocabulary. `nll_loss` is logged for each direction
    outside of training, so that every direction has its validation loss.
    """

    def __init__(self, task: Any, config: CriterionConfig, sentence_avg: bool) -> None:
        super().__init__(task)
        self.config, self.sentence_avg = config, sentence_avg
        self.directions: list[str] = task.streams

    @classmethod
    def build_criterion(cls, cfg: Any, task: Any) -> MoeCrossEntropy:
        """Make the criterion, or end the program with one sentence."""
        with one_sentence():
            return cls(task, core_config(CriterionConfig, cfg), bool(cfg.sentence_avg))

    def forward(self, model: Any, sample: Any, reduce: bool = True) -> tuple[Tensor, int, Any]:
        """The summed loss of a batch, what to divide it by, and what to log."""
        target = sample["target"]
        is_real = target != PAD
        with autocast(target.device, self.config.autocast):
            states, extra = model(**sample["net_input"], features_only=True)
            logits = model.transformer.project(states[is_real])  # (N, V)
        loss, nll = self._token_losses(logits, target[is_real], model.transformer.embedding)
        sample_size = target.shape[0] if self.sentence_avg else sample["ntokens"]
        routings: tuple[Routing, ...] = extra["routings"]
        router_loss = loss.new_zeros(()) + self._router_loss(model, routings)
        total = loss.sum() + sample_size * router_loss
        log = {
            "loss": total.detach(),
            "nll_loss": nll.detach().sum(),
            "router_loss": sample_size * router_loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": target.shape[0],
            "sample_size": sample_size,
        }
        names = model.transformer.config.moe_layer_names
        for name, routing in zip(names, routings, strict=True):
            log |= {f"moe {name} {k}": v for k, v in routing_statistics(routing).items()}
        if not model.training:
            direction = sample["direction"].unsqueeze(1).expand_as(target)[is_real]
            log |= self._by_direction(nll.detach(), direction)
        return total, sample_size, log

    def _token_losses(
        self, logits: Tensor, target: Tensor, embedding: VocabularyEmbedding
    ) -> tuple[Tensor, Tensor]:
        """Smoothed loss and negative log-likelihood of each target token."""
        epsilon = self.config.label_smoothing
        if embedding.axis.size > 1:
            return smoothed_nll(logits, target, epsilon, embedding)
        log_probs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
        loss, nll = label_smoothed_nll_loss(log_probs, target, epsilon, reduce=False)
        return loss, nll

    def _router_loss(self, model: Any, routings: tuple[Routing, ...]) -> Tensor | int:
        config = model.transformer.config
        return sum(router_loss(config.router, config.gate_loss_weight, r) for r in routings)

    def _by_direction(self, nll: Tensor, direction: Tensor) -> dict[str, Tensor]:
        """Sums for every direction of the task, also those that this batch lacks."""
        n = len(self.directions)
        tokens = torch.bincount(direction, minlength=n)
        sums = torch.bincount(direction, weights=nll, minlength=n)
        log = {}
        for number, name in enumerate(self.directions):
            log[f"nll {name}"], log[f"tokens {name}"] = sums[number], tokens[number]
        return log

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Put sums over ranks and micro-batches into fairseq's log."""
        total = {k: sum(log[k] for log in logging_outputs) for k in logging_outputs[0]}
        size, tokens = total["sample_size"], total["ntokens"]
        log_mean("loss", total["loss"], size)
        log_mean("nll_loss", total["nll_loss"], tokens)
        log_mean("router_loss", total["router_loss"], size)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
        for key in total:
            if key.startswith("nll ") and total[key.replace("nll", "tokens", 1)]:
                name = key.removeprefix("nll ")
                log_mean(f"nll_loss_{name}", total[key], total[f"tokens {name}"])
            if key.startswith("moe ") and key.endswith(" tokens"):
                log_layer(key.split()[1], total)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All values are sums, with equal keys and shapes on all ranks."""
        return True


def log_mean(name: str, total: Any, count: Any) -> None:
    """Log total / count in bits, weighted by count."""
    bits = float(total) / max(float(count), 1) / math.log(2)
    metrics.log_scalar(name, bits, float(count), round=3)


def log_layer(name: str, total: dict[str, Any]) -> None:
    """Log a layer's share of tokens per expert, share of dropped choices, and router entropy."""
    tokens, choices = total[f"moe {name} tokens"], float(total[f"moe {name} choices"])
    count = max(choices, 1)
    hidden = f"_{name}_tokens"  # fairseq shows no name that starts so
    metrics.log_scalar(hidden, tokens.float().cpu() / count, choices, priority=500)
    metrics.log_derived(
        f"{name}_tokens", lambda meters: meters[hidden].avg.double().round(decimals=3), priority=500
    )
    for number, key in enumerate(("dropped", "entropy"), 501):
        mean = float(total[f"moe {name} {key}"]) / count
        metrics.log_scalar(f"{name}_{key}", mean, choices, priority=number, round=3)
