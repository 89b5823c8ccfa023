"""The settings of a search for translations; without torch, so that a wrong one is told at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mtmoe.config import require, setting

MAX_BEAM = 200


@dataclass(frozen=True)
class SearchConfig:
    """How translations are searched for; checks its own fields.

    Raises:
        ConfigError: a value is refused.
    """

    beam: int = setting(4, "hypotheses kept per sentence; 1: greedy")
    length_penalty: float = setting(
        1.0, "score = sum of log probabilities / tokens ** penalty; above 1 favours longer output"
    )
    max_tokens: int = setting(4000, "source tokens that are translated together, padding included")

    def __post_init__(self) -> None:
        require(self, "beam", 1 <= self.beam <= MAX_BEAM, f"between 1 and {MAX_BEAM}")
        is_sane = math.isfinite(self.length_penalty) and self.length_penalty >= 0
        require(self, "length_penalty", is_sane, "a finite number, 0 or above")
        require(self, "max_tokens", self.max_tokens >= 1, "at least 1")
