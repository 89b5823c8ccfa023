"""The Mixture-of-Experts layer: route, permute to experts, compute, combine."""

from __future__ import annotations

from torch import Tensor, nn

from mtmoe.config import TransformerConfig
from mtmoe.modules.experts import Experts, FeedForward
from mtmoe.modules.router import Router, Routing
from mtmoe.ops.dispatch import combine, permute, sort_by_expert
from mtmoe.ops.routing import layer_generator


class MoELayer(nn.Module):
    """A feed-forward network of which each token uses `top_k` out of `num_experts`.

    With `shared_ffn_dim`, a dense network that every token uses stands beside the experts, and the
    outputs are added (residual MoE, Rajbhandari et al. 2022, arXiv:2201.05596).

    Args:
        layer_index: number of this layer among all MoE layers of the network; part of the key of
            its random numbers.
    """

    def __init__(self, config: TransformerConfig, layer_index: int) -> None:
        super().__init__()
        self.router = Router(config.router, config.embed_dim)
        self.experts = Experts(config)
        width = config.shared_ffn_dim
        self.shared = FeedForward(config, width) if width else None
        self.layer_index = layer_index

    def forward(
        self, x: Tensor, tokens: Tensor | None, seed: int | None = None
    ) -> tuple[Tensor, Routing]:
        """Give each real token its experts' output, and padding 0.

        Args:
            x: (B, S, D).
            tokens: (T,) int64 flat positions, b * S + s, of the real tokens; None if all are real.
            seed: key of this step's random numbers; needed in training, unused in evaluation.

        Returns:
            (B, S, D), and the routing of the T real tokens.
        """
        flat = x.reshape(-1, x.shape[-1])
        real = flat if tokens is None else flat.index_select(0, tokens)  # (T, D)
        y, routing = self._process(real, seed)
        if tokens is not None:
            y = y.new_zeros(flat.shape[0], y.shape[1]).index_copy(0, tokens, y)
        return y.view(x.shape), routing

    def _process(self, x: Tensor, seed: int | None) -> tuple[Tensor, Routing]:
        use_random = self.training and seed is not None
        generator = layer_generator(seed or 0, self.layer_index, x.device) if use_random else None
        routing: Routing = self.router(x, generator)
        order = sort_by_expert(routing.expert, routing.slot, self.router.config.num_experts)
        rows = self.experts(permute(x, order), order.counts)  # (R, D)
        y = combine(rows, routing.weight, order)
        return (y if self.shared is None else y + self.shared(x)), routing
