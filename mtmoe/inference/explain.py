"""Which experts process each token of a line and of its translation, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mtmoe.data.batching import lead_ids
from mtmoe.errors import ConfigError
from mtmoe.inference.engine import Part, Translator
from mtmoe.inference.record_translator import Answer, RecordTranslator
from mtmoe.inference.requests import END
from mtmoe.modules.router import Routing
from mtmoe.ops.routing import DROPPED, SKIPPED

Row = dict[str, Any]  # {"token": piece, layer: [[expert, weight], ...]}; strongest expert first


def check_has_experts(translator: Translator) -> None:
    """Refuse a model without experts.

    Raises:
        ConfigError: it is one.
    """
    if not translator.model.config.moe_layer_names:
        raise ConfigError("--explain must be left out, but is given for a model without experts.")


def explain(translator: RecordTranslator, answer: Answer) -> dict[str, list[Row]]:
    """The experts of each token that the encoder reads, and of each that the decoder reads.

    The decoder reads the best translation as it was found (what it reads at one place decides on
    the next piece). Tokens that no expert processes have an empty list.

    Returns:
        {"source": rows, "target": rows}; rows of a line in parts follow each other.
    """
    model = translator.translator
    rows: dict[str, list[Row]] = {"source": [], "target": []}
    written = _split_at_ends(answer.ranked[0].pieces)
    for request in answer.requests:
        for part in model.read_source(request, translator.defaults.long_lines):
            found = _explain_part(model, part, written.pop(0))
            for side, side_rows in found.items():
                rows[side] += side_rows
    return rows


def _split_at_ends(pieces: Sequence[str]) -> list[list[str]]:
    """The pieces of each part of the line, without their ends."""
    parts: list[list[str]] = [[]]
    for piece in pieces:
        if piece == END:
            parts.append([])
        else:
            parts[-1].append(piece)
    return parts


def _explain_part(translator: Translator, part: Part, pieces: list[str]) -> dict[str, list[Row]]:
    vocabulary, config = translator.vocabulary, translator.model.config
    ids = [vocabulary.index[piece] for piece in pieces]
    read = {
        "source": list(part.source),
        "target": [*lead_ids(translator.decoder_start), part.start, *ids],
    }
    source, target = (torch.tensor([ids], device=translator.device) for ids in read.values())
    with torch.inference_mode():
        routings = translator.model(source, target).routings
    found: dict[str, list[Row]] = {
        side: [{"token": vocabulary.symbols[i]} for i in ids] for side, ids in read.items()
    }
    for layer, routing in zip(config.moe_layer_names, routings, strict=True):
        rows = found["source" if layer.startswith("encoder") else "target"]
        for row, experts in zip(rows, _experts(routing), strict=True):
            row[layer] = experts
    return found


def _experts(routing: Routing) -> list[list[tuple[int, float]]]:
    """Number and weight of the experts of each token, strongest first."""
    columns = (t.tolist() for t in (routing.expert, routing.weight, routing.slot))
    return [
        sorted(
            (
                (expert, round(weight, 4))
                for expert, weight, slot in zip(*token, strict=True)
                if slot not in (DROPPED, SKIPPED)
            ),
            key=lambda found: -found[1],
        )
        for token in zip(*columns, strict=True)
    ]


def draw_table(rows: Sequence[Row]) -> str:
    """The rows of one side as a table, a token a line, a column a layer; nothing without layers."""
    layers = [key for key in rows[0] if key != "token"] if rows else []
    if not layers:
        return ""
    table = [["token", *layers]]
    for row in rows:
        cells = [", ".join(f"{e} {weight:.2f}" for e, weight in row[layer]) for layer in layers]
        table.append([row["token"], *(cell or "-" for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in table)
    return "".join(f"  {line}\n" for line in lines)
