"""The settings of a search for translations; without torch, so that a wrong one is told at once."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import Any

from mtmoe.config import require, setting
from mtmoe.errors import ConfigError

MAX_BEAM = 200
MAX_SEED = 1 << 63
MAX_PENALTY = 10  # tokens ** penalty must be a float32
MAX_TEMPERATURE = 1e6  # scores / temperature must be float32, too, and not all the same
OF_SAMPLING = ("temperature", "top_k", "top_p", "seed")


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
    num_best: int = setting(1, "translations of each sentence, best first; at most --beam")
    min_length: int = setting(1, "pieces of an output at least")
    max_length: int = setting(0, "pieces of an output at most; 0: 2 * source tokens + 20")
    no_repeat_ngram: int = setting(0, "no N pieces in a row come twice in an output; 0: they may")
    sampling: bool = setting(False, "draw --beam outputs at random instead of searching the best")
    temperature: float = setting(1.0, "of sampling: below 1 likely symbols, above 1 rare ones")
    top_k: int = setting(0, "sampling draws among the N likeliest symbols; 0: among all")
    top_p: float = setting(1.0, "sampling draws among the likeliest symbols of this probability")
    seed: int = setting(1, "of sampling: another one gives other outputs")

    def __post_init__(self) -> None:
        require(self, "beam", 1 <= self.beam <= MAX_BEAM, f"between 1 and {MAX_BEAM}")
        is_sane = 0 <= self.length_penalty <= MAX_PENALTY
        require(self, "length_penalty", is_sane, f"between 0 and {MAX_PENALTY}")
        require(self, "max_tokens", self.max_tokens >= 1, "at least 1")
        most = f"between 1 and the beam ({self.beam})"
        require(self, "num_best", 1 <= self.num_best <= self.beam, most)
        require(self, "min_length", self.min_length >= 1, "at least 1")
        is_ordered = self.max_length == 0 or self.max_length >= self.min_length
        require(self, "max_length", is_ordered, f"0, or at least min_length ({self.min_length})")
        require(self, "no_repeat_ngram", self.no_repeat_ngram >= 0, "0 or above")
        self._check_sampling()

    def _check_sampling(self) -> None:
        is_warm = 1 / MAX_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE
        require(self, "temperature", is_warm, "between 0.000001 and 1000000")
        require(self, "top_k", self.top_k >= 0, "0 or above")
        require(self, "top_p", 0 < self.top_p <= 1, "above 0 and at most 1")
        require(self, "seed", 0 <= self.seed < MAX_SEED, "between 0 and 2 ** 63 - 1")
        if self.sampling and self.no_repeat_ngram:
            raise ConfigError(
                f"no_repeat_ngram must be 0 with sampling, but is {self.no_repeat_ngram}. "
                "Leave one of them out."
            )
        changed = [f.name for f in fields(self) if f.name in OF_SAMPLING and self._is_set(f)]
        if changed and not self.sampling:
            raise ConfigError(
                f"{changed[0]} must be left out without sampling, but is given. Add --sampling."
            )

    def _is_set(self, field: Field[Any]) -> bool:
        return bool(getattr(self, field.name) != field.default)
