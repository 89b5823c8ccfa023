"""fairseq's programs start every decoder with the tag: models that need more are refused."""

from __future__ import annotations

import pytest
import torch

from mtmoe.config import MultitaskConfig
from mtmoe.errors import CheckpointError
from mtmoe.tasks.multitask_translation import MultitaskTranslationTask
from mtmoe.tasks.start import check_start


def test_a_model_that_starts_with_the_end_symbol_is_refused(capsys):
    task = MultitaskTranslationTask.__new__(MultitaskTranslationTask)
    task.state, task.config = None, MultitaskConfig()
    with pytest.raises(SystemExit) as ended:
        MultitaskTranslationTask.load_state_dict(task, {"decoder_start": "end_and_tag"})
    assert ended.value.code == 2
    assert "decoder_start of the checkpoint must be tag" in capsys.readouterr().err


def test_training_does_not_start_from_it(tmp_path):
    torch.save({"model": {}, "task_state": {"decoder_start": "end_and_tag"}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"decoder_start of .* must be tag to be trained on"):
        check_start(tmp_path / "a.pt", torch.nn.Linear(1, 1))
