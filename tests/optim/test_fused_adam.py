"""`fused_adam` makes the updates of fairseq's `adam`."""

from __future__ import annotations

import argparse

import pytest
import torch
from fairseq.optim.adam import FairseqAdam

from mtmoe.optim.fairseq_adam import FusedAdam

CONFIG = argparse.Namespace(
    lr=[0.01], adam_betas="(0.9, 0.98)", adam_eps=1e-8, weight_decay=0.1,
    use_old_adam=False, fp16_adam_stats=False, tpu=False,
)  # fmt: skip


def train(kind, max_norm):
    parameters = [
        torch.nn.Parameter(torch.linspace(-1, 1, n).reshape(shape))
        for n, shape in ((6, (2, 3)), (5, (5,)))
    ]
    optimizer = kind(CONFIG, parameters)
    norms = []
    for update in range(8):
        optimizer.zero_grad()
        loss = sum(((p - 0.3 * (update + 1)) ** 3).sum() for p in parameters)
        optimizer.backward(loss)
        optimizer.multiply_grads(1 / torch.tensor(7.0))
        norms.append(float(optimizer.clip_grad_norm(max_norm)))
        optimizer.step()
    return parameters, norms


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e9])
def test_updates_and_norms_equal_those_of_fairseq(max_norm):
    ours, our_norms = train(FusedAdam, max_norm)
    theirs, their_norms = train(FairseqAdam, max_norm)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert our_norms == pytest.approx(their_norms, rel=1e-5)


def test_scale_does_not_outlive_its_update():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = FusedAdam(CONFIG, [parameter])
    for _ in range(2):
        optimizer.zero_grad()
        parameter.grad = torch.ones(3)
        optimizer.multiply_grads(0.5)
        assert float(optimizer.clip_grad_norm(0.0)) == pytest.approx(0.5 * 3**0.5)
    optimizer.step()
    assert optimizer._scale == 1.0


def test_flat_parameters_are_refused_in_one_sentence(capsys):
    """fairseq asks before it flattens copies of float16 weights, on a GPU."""
    optimizer = FusedAdam(CONFIG, [torch.nn.Parameter(torch.ones(3))])
    with pytest.raises(SystemExit, match="2"):
        assert optimizer.supports_flat_params
    assert "Add --fp16-no-flatten-grads" in capsys.readouterr().err
