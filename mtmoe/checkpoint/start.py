"""Which checkpoint a training starts from, and what to do if a kill has damaged it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtmoe.checkpoint.fairseq_file import check_readable
from mtmoe.checkpoint.sharded import open_shards
from mtmoe.errors import CheckpointError
from mtmoe.files import open_atomic

DEFAULT_FILE = "checkpoint_last.pt"  # of fairseq's --restore-file

logger = logging.getLogger(__name__)


def find_start(save_dir: str, restore_file: str, finetune_from_model: str | None) -> Path | None:
    """The file that fairseq will load: that of an earlier run, else the one to fine-tune.

    fairseq starts from nothing where a named --restore-file is not there; we refuse it.
    """
    if restore_file != DEFAULT_FILE:
        return Path(restore_file)
    last = Path(save_dir) / DEFAULT_FILE
    if last.exists():
        return last
    return Path(finetune_from_model) if finetune_from_model else None


def repair_last(save_dir: str) -> None:
    """Put the newest whole checkpoint in place of a `checkpoint_last.pt` that a kill cut off.

    fairseq writes each checkpoint whole under its first name, but then copies it to the others
    byte by byte. Only one rank may call it, before any reads. Without a whole checkpoint, nothing
    happens: whoever reads the damaged one says what is wrong.
    """
    last = Path(save_dir) / DEFAULT_FILE
    if not last.is_file() or _updates_of(last) is not None:
        return
    others = {path: _updates_of(path) for path in Path(save_dir).glob("checkpoint*.pt")}
    whole = {path: updates for path, updates in others.items() if updates is not None}
    if not whole:
        return
    newest = max(whole, key=lambda path: (whole[path], path.stat().st_mtime))
    logger.warning(
        "%s is cut off or damaged: an earlier save was ended. Going on from %s, update %s.",
        last, newest.name, whole[newest],
    )  # fmt: skip
    with open(newest, "rb") as source, open_atomic(last, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 24)


def _updates_of(path: Path) -> int | None:
    """The number of updates of a whole checkpoint, None of any other."""
    try:
        state = check_readable(path)
        open_shards(path, state)
    except CheckpointError:
        return None
    return _last_update(state)


def _last_update(state: Mapping[str, Any]) -> int:
    history = state.get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", 0))
