"""The evaluation of several systems in all directions, with a stand-in for the model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluation import evaluate
from evaluation.metrics import Score
from evaluation.table import Row, average, to_markdown
from mtmoe.errors import run_command
from mtmoe.inference.engine import Translator

ENGLISH = ["Save all of the files now", "Open the door for your friend", "Where is it"]
GERMAN = ["Speichere jetzt alle Dateien ab", "Öffne die Tür für deinen Freund", "Wo ist es"]
SPANISH = ["Guarda todos los archivos ahora", "Abre la puerta a tu amigo", "Dónde está"]


class FakeTranslator:
    """Gives the reference for every line but the last; counts what it is asked."""

    loaded: list[str]
    asked: list[str]

    @classmethod
    def from_checkpoint(cls, path: Path) -> FakeTranslator:
        cls.loaded.append(Path(path).stem)
        return cls()

    def translate(self, lines: Sequence[str], source: str, target: str, beam: int) -> list[str]:
        self.asked.append(f"{source}-{target}")
        text = {"en": ENGLISH, "de": GERMAN, "es": SPANISH}
        table = dict(zip(text[source], text[target], strict=True))
        return [table[line] for line in lines[:-1]] + [f"beam {beam}"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with text of two pairs and two checkpoints; the model is a stand-in."""
    text = tmp_path / "text"
    text.mkdir()
    for language, lines in (("de", GERMAN), ("es", SPANISH)):
        write_lines(text / f"test.en-{language}.en", ENGLISH)
        write_lines(text / f"test.en-{language}.{language}", lines)
    for name in ("full", "pruned", "dense"):
        (tmp_path / f"{name}.pt").write_text(name)
    FakeTranslator.loaded, FakeTranslator.asked = [], []
    monkeypatch.setattr(Translator, "from_checkpoint", FakeTranslator.from_checkpoint)
    return tmp_path


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def call(run: Path, monkeypatch: pytest.MonkeyPatch, *systems: str, options: str = "") -> int:
    given = [
        part for s in systems for part in ("--system", s if s == "copy" else f"{s}={run}/{s}.pt")
    ]
    folders = ["--text", str(run / "text"), "--output", str(run / "out")]
    monkeypatch.setattr(sys, "argv", ["evaluate", *folders, *given, *options.split()])
    return run_command(evaluate.main)


def read_scores(run: Path) -> dict[tuple[str, str], dict[str, object]]:
    rows = json.loads((run / "out/scores.json").read_text())
    return {(row["system"], row["direction"]): row for row in rows}


def test_every_system_is_scored_in_every_direction(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, monkeypatch, "full", "copy", "pruned") == 0
    scores = read_scores(run)
    directions = ["en-de", "en-es", "de-en", "es-en"]
    assert list(scores) == [(s, d) for s in ("full", "pruned", "copy") for d in directions]
    assert {"bleu", "chrf", "signature"} < set(scores["full", "en-de"])
    assert scores["full", "es-en"]["chrf"] > scores["copy", "es-en"]["chrf"]  # type: ignore[operator]
    kept = (run / "out/hypotheses/full.en-de.de").read_text("utf-8")
    assert kept == f"{GERMAN[0]}\n{GERMAN[1]}\nbeam 4\n"
    assert FakeTranslator.loaded == ["full", "pruned"]
    out = capsys.readouterr().out
    assert (run / "out/scores.md").read_text("utf-8") in out
    assert "| direction | sentences | full | pruned | copy |" in out
    assert out.count("reference") == 2
    assert not json.loads((run / "out/averages.json").read_text()).keys() ^ {
        "full",
        "pruned",
        "copy",
    }


def test_second_call_translates_nothing_and_writes_the_same(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(run, monkeypatch, "full", "copy")
    first = (run / "out/scores.json").read_bytes()
    FakeTranslator.loaded.clear()
    call(run, monkeypatch, "full", "copy")
    assert (run / "out/scores.json").read_bytes() == first
    assert not FakeTranslator.loaded


@pytest.mark.parametrize("change", ["checkpoint", "text", "options", "hypotheses", "record"])
def test_what_changed_is_translated_again(
    run: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    call(run, monkeypatch, "full")
    FakeTranslator.asked.clear()
    options, expected = "", ["en-de", "en-es", "de-en", "es-en"]
    kept = run / "out/hypotheses/full.en-de.de"
    if change == "checkpoint":
        (run / "full.pt").write_text("trained further")
    elif change == "text":
        write_lines(run / "text/test.en-de.en", [*ENGLISH[:2], "Where was it"])
        expected = ["en-de"]
    elif change == "options":
        options = "--beam 2"
    elif change == "hypotheses":
        kept.write_text("half of a fi", "utf-8")
        expected = ["en-de"]
    else:
        Path(f"{kept}.json").unlink()
        expected = ["en-de"]
    assert call(run, monkeypatch, "full", options=options) == 0
    assert FakeTranslator.asked == expected


def test_later_system_is_a_further_column(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(run, monkeypatch, "full", "pruned", "copy")
    FakeTranslator.loaded.clear()
    call(run, monkeypatch, "dense")
    assert FakeTranslator.loaded == ["dense"]
    assert "| direction | sentences | full | pruned | dense | copy |" in capsys.readouterr().out
    assert len(read_scores(run)) == 16


def test_earlier_system_of_other_text_is_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call(run, monkeypatch, "full")
    call(run, monkeypatch, "copy", options="--limit 2")
    assert {system for system, _ in read_scores(run)} == {"copy"}
    assert "full is left out" in caplog.text


def test_limit_takes_the_first_sentences(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(run, monkeypatch, "copy", options="--limit 2")
    assert {row["sentences"] for row in read_scores(run).values()} == {2}


@pytest.mark.parametrize(
    ("systems", "options", "sentence"),
    [
        (["lost"], "", "checkpoint of system lost must be a file, but is not there"),
        (["copy"], "--system full=/", "system full must be a file, but is a folder: /."),
        (["copy"], "--output /dev/null/x", "--output must be a folder, but /dev/null is a file."),
        (["full", "full"], "", "--system must name each system once, but repeats full"),
        (["copy"], "--limit 0", "--limit must be at least 1, but is 0"),
        (["copy"], "--beam x", "argument --beam: invalid int value: 'x'. See `python -m"),
        (["copy"], "--beam 0", "--beam must be at least 1, but is 0"),
        (["copy"], "--split dev", "text folder must hold files such as dev.en-de.en"),
        (["copy"], "--system copy=x.pt", "--system must be copy, or NAME=CHECKPOINT"),
        (["copy"], "--system full", "--system must be copy, or NAME=CHECKPOINT"),
    ],
)
def test_wrong_options_are_one_sentence(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    systems: list[str],
    options: str,
    sentence: str,
) -> None:
    assert call(run, monkeypatch, *systems, options=options) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_table_ends_with_averages_and_signatures() -> None:
    rows = [
        Row("full", "en-de", 10, Score(20.0, 40.0, "tok:13a")),
        Row("full", "en-zh", 10, Score(10.0, 30.0, "tok:zh")),
    ]
    assert average(rows) == {"full": {"bleu": 15.0, "chrf": 35.0}}
    assert to_markdown(rows).split("\n")[4:] == [
        "| en-de | 10 | 20.0 / 40.0 |",
        "| en-zh | 10 | 10.0 / 30.0 |",
        "| average |  | 15.0 / 35.0 |",
        "",
        "- en-de: `tok:13a`",
        "- en-zh: `tok:zh`",
        "",
    ]


def test_only_the_named_directions_are_scored(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, monkeypatch, "full", options="--directions es-en,en-de") == 0
    assert [direction for _, direction in read_scores(run)] == ["es-en", "en-de"]
    assert call(run, monkeypatch, "full", options="--directions en-fr") == 2
    message = "--directions must be among en-de, en-es, de-en, es-en, but one is 'en-fr'."
    assert message in capsys.readouterr().err
