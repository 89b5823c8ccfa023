from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mtmoe.config import WeightType
from mtmoe.inference.engine import Translator
from mtmoe.ops import native
from mtmoe.ops.fixed_linear import FixedLinear
from mtmoe.ops.int8_rows import round_to_bytes, scale_rows
from mtmoe.ops.packed_linear import can_pack
from tests.inference.tiny_model import write_tiny_checkpoint

needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler is here")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own; the library is looked for again, before and after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.library.cache_clear()
    yield tmp_path / "cache" / "mtmoe"
    monkeypatch.undo()
    native.library.cache_clear()


def rows(M: int, K: int) -> Tensor:
    return torch.randn(M, K, generator=torch.Generator().manual_seed(M + K)) * 3


@needs_compiler
@pytest.mark.parametrize(("M", "K"), [(1, 1), (4, 15), (3, 16), (5, 70), (32, 512)])
def test_rows_are_rounded_and_scaled_as_by_definition(
    M: int, K: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, bias, factor = rows(M, K), rows(1, K)[0], rows(M, 1)
    x[0] = 0
    rounded, largest = round_to_bytes(x)
    scaled = [scale_rows(x.clone(), factor, b, r) for b in (None, bias) for r in (False, True)]
    monkeypatch.setattr(native, "library", lambda: None)
    by_definition, same_largest = round_to_bytes(x)
    assert torch.equal(largest, same_largest)
    assert (rounded.int() - by_definition.int()).abs().max() <= 1  # where it lies between two
    assert (rounded != by_definition).float().mean() < 0.01
    defined = [scale_rows(x.clone(), factor, b, r) for b in (None, bias) for r in (False, True)]
    for found, expected in zip(scaled, defined, strict=True):
        torch.testing.assert_close(found, expected)


@needs_compiler
def test_what_is_no_number_stays_none() -> None:
    x = rows(3, 40)
    x[0, 35], x[1, 3] = float("nan"), float("inf")
    largest = round_to_bytes(x)[1]
    assert not largest[:2].isfinite().any()
    assert largest[2].isfinite().all()


@needs_compiler
def test_it_is_compiled_once_for_a_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.library() is not None
    [made] = home.iterdir()
    before = made.stat().st_mtime_ns
    native.library.cache_clear()
    assert native.library() is not None
    assert [made] == list(home.iterdir())
    assert made.stat().st_mtime_ns == before


@needs_compiler
def test_a_cached_file_that_does_not_load_is_made_again(home: Path) -> None:
    assert native.library() is not None
    [made] = home.iterdir()
    made.unlink()  # the loaded one stays whole
    made.write_bytes(b"of another C library")
    native.library.cache_clear()
    assert native.library() is not None
    assert [made] == list(home.iterdir())


@needs_compiler
def test_a_cpu_without_avx512_has_no_product_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [flag for flag in native.FLAGS if not flag.startswith("-march")]
    monkeypatch.setattr(native, "FLAGS", flags)  # of the processor's family, without extensions
    assert native.library() is not None
    assert not any(can_pack(kind) for kind in WeightType)
    linear = FixedLinear(rows(40, 24), None, WeightType.float32)
    torch.testing.assert_close(linear(rows(5, 24)), rows(5, 24) @ rows(40, 24).t())


@needs_compiler
def test_code_is_not_loaded_from_a_folder_that_others_write_to(home: Path) -> None:
    home.mkdir(parents=True)
    home.chmod(0o777)
    assert native.library() is not None
    assert not list(home.iterdir())


@needs_compiler
def test_source_that_does_not_compile_costs_speed_only(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / "decode.c"
    wrong.write_text("int attend(", "utf-8")
    monkeypatch.setattr(native, "SOURCES", (wrong,))
    assert native.library() is None
    assert "slower" in caplog.text
    assert not list(home.iterdir())


def test_without_a_compiler_translations_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_checkpoint(tmp_path, embed_dim=32)  # heads of 16
    lines = ["Save the file.", "Close all windows!", "No results"]

    def translate() -> list[str]:
        translator = Translator.from_checkpoint(path, threads=1)
        return translator.translate(lines, "en", "de", beam=3)

    expected = translate()
    native.library.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert translate() == expected
    assert native.library() is None
