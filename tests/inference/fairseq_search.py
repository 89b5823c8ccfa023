"""Our translations beside those of fairseq's own SequenceGenerator, on a checkpoint and real text.

    python -m tests.inference.fairseq_search CHECKPOINT en-de=TEXT.en [de-en=TEXT.de ...]
        [--lines 500] [--beams 1,4] [--penalties 1.0,0.0,1.5] [--show 5]

Runs the model class that `fairseq-generate` runs, with its incremental state. Prints a JSON object
a setting: sentences, how many of the best translations and of the whole n-best lists have the same
tokens, the largest difference of scores among these, absolute and relative to scores below -1; then
the sentences that differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from mtmoe.checkpoint.fairseq_file import Checkpoint, load_checkpoint
from mtmoe.data.batching import source_tags, tag_source
from mtmoe.data.vocabulary import SPECIAL_SYMBOLS, Vocabulary, language_tag
from mtmoe.files import read_lines
from mtmoe.inference.constraints import LIMIT_EXTRA, LIMIT_FACTOR
from mtmoe.inference.engine import Translator
from mtmoe.inference.requests import END, Request, Translation
from mtmoe.inference.search_config import SearchConfig
from mtmoe.inference.text import clean_line

MAX_SENTENCES = 32  # of a batch of fairseq
Ranked = list[tuple[tuple[str, ...], float]]  # pieces with the end, and score; best first


@dataclass(frozen=True)
class Comparison:
    """One sentence, translated by both."""

    direction: str
    line: str
    ours: Ranked
    theirs: Ranked

    @property
    def has_same_best(self) -> bool:
        """Whether the best translations have the same tokens."""
        return self.ours[0][0] == self.theirs[0][0]

    @property
    def has_same_list(self) -> bool:
        """Whether all translations do, in the same order."""
        return [pieces for pieces, _ in self.ours] == [pieces for pieces, _ in self.theirs]

    @property
    def score_differences(self) -> tuple[float, float]:
        """The largest ones between translations of equal rank, and relative to scores below -1.

        Without a length penalty a score is a sum of, say, -60, whose last float32 digit is 4e-6.
        """
        pairs = [(o, t) for (_, o), (_, t) in zip(self.ours, self.theirs, strict=True)]
        return (
            max(abs(ours - theirs) for ours, theirs in pairs),
            max(abs(ours - theirs) / max(1.0, abs(theirs)) for ours, theirs in pairs),
        )


def usable_lines(translator: Translator, direction: str, lines: Sequence[str]) -> list[str]:
    """The distinct lines that are translated whole."""
    limit = translator.max_positions // 2 - len(_tags(translator, direction)) - 1
    cleaned = list(dict.fromkeys(filter(None, map(clean_line, lines))))
    encoded = translator.vocabulary.encode(cleaned)
    return [line for line, ids in zip(cleaned, encoded, strict=True) if 0 < len(ids) <= limit]


def compare(
    checkpoint: Checkpoint, direction: str, lines: Sequence[str], config: SearchConfig
) -> list[Comparison]:
    """Translate `lines`, which are distinct, with both, except for those that are too long."""
    translator = Translator(checkpoint)
    lines = usable_lines(translator, direction, lines)
    source_lang, target_lang = direction.split("-")
    requests = [Request(line, source_lang, target_lang) for line in lines]
    ours = [list(map(_ranked, found)) for found in translator.translate_requests(requests, config)]
    sources = [
        tag_source(_tags(translator, direction), ids) for ids in translator.vocabulary.encode(lines)
    ]
    theirs = search_by_fairseq(checkpoint, target_lang, sources, config)
    rows = zip(lines, ours, theirs, strict=True)
    return [Comparison(direction, *row) for row in rows]


def _tags(translator: Translator, direction: str) -> list[int]:
    languages = direction.split("-")
    return source_tags(translator.vocabulary, translator.encoder_tags, *languages)


def _ranked(translation: Translation) -> tuple[tuple[str, ...], float]:
    return translation.pieces, translation.score


def search_by_fairseq(
    checkpoint: Checkpoint, target_lang: str, sources: Sequence[list[int]], config: SearchConfig
) -> list[Ranked]:
    """What SequenceGenerator finds; settings, and symbols that are never written, as ours.

    Sentences of one length are searched together: there, the length limit is that of the batch.
    Repetitions are not compared: on a CPU, `NGramRepeatBlock` looks for what stands at the end of
    its padded buffer, and so forbids nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what fairseq's imports and indexing warn of
        from fairseq.sequence_generator import SequenceGenerator

        from mtmoe.models.moe_transformer import MoeTransformer

        vocabulary = checkpoint.vocabulary
        generator = SequenceGenerator(
            [MoeTransformer(checkpoint.build_model(), torch.empty(0))],
            make_dictionary(vocabulary),
            beam_size=config.beam,
            max_len_a=LIMIT_FACTOR,
            max_len_b=LIMIT_EXTRA,
            min_len=config.min_length,
            len_penalty=config.length_penalty,
            unk_penalty=float("inf"),
            tokens_to_suppress=[SPECIAL_SYMBOLS[0], *map(language_tag, vocabulary.languages)],
        )
        found: dict[int, Ranked] = {}
        for rows in _equally_long(sources):
            batch = torch.tensor([sources[row] for row in rows])
            lengths = torch.full((len(rows),), batch.shape[1])
            sample = {"net_input": {"src_tokens": batch, "src_lengths": lengths}}
            answers = generator.generate([], sample, bos_token=vocabulary.tag(target_lang))
            for row, ranked in zip(rows, answers, strict=True):
                found[row] = [
                    (_pieces(vocabulary, h["tokens"].tolist()), float(h["score"])) for h in ranked
                ][: config.num_best]
    return [found[row] for row in range(len(sources))]


def _pieces(vocabulary: Vocabulary, ids: list[int]) -> tuple[str, ...]:
    return *(vocabulary.symbols[i] for i in ids[:-1]), END


def _equally_long(sources: Sequence[list[int]]) -> Iterator[list[int]]:
    ordered = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    for _, group in groupby(ordered, key=lambda row: len(sources[row])):
        rows = list(group)
        for first in range(0, len(rows), MAX_SENTENCES):
            yield rows[first : first + MAX_SENTENCES]


def make_dictionary(vocabulary: Vocabulary):
    """fairseq's Dictionary of the vocabulary, number for number."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for symbol in vocabulary.symbols[len(SPECIAL_SYMBOLS) :]:
        dictionary.add_symbol(symbol)
    assert tuple(dictionary.symbols) == vocabulary.symbols
    return dictionary


def summarise(found: Sequence[Comparison]) -> dict[str, float]:
    """How many sentences are the same, and how far apart the scores of those are."""
    same = [c for c in found if c.has_same_list]
    return {
        "sentences": len(found),
        "same_best": sum(c.has_same_best for c in found),
        "same_list": len(same),
        "score_difference": max((c.score_differences[0] for c in same), default=0.0),
        "relative_difference": max((c.score_differences[1] for c in same), default=0.0),
    }


def main() -> None:
    """Compare all settings, write what was found."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("texts", nargs="+", metavar="DIRECTION=FILE")
    parser.add_argument("--lines", type=int, default=500, help="over all directions")
    parser.add_argument("--beams", default="1,4")
    parser.add_argument("--penalties", default="1.0,0.0,1.5")
    parser.add_argument("--show", type=int, default=5, help="differing sentences of a setting")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.checkpoint)
    translator = Translator(checkpoint)
    texts = dict(text.split("=", 1) for text in args.texts)
    share = -(-args.lines // len(texts))
    lines = {
        direction: usable_lines(translator, direction, read_lines(Path(path)))[:share]
        for direction, path in texts.items()
    }
    for beam in map(int, args.beams.split(",")):
        for penalty in map(float, args.penalties.split(",")):
            config = SearchConfig(beam, penalty, num_best=beam)
            found = [c for d, some in lines.items() for c in compare(checkpoint, d, some, config)]
            setting = {"beam": beam, "length_penalty": penalty, "directions": list(lines)}
            sys.stdout.write(json.dumps(setting | summarise(found)) + "\n")
            for c in [c for c in found if not c.has_same_list][: args.show]:
                sys.stdout.write(f"{c.direction} {c.line}\n ours   {c.ours}\n theirs {c.theirs}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
