from __future__ import annotations

from pathlib import Path

import yaml

from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.interop.card import CardFacts, make_card
from tests.inference.tiny_model import write_tiny_checkpoint


def test_the_header_says_what_yaml_reads(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path, ("en", "no"), ("en-no", "no-en"))
    card = make_card(load_checkpoint(path), CardFacts(licence="mit"), "a program")
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "language": ["en", "no"], "tags": ["translation"], "license": "mit",
    }  # fmt: skip
    assert "- Languages: en, no\n" in text
