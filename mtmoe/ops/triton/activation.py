"""The activations of experts and their gradients inside kernels, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

SQRT_HALF = tl.constexpr(0.7071067811865476)
INVERSE_SQRT_TWO_PI = tl.constexpr(0.3989422804014327)


@triton.jit  # type: ignore[untyped-decorator]
def activate(x: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """relu, gelu (exact, by erf), or none; NaN stays NaN, as in torch."""
    if ACTIVATION == "relu":
        y = tl.where(x < 0, 0.0, x)
    elif ACTIVATION == "gelu":
        y = x * normal_cdf(x)
    else:
        y = x
    return y


@triton.jit  # type: ignore[untyped-decorator]
def activation_gradient(grad: tl.tensor, kept: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The gradient of the input of relu or gelu, from that of the output.

    `kept` is the output of relu, the input of gelu.
    """
    if ACTIVATION == "relu":
        d_x = tl.where(kept <= 0, 0.0, grad)
    else:
        density = tl.exp(-0.5 * kept * kept) * INVERSE_SQRT_TWO_PI
        d_x = grad * (normal_cdf(kept) + kept * density)
    return d_x


@triton.jit  # type: ignore[untyped-decorator]
def normal_cdf(x: tl.tensor) -> tl.tensor:
    """The share of a normal distribution below x."""
    return 0.5 * (1.0 + tl.erf(x * SQRT_HALF))


@triton.jit  # type: ignore[untyped-decorator]
def sigmoid(x: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(-x)), from exp(-|x|), which never overflows."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)
