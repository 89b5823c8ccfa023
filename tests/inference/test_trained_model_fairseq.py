"""Trained models: our n-best lists are fairseq's, token for token, and so are the scores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mtmoe.checkpoint.fairseq_file import Checkpoint, load_checkpoint
from mtmoe.files import read_lines
from mtmoe.inference.engine import Translator
from mtmoe.inference.search_config import SearchConfig
from tests.inference.fairseq_search import compare, summarise, usable_lines

GOLDEN = Path(__file__).parents[1] / "golden"
RUN = "MTMOE_QUICKSTART_RUN"
NUM_SENTENCES = 500


def check_same(checkpoint: Checkpoint, texts: dict[str, list[str]], config: SearchConfig) -> None:
    found = [c for d, lines in texts.items() for c in compare(checkpoint, d, lines, config)]
    numbers = summarise(found)
    assert numbers["same_list"] == numbers["sentences"], numbers
    assert numbers["relative_difference"] < 1e-5, numbers


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 1},
        {"beam": 4, "length_penalty": 0.0},
        {"beam": 4, "length_penalty": 1.5},
        {"beam": 5, "min_length": 6},
    ],
)
def test_a_small_trained_model_gives_fairseqs_lists(options: dict[str, float]) -> None:
    checkpoint = load_checkpoint(GOLDEN / "toy.pt")
    translator = Translator(checkpoint)
    texts = {}
    for direction in ("aa-bb", "bb-aa"):
        lines = read_lines(GOLDEN / f"toy.{direction[:2]}")
        texts[direction] = usable_lines(translator, direction, lines)
        assert len(texts[direction]) >= 10
    config = SearchConfig(num_best=int(options["beam"]), **options)
    check_same(checkpoint, texts, config)


@pytest.mark.long
@pytest.mark.parametrize(
    "model", ["checkpoints/checkpoint_best.pt", "checkpoints/dense/checkpoint_best.pt"]
)
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("beam", [1, 4])
def test_the_quickstart_s_models_give_fairseqs_lists(
    model: str, length_penalty: float, beam: int
) -> None:
    run = Path(os.environ.get(RUN, "/"))
    if not (run / model).is_file():
        pytest.skip(f"{RUN} must name the folder of a finished quickstart that has {model}")
    checkpoint = load_checkpoint(run / model)
    translator = Translator(checkpoint)
    share = NUM_SENTENCES // len(translator.directions) + 1
    texts = {}
    for direction in translator.directions:
        source, target = direction.split("-")
        pairs = (f"{source}-{target}", f"{target}-{source}")
        paths = (run / "text" / f"test.{pair}.{source}" for pair in pairs)
        lines = read_lines(next(path for path in paths if path.is_file()))
        texts[direction] = usable_lines(translator, direction, lines)[:share]
    assert sum(map(len, texts.values())) >= NUM_SENTENCES
    check_same(checkpoint, texts, SearchConfig(beam, length_penalty, num_best=beam))
