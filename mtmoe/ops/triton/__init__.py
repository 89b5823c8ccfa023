"""Triton kernels of the MoE layer: second implementations of `mtmoe.ops`, tested to equal them.

Imported only for CUDA tensors, or under TRITON_INTERPRET=1; `docs/kernels.md` has their costs.
"""
