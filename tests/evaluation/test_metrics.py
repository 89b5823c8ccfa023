"""BLEU and chrF++ with signatures, and the commands that print them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu

from evaluation import compare, score
from evaluation.compare import compare_lines
from evaluation.metrics import check_language, choose_tokenizer, score_lines
from mtmoe.errors import DataError, run_command

REFERENCES = ["the cat sat on the mat", "a small house by the river", "nothing was found"]
HYPOTHESES = ["the cat sat on a mat", "a small house at the river", "no result"]


def test_scores_equal_sacrebleu() -> None:
    found = score_lines(HYPOTHESES, REFERENCES, "de")
    assert found.bleu == pytest.approx(
        sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score, abs=0.005
    )
    chrf = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES], word_order=2).score
    assert found.chrf == pytest.approx(chrf, abs=0.005)


def test_signature_holds_both_metrics_and_the_version() -> None:
    bleu, chrf = score_lines(HYPOTHESES, REFERENCES, "de").signature.split(" ; ")
    assert bleu.startswith("BLEU|nrefs:1|")
    assert "tok:13a" in bleu
    assert chrf.startswith("chrF2++|nrefs:1|")
    assert "nw:2" in chrf
    assert f"version:{sacrebleu.__version__}" in bleu


def test_tokenizer_suits_the_language() -> None:
    assert choose_tokenizer("de") == choose_tokenizer("") == "13a"
    assert choose_tokenizer("zh") == choose_tokenizer("zh_hans") == "zh"
    assert choose_tokenizer("ja") in ("ja-mecab", "char")
    assert choose_tokenizer("th") == "char"
    assert "tok:zh" in score_lines(["你好"], ["你好"], "zh").signature


def test_unequal_numbers_of_lines_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"equally many lines, but have: hypotheses 1, references 3"
    ):
        score_lines(["one"], REFERENCES, "de")


def test_no_lines_are_refused() -> None:
    with pytest.raises(DataError, match="must have at least one line, but are empty"):
        score_lines([], [], "de")


def test_better_system_wins_with_a_small_p_value() -> None:
    references = [f"{line} number {n} of many" for n, line in enumerate(REFERENCES * 20)]
    worse = [line.replace("the", "some").replace("a ", "one ") for line in references]
    found = compare_lines(worse, references, references, "de", samples=100)
    assert found["bleu"]["difference"] > 0
    assert found["chrf"]["p_value"] < 0.05
    assert "bs:100" in found["bleu"]["signature"]
    same = compare_lines(worse, worse, references, "de", samples=100)
    assert same["chrf"]["difference"] == 0
    assert same["chrf"]["p_value"] == 1


def write_lines(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    hypotheses = write_lines(tmp_path / "hypotheses", HYPOTHESES)
    references = write_lines(tmp_path / "references", REFERENCES)
    return ["--hypotheses", hypotheses, "--references", references]


def test_score_prints_json_or_markdown(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["score", *files])
    assert run_command(score.main) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"bleu", "chrf", "signature"}
    monkeypatch.setattr(sys, "argv", ["score", *files, "--format", "markdown"])
    assert run_command(score.main) == 0
    assert f"| {found['bleu']:.1f} | {found['chrf']:.1f} |" in capsys.readouterr().out


def test_score_names_the_line_that_is_not_utf8(
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "hypotheses").write_bytes(b"good\nbad \xff\n")
    monkeypatch.setattr(sys, "argv", ["score", *files])
    assert run_command(score.main) == 2
    assert "hypotheses line 2 has the byte 0xff" in capsys.readouterr().err


def test_compare_prints_json_and_refuses_too_few_samples(
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["compare", *files, "--baseline", str(tmp_path / "references"), "--samples"]
    monkeypatch.setattr(sys, "argv", [*command, "100"])
    assert run_command(compare.main) == 0
    assert json.loads(capsys.readouterr().out)["bleu"]["baseline"] == 100
    monkeypatch.setattr(sys, "argv", [*command, "1"])
    assert run_command(compare.main) == 2
    assert "--samples must be at least 100, but is 1" in capsys.readouterr().err


@pytest.mark.parametrize("language", ["jp", "German", "ZH", "pt-BR", "iw"])
def test_a_target_language_that_is_no_code_is_refused(
    files: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    language: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["score", *files, "--target-lang", language])
    assert run_command(score.main) == 2
    message = (
        f"--target-lang must be a code of ISO 639 such as de, ja or pt_br, but is {language!r}"
    )
    assert message in capsys.readouterr().err
    for good in ("de", "ja", "pt_br", "zh_hans", "deu", ""):
        check_language("--target-lang", good)


def test_without_a_step_the_steps_are_named() -> None:
    done = subprocess.run([sys.executable, "-m", "evaluation"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for step in ("score", "evaluate", "compare"):
        assert f"evaluation.{step}" in done.stderr
