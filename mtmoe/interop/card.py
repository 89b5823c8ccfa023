"""The model card beside an export: what the model is, how to call it, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from mtmoe.checkpoint.fairseq_file import Checkpoint
from mtmoe.config import DecoderStart, EncoderTags
from mtmoe.interop.huggingface_tokenizer import their_code

UNKNOWN = "not stated"
MAX_DIRECTIONS = 30  # named one by one; of more, only their number


@dataclass(frozen=True)
class CardFacts:
    """What a checkpoint does not know of itself; None: left out of the card, which says so."""

    licence: str | None = None
    manifest: Path | None = None
    scores: Path | None = None


def write_card(checkpoint: Checkpoint, folder: Path, facts: CardFacts, program: str) -> None:
    """Write `README.md` and copies of the manifest and the scores into `folder`."""
    for name, source in (("manifest.json", facts.manifest), ("scores.md", facts.scores)):
        if source is not None:
            (folder / name).write_bytes(source.read_bytes())
    (folder / "README.md").write_text(make_card(checkpoint, facts, program), "utf-8")


def make_card(checkpoint: Checkpoint, facts: CardFacts, program: str) -> str:
    """The card's text, with the header that model hubs read."""
    config, languages = checkpoint.config, checkpoint.vocabulary.languages
    numbers = sum(tensor.numel() for tensor in checkpoint.weights.values())
    experts = f"{config.router.num_experts} experts in every {config.moe_every}. layer"
    directions = checkpoint.directions
    shown = ", ".join(directions) if len(directions) <= MAX_DIRECTIONS else f"{len(directions)}"
    header: dict[str, object] = {"language": list(languages), "tags": ["translation"]}
    header |= {"license": facts.licence} if facts.licence else {}
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True) + "---",  # "no" is no boolean
        "",
        "# Translation model",
        "",
        f"Exported by mtmoe for {program}. {config.encoder_layers} encoder and "
        f"{config.decoder_layers} decoder layers of width {config.embed_dim}, "
        f"{experts if config.moe_layer_names else 'dense'}, {numbers:,} parameters, vocabulary of "
        f"{len(checkpoint.vocabulary.symbols):,} symbols.",
        "",
        f"- Languages: {', '.join(languages)}",
        f"- Directions: {shown}",
        f"- Licence: {facts.licence or UNKNOWN}",
        f"- Data: {'manifest.json' if facts.manifest else UNKNOWN}",
        f"- Scores: {'scores.md' if facts.scores else UNKNOWN}",
        "",
        "## How it is called",
        "",
        *_calling(checkpoint),
        "",
    ]
    return "\n".join(lines)


def _calling(checkpoint: Checkpoint) -> list[str]:
    tags = {
        EncoderTags.source: "the source language's tag, the pieces, `</s>`",
        EncoderTags.target: "the target language's tag, the pieces, `</s>`",
        EncoderTags.both: "the source's and the target's tag, the pieces, `</s>`",
    }[checkpoint.encoder_tags]
    start = "`</s>` and " if checkpoint.decoder_start is DecoderStart.end_and_tag else ""
    codes = ", ".join(f"`{their_code(code)}`" for code in checkpoint.vocabulary.languages[:5])
    return [
        f"- The encoder reads {tags}.",
        f"- The decoder starts with {start}the target language's tag.",
        f"- Tags are {codes}{', ...' if len(checkpoint.vocabulary.languages) > 5 else ''}.",
    ]
