"""fairseq's iterator over the batches of an epoch, resumable on another number of ranks."""

from __future__ import annotations

from typing import Any

from fairseq.data.iterators import EpochBatchIterator


class AnyRanksIterator(EpochBatchIterator):
    """fairseq counts its place in an epoch in batches of one rank; a checkpoint says of how many.

    On other ranks, training then goes on behind the batches that all ranks together have read.
    Where these do not divide among the new ranks, the last ones are read again.
    """

    @staticmethod
    def of(iterator: EpochBatchIterator) -> AnyRanksIterator:
        """The same iterator; fairseq's tasks leave no choice of its class."""
        iterator.__class__ = AnyRanksIterator
        assert isinstance(iterator, AnyRanksIterator)
        return iterator

    def state_dict(self) -> dict[str, Any]:
        """fairseq's, and the number of ranks that read different batches."""
        return {**super().state_dict(), "num_shards": self.num_shards}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of any number of ranks."""
        num_read = state_dict.get("iterations_in_epoch", 0)
        num_read *= state_dict.get("num_shards", self.num_shards)
        super().load_state_dict({**state_dict, "iterations_in_epoch": num_read // self.num_shards})
