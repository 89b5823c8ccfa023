"""What each expert does in each direction, in a file: measured once, added up, read by `prune`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.errors import DataError
from mtmoe.files import open_atomic, read_lines
from mtmoe.modules.usage import ExpertUse, stack_rows

FORMAT = "mtmoe expert statistics 1"
MOST_TOKENS = 2**50  # of an expert; sums of more could overflow


@dataclass(frozen=True)
class ExpertStatistics:
    """The use of a model's experts by direction."""

    routers: str  # fingerprint of the model that was measured
    uses: dict[str, ExpertUse]  # by direction, e.g. "en-de"

    def __add__(self, other: ExpertStatistics) -> ExpertStatistics:
        """The statistics of both texts."""
        assert self.routers == other.routers, "check_same_model first"
        uses = dict(self.uses)
        for direction, use in other.uses.items():
            uses[direction] = uses[direction] + use if direction in uses else use
        return ExpertStatistics(self.routers, uses)


def check_same_model(statistics: ExpertStatistics, routers: str, name: str) -> None:
    """Refuse statistics of another model: expert 3 is not the same there.

    Raises:
        DataError: says that the fingerprint of the routers differs.
    """
    if statistics.routers != routers:
        raise DataError(
            f"statistics must be of one model, but those of {name} are of another one (routers "
            f"{routers[:12]} in place of {statistics.routers[:12]}). Measure them anew by "
            "`mtmoe expert-stats`."
        )


def check_fits(statistics: ExpertStatistics, checkpoint: Checkpoint, name: str) -> None:
    """Refuse statistics of another model than `checkpoint`, or of other layers.

    Raises:
        DataError: the routers or the layers differ, or nothing was counted.
    """
    check_same_model(statistics, fingerprint(checkpoint), name)
    config = checkpoint.config
    wanted = (config.moe_layer_names, config.num_experts_by_layer)
    for direction, use in statistics.uses.items():
        if not use.is_measured():
            raise DataError(
                f"statistics must count tokens in every layer, but those of {direction} do not. "
                "Measure them anew by `mtmoe expert-stats`."
            )
        if (use.layers, use.sizes) != wanted:
            raise DataError(
                f"statistics must have all experts of the layers {', '.join(wanted[0])}, but those "
                f"of {direction} have not. Measure them anew by `mtmoe expert-stats`."
            )


def fingerprint(checkpoint: Checkpoint) -> str:
    """A checksum of the MoE layers' names and router rows, in hexadecimal."""
    digest = hashlib.sha256()
    for name in checkpoint.config.moe_layer_names:
        rows = checkpoint.weights[f"{name}.feed_forward.ffn.router.weight"]
        digest.update(f"{name} {tuple(rows.shape)}".encode())
        digest.update(rows.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_statistics(path: str | Path, statistics: ExpertStatistics) -> None:
    """Write a JSON file: {"directions": {direction: {layer: {"tokens", "first_choices", ...}}}}."""
    content = {
        "format": FORMAT,
        "routers": statistics.routers,
        "directions": {name: _describe(use) for name, use in statistics.uses.items()},
    }
    text = json.dumps(content, indent=1)
    with open_atomic(path) as file:  # with the numbers of a layer in one line
        file.write(re.sub(r"\[[^\[\]]*\]", lambda row: " ".join(row[0].split()), text) + "\n")


def _describe(use: ExpertUse) -> dict[str, dict[str, list[float]]]:
    columns = {
        "tokens": use.choices,
        "first_choices": use.tokens,
        "mean_confidence": use.mean_probability(),
    }
    return {
        layer: {name: column[n, :size].tolist() for name, column in columns.items()}
        for n, (layer, size) in enumerate(zip(use.layers, use.sizes, strict=True))
    }


def read_statistics(paths: Sequence[str | Path]) -> ExpertStatistics:
    """The sum of statistics files of one model.

    Raises:
        DataError: a file is missing, no statistics, or of another model than the first.
    """
    total = _read_file(paths[0])
    for path in paths[1:]:
        other = _read_file(path)
        check_same_model(total, other.routers, str(path))
        total = total + other
    return total


def _read_file(path: str | Path) -> ExpertStatistics:
    try:
        content = json.loads("\n".join(read_lines(path)))
        if content["format"] != FORMAT:
            raise ValueError("format")
        uses = {name: _parse(layers) for name, layers in content["directions"].items()}
        layers = {(use.layers, use.sizes) for use in uses.values()}
        if not all(re.fullmatch(r"[^-]+-[^-]+", name) for name in uses):
            raise ValueError("directions")
        if len(layers) != 1 or not all(map(_is_possible, uses.values())):
            raise ValueError("numbers")
        return ExpertStatistics(str(content["routers"]), uses)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise DataError(
            f"statistics must be a file of `mtmoe expert-stats`, but {path} is none "
            f"({type(error).__name__}). Measure them anew."
        ) from None


def _parse(layers: Mapping[str, Any]) -> ExpertUse:
    rows = list(layers.values())
    first = [torch.tensor(row["first_choices"], dtype=torch.int64) for row in rows]
    choices = [torch.tensor(row["tokens"], dtype=torch.int64) for row in rows]
    mean = [torch.tensor(row["mean_confidence"], dtype=torch.float64) for row in rows]
    sizes = tuple(len(row) for row in first)
    tokens = stack_rows(first)
    return ExpertUse(tuple(layers), sizes, tokens, tokens * stack_rows(mean), stack_rows(choices))


def _is_possible(use: ExpertUse) -> bool:
    """Whether counts and probabilities are such."""
    highest = use.tokens * (1 + 1e-6)  # a mean was rounded
    is_probability = (use.probability >= 0) & (use.probability <= highest)  # not if NaN
    is_count = [(counts >= 0) & (counts <= MOST_TOKENS) for counts in (use.tokens, use.choices)]
    return all(bool(is_met.all()) for is_met in (*is_count, is_probability))
