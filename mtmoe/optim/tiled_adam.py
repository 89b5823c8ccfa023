"""Adam whose step needs a bounded amount of memory, with its state on the device or on the host.

A step in half precision makes float32 copies of gradients, 4 bytes a parameter, at the moment when
memory is fullest. Here tensors are cut into tiles, and copies are made of one tile at a time (the
tiled optimizer of DeepSpeed-TED, Singh et al. 2023, arXiv:2303.06318).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mtmoe.config import AdamConfig, AdamKind, StateLocation
from mtmoe.errors import CheckpointError
from mtmoe.optim.tiles import Operand, cut_tiles
from mtmoe.parallel.slices import part_of, stored_part


class TiledAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) by PyTorch's fused kernel.

    State is float32 for half-precision parameters, and laid out as in `torch.optim.Adam`: `step`,
    `exp_avg`, `exp_avg_sq`; with `master_weights` also `master`, the float32 parameter. Of DTensors
    each rank updates its own shard, and the state is DTensors of the same placement.

    A step holds at most 4 bytes * `tile_size` beside parameters, gradients and state (8 bytes for
    float64). float32 on the device needs nothing at all and is not cut. Equal bit by bit for each
    tile size and state location. Parameters must be contiguous.
    """

    supports_memory_efficient_fp16 = True  # fairseq asks
    before_save: Callable[[], None] | None = None  # called on every rank before rank 0 saves
    disable_mem_eff_fp16_loading_hack = True  # fairseq's way around a cast that is not made here

    def __init__(
        self,
        params: Iterable[Any],
        config: AdamConfig,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.config = config
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": config.adam_kind is AdamKind.adamw,  # as torch.optim.Adam
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, divisor: Tensor | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            divisor: () float32: what gradients are divided by.

        Returns:
            What `closure` returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.device, parameter.dtype].append(parameter)
            for (device, _), parameters in alike.items():
                by = None if divisor is None else divisor.to(device)
                self._update(parameters, group, by)
        return loss

    def _update(
        self, parameters: list[Tensor], group: dict[str, Any], divisor: Tensor | None
    ) -> None:
        """Step parameters of one device and dtype."""
        states = [self._state_of(parameter) for parameter in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        operands, room = self._operands(parameters, states)
        halves = [_flat(p) for p in parameters] if "master" in states[0] else None
        for pieces in cut_tiles([t.numel() for t in operands[0].tensors], room):
            loaded = [operand.load(pieces) for operand in operands]
            _adam(loaded, [steps[piece.index] for piece in pieces], group, divisor)
            for operand, updated in zip(operands, loaded, strict=True):
                operand.store(pieces, updated)
            if halves is not None:
                for piece, master in zip(pieces, loaded[0], strict=True):
                    halves[piece.index][piece.start : piece.stop].copy_(master)

    def _operands(
        self, parameters: list[Tensor], states: list[dict[str, Tensor]]
    ) -> tuple[list[Operand], int]:
        """Weights, gradients and averages, and how many elements of each a tile has."""
        dtype, is_streamed = _state_dtype(parameters[0]), self._is_streamed
        has_master = "master" in states[0]
        gradients = [_grad(parameter) for parameter in parameters]
        weights = [s["master"] for s in states] if has_master else parameters
        columns = (
            (weights, is_streamed if has_master else parameters[0].dtype != dtype),
            (gradients, any(gradient.dtype != dtype for gradient in gradients)),
            ([s["exp_avg"] for s in states], is_streamed),
            ([s["exp_avg_sq"] for s in states], is_streamed),
        )
        num_buffers = sum(is_copied for _, is_copied in columns)
        flat = [[_flat(tensor) for tensor in tensors] for tensors, _ in columns]
        total = sum(tensor.numel() for tensor in flat[0])
        room = min(self.config.tile_size // num_buffers, total) if num_buffers else total
        buffers = iter(torch.empty(num_buffers, room, dtype=dtype, device=parameters[0].device))
        operands = [
            Operand(tensors, next(buffers) if is_copied else None, is_result=number != 1)
            for number, (tensors, (_, is_copied)) in enumerate(zip(flat, columns, strict=True))
        ]
        return operands, room

    @property
    def _is_streamed(self) -> bool:
        return self.config.state_location is StateLocation.host

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if "step" not in state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = self._zeros(parameter), self._zeros(parameter)
        if self._has_master(parameter) and "master" not in state:
            state["master"] = self._filled(parameter, parameter)
        return state

    def _has_master(self, parameter: Tensor) -> bool:
        return self.config.master_weights and parameter.dtype != _state_dtype(parameter)

    def _zeros(self, parameter: Tensor) -> Tensor:
        is_pinned = self._is_streamed and parameter.device.type == "cuda"
        return torch.zeros_like(
            parameter,
            dtype=_state_dtype(parameter),
            device="cpu" if self._is_streamed else parameter.device,
            pin_memory=is_pinned,
        )

    def _filled(self, parameter: Tensor, value: Tensor) -> Tensor:
        state = self._zeros(parameter)
        _flat(state).copy_(stored_part(value).reshape(-1))
        return state

    def consolidate_state_dict(self) -> None:
        """fairseq calls it on every rank before rank 0 saves."""
        if self.before_save is not None:
            self.before_save()

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict` of this class, of `torch.optim.Adam` or of fairseq's `Adam`.

        Unlike PyTorch's, it leaves state float32 and on the host where it belongs there. Options of
        the groups (learning rate, betas, ...) are the saved ones.

        Raises:
            CheckpointError: the parameters are others.
        """
        saved = state_dict["param_groups"]
        sizes = [
            [len(group["params"]) for group in groups] for groups in (self.param_groups, saved)
        ]
        if sizes[0] != sizes[1]:
            raise CheckpointError(
                f"the optimizer's state must be of {sizes[0]} parameters in groups, but is of "
                f"{sizes[1]}. Resume with the settings that it was saved with."
            )
        numbers = chain.from_iterable(group["params"] for group in saved)
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        self.state = defaultdict(dict)
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in state_dict["state"]:
                self.state[parameter] = self._placed(parameter, state_dict["state"][number])
        for group, other in zip(self.param_groups, saved, strict=True):
            group.update({k: other[k] for k in group if k in other and k != "params"})

    def _placed(self, parameter: Tensor, saved: dict[str, Any]) -> dict[str, Tensor]:
        """A parameter's saved state, where and in the precision in which it is kept here."""
        has_master = self._has_master(parameter) and "master" in saved
        state = {"step": torch.tensor(float(saved["step"]), device=parameter.device)}
        for name in ("exp_avg", "exp_avg_sq", *(["master"] if has_master else [])):
            if saved[name].shape != parameter.shape:
                raise CheckpointError(
                    f"the optimizer's {name} must be of shape {tuple(parameter.shape)}, but is of "
                    f"{tuple(saved[name].shape)}. Resume with the settings that it was saved with."
                )
            state[name] = self._filled(parameter, part_of(saved[name], parameter))
        return state


def _adam(
    operands: list[list[Tensor]],
    steps: list[Tensor],
    group: dict[str, Any],
    divisor: Tensor | None,
) -> None:
    """PyTorch's fused step of weights, gradients and both averages, in place."""
    fused = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    weights, gradients, averages, squares = operands
    fused(
        weights,
        gradients,
        averages,
        squares,
        [],
        steps,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        grad_scale=divisor,
    )


def _state_dtype(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.contiguous()


def _flat(tensor: Tensor) -> Tensor:
    """The numbers of this rank, (N,); a view."""
    return stored_part(tensor).view(-1)
