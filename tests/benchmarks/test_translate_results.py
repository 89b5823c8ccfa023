from __future__ import annotations

from dataclasses import replace

from benchmarks import translate_targets
from benchmarks.translate_results import MIB, Result, RowName, as_dicts, to_markdown

OURS = RowName("mtmoe", "dense", "float32", 2, 1)
THEIRS = RowName("ctranslate2", "dense", "float32", 1, 2)
TWO = replace(THEIRS, workers=2, threads=1)
FIELDS = [
    "engine", "model", "dtype", "beam", "workers", "threads", "batch", "tokens_per_second", "ratio",
    "low", "high", "rounds", "peak_mib",
]  # fmt: skip


def result(row: RowName, beam: int, *seconds: float) -> Result:
    return Result(row, beam, 16, 100, list(seconds), 300 * MIB)


def ratios(results: list[Result]) -> list[object]:
    return [entry["ratio"] for entry in as_dicts(results)]


def test_ratios_are_to_one_worker_of_ctranslate2_with_the_same_beam() -> None:
    found = [result(OURS, 1, 2.0), result(TWO, 1, 1.0), result(THEIRS, 1, 4.0, 4.0, 9.0)]
    assert ratios([*found, result(OURS, 4, 5.0), result(THEIRS, 4, 5.0)]) == [2, 4, 1, 1, 1]


def test_without_it_they_are_to_our_dense_model_and_without_that_there_are_none() -> None:
    moe = replace(OURS, model="moe16")
    assert ratios([result(moe, 1, 4.0), result(OURS, 1, 2.0)]) == [0.5, 1]
    assert ratios([result(moe, 1, 4.0), result(replace(OURS, dtype="int8"), 1, 1.0)]) == [None] * 2


def test_entries_have_what_the_issue_asks_for() -> None:
    (entry,) = as_dicts([result(OURS, 4, 1.0, 2.0, 4.0, 5.0, 10.0)])
    assert list(entry) == FIELDS
    assert (entry["engine"], entry["model"], entry["dtype"], entry["beam"]) == (
        "mtmoe", "dense", "float32", 4,
    )  # fmt: skip
    assert (entry["tokens_per_second"], entry["low"], entry["high"]) == (25, 20, 50)
    assert (entry["workers"], entry["batch"], entry["rounds"], entry["peak_mib"]) == (2, 16, 5, 300)


def test_the_table_shows_what_is_missing() -> None:
    found = [result(THEIRS, 1, 2.0), result(OURS, 1, 1.0), result(THEIRS, 4, 4.0)]
    assert to_markdown(found).splitlines()[2:] == [
        "| ctranslate2 dense float32 1x2 | 1.00 | 50 (50-50) | 16 | 1.00 | 25 (25-25) | 16 | 300 |",
        "| mtmoe dense float32 2x1 | 2.00 | 100 (100-100) | 16 | - | - | - | 300 |",
    ]


def test_targets_compare_the_fastest_rows_of_each() -> None:
    found = [result(OURS, 1, 2.0), result(THEIRS, 1, 4.0), result(TWO, 1, 3.0)]
    wide = replace(OURS, model="dense_wide")
    found += [
        result(wide, 1, 2.5),
        result(wide, 4, 9.0),
        result(replace(OURS, model="moe16"), 1, 5),
    ]
    assert translate_targets.to_markdown(found).splitlines()[2:] == [
        "| mtmoe dense float32 | ctranslate2 dense float32 | 1.0 | 1.50 | - |",
        "| mtmoe moe16 float32 | mtmoe dense_wide float32 | 0.8 | 0.50 | - |",
    ]
    assert translate_targets.to_markdown([result(OURS, 1, 2.0)]) == ""
