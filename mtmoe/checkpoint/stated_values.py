"""What settings state, held against the weights beside them before it costs time or memory."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtmoe.errors import CheckpointError


def check_sizes(
    values: Mapping[str, Any],
    counts: Collection[str],
    widths: Collection[str],
    shapes: Collection[Sequence[int]],
    path: str | Path,
) -> None:
    """Refuse sizes that the weights have no room for; those that are not stated pass.

    Args:
        values: the settings as they stand in the file `path`.
        counts: names of settings that count what has a weight each, as layers.
        widths: names of settings that are a dim of a weight, or part of one.
        shapes: of all weights.

    Raises:
        CheckpointError: a size is no whole number, or too large; names it.
    """
    longest = max((max(shape) for shape in shapes if shape and min(shape)), default=0)
    for names, highest in ((counts, len(shapes)), (widths, longest)):
        for name in names:
            value = values.get(name, 0)
            if type(value) is not int or not 0 <= value <= highest:
                raise CheckpointError(
                    f"{name} of {path} must be a whole number up to {highest}, for which there are "
                    f"weights, but is {value!r:.80}. The settings are damaged, or of other weights."
                )


def check_number(values: Mapping[str, Any], name: str, path: str | Path) -> None:
    """Refuse a setting that is no number from 0 on; one that is not stated passes.

    Raises:
        CheckpointError: names it.
    """
    value = values.get(name, 0)
    if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max:
        raise CheckpointError(
            f"{name} of {path} must be a number from 0 on, but is {value!r:.80}. The settings are "
            "damaged."
        )


def describe_misfit(error: Exception) -> str:
    """What is wrong with a file whose reading raised `error`; ends "..., but the file "."""
    return f"lacks {error}" if isinstance(error, KeyError) else "has values of another kind"
