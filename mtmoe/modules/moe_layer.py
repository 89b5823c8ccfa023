"""The Mixture-of-Experts layer: route, permute to experts, compute, combine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mtmoe.config import ChooseBy, SharedMode, TransformerConfig
from mtmoe.modules.experts import Experts, FeedForward
from mtmoe.modules.router import Router, Routing, gather_routing, skip_experts
from mtmoe.modules.shared_gate import SharedGate
from mtmoe.modules.token_share import ALL_TOKENS, TokenShare
from mtmoe.modules.tokens import Tokens
from mtmoe.ops.backend import Backend, select_backend
from mtmoe.ops.cpu_shared import SharedWeights
from mtmoe.ops.routing import RouterKey, layer_generator, mix_seed
from mtmoe.parallel.mesh import ONE_PROCESS, Mesh


class MoELayer(nn.Module):
    """A feed-forward network of which each token uses `top_k` out of `num_experts`.

    With `shared_ffn_dim`, a dense network that every token uses stands beside the experts; see
    `SharedGate` for the ways to add both up.

    Args:
        layer_index: number of this layer among all MoE layers of the network; part of the key of
            its random numbers.
        choose_by: whether tokens choose experts or experts tokens.
        num_languages: see `Router`.
        mesh: the ranks that share experts and matrices out.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_index: int,
        choose_by: ChooseBy = ChooseBy.token,
        num_languages: int = 0,
        mesh: Mesh = ONE_PROCESS,
    ) -> None:
        super().__init__()
        self.router = Router(config.router, config.embed_dim, choose_by, num_languages)
        self.experts = Experts(config, mesh)
        width = config.shared_ffn_dim
        self.shared = FeedForward(config, width, mesh.tensor) if width else None
        is_gated = config.shared_mode is not SharedMode.add
        self.shared_gate = SharedGate(config) if is_gated else None
        self.layer_index, self.mesh = layer_index, mesh
        self.backend = config.backend
        self.gating_dropout = config.router.gating_dropout

    def forward(
        self, x: Tensor, tokens: Tokens, key: RouterKey | None = None
    ) -> tuple[Tensor, Routing]:
        """Give each real token its experts' output, and padding 0.

        Args:
            x: (B, S, D).
            tokens: which of the B * S positions are the T real tokens.
            key: of this step's random numbers; needed in training, unused in evaluation.

        Returns:
            (B, S, D), and the routing of the T real tokens.
        """
        backend = select_backend(self.backend, x.device, self.experts.active_dropout)
        if self.shared is not None and self._is_joint(self.shared, tokens, backend):
            return self._process_jointly(x, tokens, key, self.shared.weights, backend)
        y, routing = self._process(tokens.gather(x), tokens, key, backend)
        return tokens.scatter(y), routing

    def _is_joint(self, shared: FeedForward, tokens: Tokens, backend: Backend) -> bool:
        """Whether experts and shared network are computed in one step."""
        router = self.router
        has_one_choice = router.choose_by is ChooseBy.token and router.config.top_k == 1
        is_added = self.shared_gate is None
        return has_one_choice and is_added and self.experts.can_join(shared, len(tokens), backend)

    def _process_jointly(
        self,
        x: Tensor,
        tokens: Tokens,
        key: RouterKey | None,
        shared: SharedWeights,
        backend: Backend,
    ) -> tuple[Tensor, Routing]:
        """`forward` where the step of experts and shared network leaves padding out by itself."""
        flat = x.reshape(-1, x.shape[-1])
        read = flat if self.router.reads_only_tokens else tokens.gather(x)
        routing = self._route(read, tokens, key, self._generator(key, x.device), backend)
        y, _ = self.experts(flat, routing, backend, shared, tokens.real)
        return y.view(x.shape), routing

    def _generator(self, key: RouterKey | None, device: torch.device) -> torch.Generator | None:
        if not self.training or key is None:
            return None
        return layer_generator(key.share, self.layer_index, device)

    def _route(
        self,
        x: Tensor,
        tokens: Tokens,
        key: RouterKey | None,
        generator: torch.Generator | None,
        backend: Backend,
        share: TokenShare = ALL_TOKENS,
    ) -> Routing:
        routing: Routing = self.router(x, tokens, generator, backend, share)
        return skip_experts(routing) if self._is_skipped(key) else routing

    def _process(
        self, x: Tensor, tokens: Tokens, key: RouterKey | None, backend: Backend
    ) -> tuple[Tensor, Routing]:
        generator = self._generator(key, x.device)
        share = TokenShare.of(len(tokens), self.mesh, x.device)
        own = share.take(x)
        routing = self._route(own, tokens, key, generator, backend, share)
        beside = None if self.shared is None else partial(self.shared, x)
        y, other = self.experts(own, routing, backend, beside=beside)
        y, routing = share.gather(y), gather_routing(routing, share)
        if other is None:
            return y, routing
        if self.shared_gate is None:
            return y + other, routing
        weight, gate_loss = self.shared_gate(x, generator)  # (T, 2)
        weight = weight.to(y.dtype)
        total = weight[:, :1] * y + weight[:, 1:] * other
        return total, replace(routing, gate_loss=gate_loss)

    def _is_skipped(self, key: RouterKey | None) -> bool:
        """Gating dropout (Liu et al. 2022, arXiv:2205.14336): equal on all ranks of an update."""
        if not self.training or self.gating_dropout == 0:
            return False
        assert key is not None, "gating dropout draws from the key of the update"
        seed = mix_seed(key.update, self.layer_index)
        draw = torch.rand((), generator=torch.Generator().manual_seed(seed))
        return draw.item() < self.gating_dropout
