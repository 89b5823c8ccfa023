"""Which experts process a token."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mtmoe.config import (
    ChoiceWeight,
    ChooseBy,
    DropPolicy,
    RouterConfig,
    RouterInput,
    RouterLanguage,
    SecondChoice,
)
from mtmoe.modules.token_share import ALL_TOKENS, TokenShare
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.backend import TORCH, Backend
from mtmoe.ops.losses import balance_loss, z_loss
from mtmoe.ops.precision import at_least_float32
from mtmoe.ops.routing import (
    SKIPPED,
    choose_experts,
    choose_tokens,
    expert_capacity,
    mark_skipped,
    sample_choices,
)
from mtmoe.parallel.recompute import keep


def _zero() -> Tensor:
    return torch.zeros(())


@dataclass(frozen=True)
class Routing:
    """Where each token goes; made by `Router`, read by dispatch, losses and statistics.

    T counts real tokens only: padding is never routed. Where experts choose, K is E and the choices
    that were not made are `SKIPPED`.
    """

    expert: Tensor  # (T, K) int64, strongest choice first
    slot: Tensor  # (T, K) int64 place in the expert's queue; or DROPPED, or SKIPPED
    weight: Tensor  # (T, K) float32 share of the output
    probs: Tensor  # (T, E) float32 probabilities before the choice
    balance_loss: Tensor = field(default_factory=_zero)  # () float32
    z_loss: Tensor = field(default_factory=_zero)  # () float32
    gate_loss: Tensor = field(default_factory=_zero)  # () float32, of conditional routing
    is_expert_choice: bool = False

    def __getitem__(self, index: int) -> Tensor:
        """Number 0: the probabilities. There, PyTorch's backward hooks look for a module's output.

        fairseq sets such hooks to find where a gradient is no number.
        """
        return (self.probs,)[index]


class Router(nn.Module):
    """Scores, choice, weights and slots of one MoE layer.

    Tokens choose (Switch Transformer, arXiv:2101.03961; GShard, arXiv:2006.16668), or experts do
    (arXiv:2202.09368). A router may read the sentence's language beside the token, or alone, which
    routes whole sentences (Task-MoE, Kudugunta et al. 2021, arXiv:2110.03742).

    Args:
        num_languages: how many language tags the vocabulary has; 0: the router reads none.
    """

    choice_bias: Tensor | None

    def __init__(
        self,
        config: RouterConfig,
        embed_dim: int,
        choose_by: ChooseBy = ChooseBy.token,
        num_languages: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.choose_by = config, choose_by
        self.weight = nn.Parameter(torch.empty(config.num_experts, embed_dim))
        sides = 2 if config.router_language is RouterLanguage.both else 1
        reads = config.reads_languages
        shape = (sides, num_languages, embed_dim)
        self.language = nn.Parameter(torch.empty(shape)) if reads else None
        has_bias = config.bias_update_rate > 0 and choose_by is ChooseBy.token
        self.fixed: nn.Module | None = None  # in inference: `weight` laid out for products
        self.register_buffer("choice_bias", torch.zeros(config.num_experts) if has_bias else None)

    def forward(
        self,
        x: Tensor,
        tokens: Tokens,
        generator: torch.Generator | None = None,
        backend: Backend = TORCH,
        share: TokenShare = ALL_TOKENS,
    ) -> Routing:
        """Route the real tokens of a batch; collective where a tensor group shares them out.

        Scores are float32 whatever the dtype of `x`: in half precision, rounding changes which
        expert wins (arXiv:2101.03961, "selective precision"). In evaluation nothing is random, and
        nothing is dropped unless `eval_capacity_factor` asks for it.

        Args:
            x: (T, D); or where `reads_only_tokens`, (B * S, D) with padding, which it leaves out.
            tokens: says to which sentence each of the T tokens belongs.
            generator: random numbers of this layer and step; needed in training if the config
                asks for any.
            share: which of the T tokens the rows of `x` are; the routing is of these T'.
        """
        with torch.autocast(x.device.type, enabled=False):
            read = self._read(x, tokens, generator, share)
            if self.fixed is not None:
                return self._route_fixed(self.fixed(read), tokens, generator, backend, share)
            weight = share.weight(at_least_float32(self.weight))
            by_expert = weight @ read.t()  # (E, T): a CPU's softmax is ten
            if tokens.real is not None and tokens.real.shape[0] < by_expert.shape[1]:
                by_expert = by_expert.index_select(1, tokens.real)
            scores, probs = by_expert.t(), by_expert.softmax(0).t()  # times slower over short rows
            if self.choose_by is ChooseBy.expert:
                return self._let_experts_choose(scores, probs, tokens, share)
            return self._let_tokens_choose(scores, probs, generator, backend, share)

    def _route_fixed(
        self,
        scores: Tensor,
        tokens: Tokens,
        generator: torch.Generator | None,
        backend: Backend,
        share: TokenShare,
    ) -> Routing:
        """In inference: a softmax over rows, which does not depend on how many there are."""
        if tokens.real is not None and tokens.real.shape[0] < scores.shape[0]:
            scores = scores.index_select(0, tokens.real)
        probs = scores.softmax(1)
        if self.choose_by is ChooseBy.expert:
            return self._let_experts_choose(scores, probs, tokens, share)
        return self._let_tokens_choose(scores, probs, generator, backend, share)

    @property
    def reads_only_tokens(self) -> bool:
        """Whether each score depends on one row of `x` and nothing else."""
        has_noise = self.training and self.config.jitter > 0
        return self.config.router_input is RouterInput.token and not has_noise

    def _read(
        self, x: Tensor, tokens: Tokens, generator: torch.Generator | None, share: TokenShare
    ) -> Tensor:
        """What the scores are computed from, (T, D)."""
        kind = self.config.router_input
        found = at_least_float32(x)
        if kind is not RouterInput.token:
            language = share.select(self._language_of(tokens, x.device, share))
            found = language if kind is RouterInput.language else found + language
        if not self.training or self.config.jitter == 0:
            return found
        noise = share.draw(found, _drawn_from(generator))
        return found * (1 + self.config.jitter * (2 * noise - 1))

    def _language_of(self, tokens: Tokens, device: torch.device, share: TokenShare) -> Tensor:
        """(T, D) embeddings of the language or languages of each token's sentence."""
        assert self.language is not None
        assert tokens.languages is not None, "a router that reads languages must be told them"
        columns = {
            RouterLanguage.source: tokens.languages[:, :1],
            RouterLanguage.target: tokens.languages[:, 1:],
            RouterLanguage.both: tokens.languages,
        }[self.config.router_language]
        table = share.weight(at_least_float32(self.language))
        of_sentence = sum(table[side][columns[:, side]] for side in range(table.shape[0]))
        assert isinstance(of_sentence, Tensor)
        return of_sentence.index_select(0, tokens.sentence(device))

    def _let_tokens_choose(
        self,
        scores: Tensor,
        probs: Tensor,
        generator: torch.Generator | None,
        backend: Backend,
        share: TokenShare,
    ) -> Routing:
        config = self.config
        expert = self._decided(choose_experts(probs, config.top_k, self.choice_bias))  # (T, K)
        chosen = probs.gather(1, expert)
        is_normalised = config.choice_weight is ChoiceWeight.normalised or (
            config.choice_weight is ChoiceWeight.auto and config.top_k > 1
        )
        weight = chosen / chosen.sum(-1, keepdim=True) if is_normalised else chosen
        wanted = self._sample(chosen, generator, share)
        slot = self._decided(self._slots(expert, probs, wanted, generator, backend, share))
        weight = self._mask_outputs(weight, generator, share)
        if torch.is_inference_mode_enabled():
            loss = _zero()
        else:
            loss = balance_loss(probs, expert[:, 0], share.sum, share.num_tokens(probs))
        return Routing(expert, slot, weight, probs, loss, self._z_loss(scores, share))

    def _let_experts_choose(
        self, scores: Tensor, probs: Tensor, tokens: Tokens, share: TokenShare
    ) -> Routing:
        """Every expert is used alike by construction: there is no balance loss."""
        config, sentence = self.config, tokens.sentence(probs.device)
        length = torch.bincount(sentence, minlength=tokens.shape[0])
        mean_load = (config.capacity_factor or 1.0) * config.top_k / config.num_experts
        per_expert = (length * mean_load - 1e-6).ceil().long().clamp(min=config.min_capacity)
        all_probs = share.gather(probs.detach())  # (T, E)
        is_chosen = share.select(choose_tokens(all_probs, sentence, per_expert))
        expert = torch.arange(config.num_experts, device=probs.device).expand_as(probs)
        weight = probs
        if config.choice_weight is ChoiceWeight.normalised:
            total = (probs * is_chosen).sum(-1, keepdim=True)
            weight = probs / total.clamp(min=torch.finfo(probs.dtype).tiny)
        slot = self._decided(mark_skipped(torch.zeros_like(expert), is_chosen))
        zero, z = probs.new_zeros(()), self._z_loss(scores, share)
        return Routing(expert, slot, weight, probs, zero, z, is_expert_choice=True)

    def _decided(self, choice: Tensor) -> Tensor:
        """What the forward pass chose, also when activations are computed again."""
        return keep(choice) if self.training else choice

    def _z_loss(self, scores: Tensor, share: TokenShare) -> Tensor:
        """0 where it has no weight: it would cost as much as the softmax."""
        if not self.config.z_loss_weight:
            return scores.new_zeros(())
        return z_loss(scores, share.sum, share.num_tokens(scores))

    def _sample(
        self, chosen: Tensor, generator: torch.Generator | None, share: TokenShare
    ) -> Tensor | None:
        """(T, K) bool: which choices are taken; None: all."""
        if not self.training or self.config.second_choice is SecondChoice.always:
            return None
        noise = share.draw(chosen, _drawn_from(generator))
        return sample_choices(chosen.detach() / chosen.detach().sum(-1, keepdim=True), noise)

    def _slots(
        self,
        expert: Tensor,
        probs: Tensor,
        wanted: Tensor | None,
        generator: torch.Generator | None,
        backend: Backend,
        share: TokenShare,
    ) -> Tensor:
        """(T', K); where there is a capacity, all T tokens queue up on each rank of the group."""
        config, E = self.config, self.config.num_experts
        factor = config.capacity_factor if self.training else config.eval_capacity_factor
        if factor == 0:  # dropless: no queue is needed to order the rows
            slot = torch.zeros_like(expert)
        else:
            queue = share.gather(expert if wanted is None else expert.masked_fill(~wanted, E))
            capacity = expert_capacity(factor, config.top_k, queue.shape[0], E, config.min_capacity)
            num_queues = E if wanted is None else E + 1
            priority = self._priority(probs, generator, share)
            slot = share.select(backend.assign_slots(queue, num_queues, capacity, priority))
        return slot if wanted is None else mark_skipped(slot, wanted)

    def _priority(
        self, probs: Tensor, generator: torch.Generator | None, share: TokenShare
    ) -> Tensor | None:
        """(T,), equal on all ranks of the group."""
        policy = self.config.drop_policy
        if policy is DropPolicy.score:  # Riquelme et al. 2021, arXiv:2106.05974
            return share.gather(probs.detach().max(-1, keepdim=True).values).squeeze(1)
        if policy is DropPolicy.order or not self.training:
            return None
        T = share.num_tokens(probs)
        return torch.rand(T, device=probs.device, generator=_drawn_from(generator))

    def _mask_outputs(
        self, weight: Tensor, generator: torch.Generator | None, share: TokenShare
    ) -> Tensor:
        """Expert output masking (Elbayad et al. 2022, arXiv:2212.07571), scaled like dropout."""
        rate = self.config.expert_output_masking
        if not self.training or rate == 0:
            return weight
        noise = share.draw(weight, _drawn_from(generator))
        return weight * (noise >= rate) / (1 - rate)


def router_loss(config: RouterConfig, gate_loss_weight: float, routing: Routing) -> Tensor:
    """The weighted losses of one router, () float32."""
    return (
        config.balance_loss_weight * routing.balance_loss
        + config.z_loss_weight * routing.z_loss
        + gate_loss_weight * routing.gate_loss
    )


def gather_routing(routing: Routing, share: TokenShare) -> Routing:
    """The routing of all T tokens, for losses and statistics; the tensor group's ranks hold it."""
    if share.rows is None:
        return routing
    return replace(
        routing,
        expert=share.gather(routing.expert),
        slot=share.gather(routing.slot),
        weight=share.gather(routing.weight.detach()),
        probs=share.gather(routing.probs.detach()),
    )


def skip_experts(routing: Routing) -> Routing:
    """The same routing, with no expert for any token (gating dropout)."""
    slot = torch.full_like(routing.slot, SKIPPED)
    return replace(routing, slot=slot)


def _drawn_from(generator: torch.Generator | None) -> torch.Generator:
    assert generator is not None, "a router in training draws from the generator that it is given"
    return generator
