"""Lines of `fairseq-interactive`: from plain text to ids, and back to text once only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtmoe.data.vocabulary import EOS, Vocabulary
from mtmoe.inference.text import clean_line


def encode_lines(vocabulary: Vocabulary, lines: Sequence[str]) -> list[Tensor]:
    """The ids of each line as `mtmoe translate` reads it: pieces and </s>, without tags."""
    encoded = vocabulary.encode([clean_line(line) for line in lines])
    return [torch.tensor([*ids, EOS]) for ids in encoded]


class Sentences:
    """A list of id tensors in the form of an indexed dataset."""

    def __init__(self, sentences: list[Tensor]) -> None:
        self.sentences = sentences
        self.sizes = torch.tensor([len(s) for s in sentences]).numpy()

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> Tensor:
        return self.sentences[index].long()


class WholeText:
    """A coder of fairseq's that only encodes.

    With --remove-bpe, fairseq joins the pieces before it asks the coder to do so too, and its
    SentencePiece coder would then take all spaces away.
    """

    def __init__(self, coder: Any) -> None:
        self.coder = coder

    def encode(self, text: str) -> str:
        """The pieces of `text`, with spaces between them."""
        return str(self.coder.encode(text))

    def decode(self, text: str) -> str:
        """`text`, which is whole."""
        return text
