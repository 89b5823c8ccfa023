from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mtmoe.config import ChooseBy
from mtmoe.errors import ConfigError
from mtmoe.inference.engine import Translator
from mtmoe.inference.explain import check_has_experts, draw_table, explain
from mtmoe.inference.record_translator import Answer, Defaults, RecordTranslator
from mtmoe.inference.records import Record
from mtmoe.inference.search_config import SearchConfig
from mtmoe.ops.routing import SKIPPED
from tests.inference.tiny_model import write_tiny_checkpoint


def make_translator(folder: Path, **config: object) -> RecordTranslator:
    translator = Translator.from_checkpoint(write_tiny_checkpoint(folder, **config))
    return RecordTranslator(translator, SearchConfig(), Defaults("en", "de"))


def answer(translator: RecordTranslator, text: str) -> Answer:
    return translator.translate([Record(text, "in line 1", 1)])[0]


@pytest.mark.parametrize("top_k", [1, 2])
def test_experts_are_those_of_the_search(tmp_path: Path, top_k: int) -> None:
    """Encoding and decoding token by token, as the search does, chooses the same experts."""
    translator = make_translator(tmp_path, top_k=top_k)
    found = answer(translator, "Save the file.")
    rows, model = explain(translator, found), translator.translator.model
    part = translator.translator.read_source(found.requests[0])[0]
    with torch.inference_mode():
        memory, cache = model.encode(torch.tensor([part.source])), model.new_cache()
        assert choices(rows["source"], "encoder.1") == memory.routings[0].expert.tolist()
        read = [part.start]
        for n, piece in enumerate(found.ranked[0].pieces):
            routing = model.decode(torch.tensor([read[-1:]]), memory, cache=cache).routings[0]
            assert choices(rows["target"], "decoder.1")[n] == routing.expert[0].tolist()
            read.append(translator.translator.vocabulary.index[piece])
    symbols = translator.translator.vocabulary.symbols
    assert [row["token"] for row in rows["source"]] == [symbols[n] for n in part.source]
    assert rows["target"][0]["token"] == "__de__"


def choices(rows: Sequence[dict[str, list[tuple[int, float]]]], layer: str) -> list[list[int]]:
    return [[expert for expert, _ in row[layer]] for row in rows]


def test_a_line_in_parts_is_explained_in_parts(tmp_path: Path) -> None:
    translator = make_translator(tmp_path)
    text = "Save the file.\tOpen a new window."
    found, alone = answer(translator, text), []
    for line in text.split("\t"):
        alone += explain(translator, answer(translator, line))["target"]
    assert explain(translator, found)["target"] == alone
    long = answer(translator, "Delete the selected files? " * 9)
    ends = [row["token"] for row in explain(translator, long)["source"]].count("</s>")
    assert ends == long.ranked[0].pieces.count("</s>") > 1


def test_experts_that_choose_take_different_numbers_of_tokens(tmp_path: Path) -> None:
    options = {"encoder_routing": ChooseBy.expert, "top_k": 1, "capacity_factor": 1.0}
    translator = make_translator(tmp_path, **options)
    found = answer(translator, "Save the file. Open a new window.")
    experts = [row["encoder.1"] for row in explain(translator, found)["source"]]
    with torch.inference_mode():
        part = translator.translator.read_source(found.requests[0])[0]
        routing = translator.translator.model.encode(torch.tensor([part.source])).routings[0]
    wanted = (routing.slot != SKIPPED).sum(1).tolist()
    assert [len(row) for row in experts] == wanted
    assert len(set(wanted)) > 1


def test_a_table_has_a_line_for_each_token() -> None:
    rows = [
        {"token": "▁Save", "encoder.1": [(3, 0.75), (0, 0.25)]},
        {"token": "</s>", "encoder.1": []},
    ]
    table = "  token  encoder.1\n  ▁Save  3 0.75, 0 0.25\n  </s>   -\n"
    assert draw_table(rows) == table


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--explain must be left out, but is given for a model"):
        check_has_experts(make_translator(tmp_path, moe_every=0).translator)
