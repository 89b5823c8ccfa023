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

WIDTH = 32  # outputs of a panel
WORD = 4  # bytes that are multiplied together
INT8_MAX = 127
MIDDLE = 128  # of the unsigned numbers that stand for signed ones, in rows
_BITS = {WeightType.float32: 1, WeightType.bfloat16: 2, WeightType.int8: 4}  # of `products()`


def can_pack(kind: WeightType) -> bool:
    """Whether this machine's CPU and compiler have products of `kind`."""
    library = native.library()
    return library is not None and bool(library.products() & _BITS[kind])


class PackedLinear:
    """x W' + b, and maybe its ReLU; where `can_pack`.

    Rows come and go in float32. They are multiplied as bfloat16 with weights of bfloat16, and as
    int8 with a scale of each row and each output with those of int8; sums are float32, or exact.

    Args:
        weight: (N, K), in numbers of `kind`.
        bias: (N,) float32, or None.
        scale: (N,) float32: that int8 weights are to be multiplied with.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        kind: WeightType,
        has_relu: bool,
        scale: Tensor | None = None,
    ) -> None:
        library = native.library()
        assert library is not None, "see can_pack"
        N, K = weight.shape
        missing, together = -N % WIDTH, WORD // weight.element_size()
        padded = F.pad(weight, (0, -K % together, 0, missing))
        panels = padded.view((N + missing) // WIDTH, WIDTH, -1, together).transpose(1, 2)
        words = panels.shape[1]
        bias = weight.new_zeros(N, dtype=torch.float32) if bias is None else bias
        self._tensors = [panels.contiguous(), F.pad(bias, (0, missing))]
        if scale is not None:
            shift = MIDDLE * padded.sum(1, dtype=torch.int32)
            self._tensors += [F.pad(scale / INT8_MAX, (0, missing)), shift]
        pointers = [tensor.data_ptr() for tensor in self._tensors]
        self._map = native.PackedMap(K, N, words, _BITS[kind], has_relu, *pointers)
        self.address = ctypes.addressof(self._map)
        self.num_outputs, self.library = N, library


def multiply_groups(maps: Sequence[PackedLinear], sizes: Sequence[int], x: Tensor) -> Tensor:
    """The first rows by the first map, the next by the next; of one kind and size all.

    A row's output has the same bits whatever stands beside it.

    Args:
        sizes: rows of each.
        x: (R, K) float32.

    Returns:
        (R, N) float32
    """
    assert sum(sizes) == x.shape[0]
    x, count = x.contiguous(), len(maps)
    out = x.new_empty(x.shape[0], maps[0].num_outputs)
    addresses = (ctypes.c_void_p * count)(*(each.address for each in maps))
    counts = (ctypes.c_int64 * count)(*sizes)
    if maps[0].library.multiply(addresses, counts, count, x.data_ptr(), out.data_ptr()):
        raise MemoryError("no memory for the rows of a product")
    return out
