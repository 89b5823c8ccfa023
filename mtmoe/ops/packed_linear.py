"""Linear maps for inference on CPUs with AVX-512: panels of weights, and our own products of them.

A decoder multiplies tens of rows by weights that come from memory. `native/products.c` fetches one
panel of weights while another is multiplied, and takes the experts of a layer in one call
(docs/translate.md, "Why it is fast"). The definition is `F.linear`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mtmoe.config import WeightType
from mtmoe.ops import native
from mtmoe.ops.int8_rows import INT8_MAX, MIDDLE, quantize_rows

WIDTH = 32  # outputs of a panel
WORD = 4  # bytes that are multiplied together
PART = 16 * WIDTH  # outputs that are laid out together: what that takes beside the panels is small
_BITS = {WeightType.float32: 1, WeightType.bfloat16: 2, WeightType.int8: 4}  # of `products()`


def can_pack(kind: WeightType) -> bool:
    """Whether this machine's CPU and compiler have products of `kind`."""
    library = native.library()
    return library is not None and bool(library.products() & _BITS[kind])


def _zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Where C reads, whatever PyTorch's default dtype and device are."""
    return torch.zeros(*shape, dtype=dtype, device="cpu")


class PackedLinear:
    """x W' + b, and maybe its ReLU; where `can_pack`.

    Rows come and go in float32. They are multiplied as bfloat16 with weights of bfloat16, and as
    int8 with a scale of each row and each output with those of int8; sums are float32, or exact.

    Args:
        weight: (N, K) float32.
        bias: (N,) float32, or None.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, kind: WeightType, has_relu: bool
    ) -> None:
        library = native.library()
        assert library is not None, "see can_pack"
        dtype = getattr(torch, kind)
        N, K = weight.shape
        missing, together = -N % WIDTH, WORD // dtype.itemsize
        words = -(-K // together)
        panels = _zeros((N + missing) // WIDTH, words, WIDTH, together, dtype=dtype)
        scale, shift = _zeros(N + missing), _zeros(N + missing, dtype=torch.int32)
        padded_bias = _zeros(N + missing)
        if bias is not None:
            padded_bias[:N] = bias
        for start in range(0, N, PART):  # what stays is there before what goes: no holes in memory
            part = weight[start : start + PART].contiguous()
            if kind is WeightType.int8:
                here = slice(start, start + part.shape[0])
                part, scales = quantize_rows(part)
                scale[here] = scales.flatten() / INT8_MAX
                shift[here] = MIDDLE * part.sum(1, dtype=torch.int32)
            if part.shape[0] % WIDTH or K % together:
                part = F.pad(part, (0, -K % together, 0, -part.shape[0] % WIDTH))
            laid_out = part.view(-1, WIDTH, words, together).transpose(1, 2)
            panels[start // WIDTH :][: len(laid_out)] = laid_out
        self._tensors = panels, padded_bias, scale, shift
        pointers = [tensor.data_ptr() for tensor in self._tensors]
        self._map = native.PackedMap(K, N, words, _BITS[kind], has_relu, *pointers)
        self.address = ctypes.addressof(self._map)
        self.num_inputs, self.num_outputs, self.library = K, N, library


def multiply_groups(maps: Sequence[PackedLinear], sizes: Sequence[int], x: Tensor) -> Tensor:
    """The first rows by the first map, the next by the next; of one kind and size all.

    A row's output has the same bits whatever stands beside it.

    Args:
        sizes: rows of each.
        x: (R, K), which is read as float32.

    Returns:
        (R, N) float32
    """
    assert x.shape == (sum(sizes), maps[0].num_inputs), "C would read beside it"
    x, count = x.float().contiguous(), len(maps)
    out = x.new_empty(x.shape[0], maps[0].num_outputs)
    addresses = (ctypes.c_void_p * count)(*(each.address for each in maps))
    counts = (ctypes.c_int64 * count)(*sizes)
    if maps[0].library.multiply(addresses, counts, count, x.data_ptr(), out.data_ptr()):
        raise MemoryError("no memory for the rows of a product")
    return out
