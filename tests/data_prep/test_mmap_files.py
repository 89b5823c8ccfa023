from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.mmap_files import (
    EOS,
    Encoded,
    Encoder,
    best_dtype,
    cut,
    encode_files,
    write_encoded,
    write_mmap,
)

MODEL = Path(__file__).parents[1] / "samples/gettext"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    import sentencepiece

    folder = tmp_path_factory.mktemp("model")
    sentencepiece.SentencePieceTrainer.train(
        input=str(MODEL / "sample.en"), model_prefix=str(folder / "m"), vocab_size=400,
        byte_fallback=True, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return Encoder(folder / "m.model", tuple(range(4, 404)))


@pytest.mark.filterwarnings("ignore")  # of fairseq's own import
@pytest.mark.parametrize("num_symbols", [500, 65_499, 65_500, 100_000])
def test_files_are_those_of_fairseqs_own_builder(tmp_path: Path, num_symbols: int) -> None:
    import torch
    from fairseq.data import indexed_dataset

    sentences = [[5, num_symbols - 1, EOS], [EOS], list(range(4, 90))]
    write_mmap(tmp_path / "ours", sentences, num_symbols)
    dtype = indexed_dataset.best_fitting_int_dtype(num_symbols)
    builder = indexed_dataset.MMapIndexedDatasetBuilder(str(tmp_path / "its.bin"), dtype=dtype)
    for sentence in sentences:
        builder.add_item(torch.tensor(sentence))
    builder.finalize(str(tmp_path / "its.idx"))
    for kind in ("bin", "idx"):
        assert (tmp_path / f"ours.{kind}").read_bytes() == (tmp_path / f"its.{kind}").read_bytes()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=9)))
def test_blocks_are_whole_lines_and_leave_nothing_out(lines: list[str]) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        text = "".join(f"{line}\n" for line in lines).encode()
        Path(file.name).write_bytes(text)
        places = list(cut(Path(file.name), 5))
    assert b"".join(text[start : start + size] for start, size in places) == text
    assert all(text[start : start + size].endswith(b"\n") for start, size in places)


def test_blocks_give_the_ids_of_a_loop(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentencepiece import SentencePieceProcessor

    monkeypatch.setattr(cut, "__defaults__", (1000,))
    text = (MODEL / "sample.en").read_text() + "\n\nЖ 字\n"
    files = [(tmp_path / "a", tmp_path / "A"), (tmp_path / "b", tmp_path / "B")]
    (tmp_path / "a").write_text(text)
    (tmp_path / "b").write_text("")
    model = SentencePieceProcessor(model_file=str(encoder.model))
    expected = [
        [encoder.table[n] for n in model.encode(line)] + [EOS] for line in text.split("\n")[:-1]
    ]
    sizes = list(encode_files(encoder, files, 500))
    assert sizes == [(len(expected), sum(map(len, expected))), (0, 0)]
    write_mmap(tmp_path / "E", expected, 500)
    for kind in ("bin", "idx"):
        assert (tmp_path / f"A.{kind}").read_bytes() == (tmp_path / f"E.{kind}").read_bytes()


def test_pointers_go_on_over_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.mmap_files.COPY_ROWS", 2)
    dtype = best_dtype(10)
    parts = [Encoded(bytes(2 * n), np.array([n], np.int32)) for n in (3, 1, 2, 5, 1)]
    assert write_encoded(tmp_path / "x", parts, dtype) == (5, 12)
    pointers = np.frombuffer((tmp_path / "x.idx").read_bytes()[-40:], np.int64)
    assert pointers.tolist() == [0, 6, 8, 12, 22]
