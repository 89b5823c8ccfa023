"""The whole preparation, on the committed sample."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sentencepiece import SentencePieceTrainer

from data_prep.binarise import dictionary_symbols
from data_prep.check import count_overlaps, num_leaks, read_keys
from data_prep.mmap_files import EOS
from data_prep.normalise import clean_text
from data_prep.sources.streams import MAX_LINE_BYTES
from mtmoe.data.vocabulary import CONTROL_SYMBOLS

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests/samples/gettext"
STEPS = ("fetch", "extract", "clean", "split", "vocabulary", "binarise", "report")


def command(step: str, config: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"data_prep.{step}", "--config", str(config), "--out", str(out)]
    return subprocess.run([*line, *more], capture_output=True, text=True, cwd=ROOT)


def prepare(config: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return command("prepare", config, out, *more)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first")
    done = prepare(SAMPLE / "data.yaml", out)
    assert done.returncode == 0, done.stderr
    return out


def test_two_runs_give_equal_bytes_one_step_at_a_time(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "second"
    for step in STEPS:
        done = command(step, SAMPLE / "data.yaml", out)
        assert done.returncode == 0, done.stderr
    names = [str(path.relative_to(prepared)) for path in prepared.rglob("*") if path.is_file()]
    assert len(names) > 40
    assert filecmp.cmpfiles(prepared, out, names, shallow=False) == (names, [], [])


def test_a_finished_preparation_returns_at_once(prepared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    start = time.monotonic()
    done = prepare(SAMPLE / "data.yaml", prepared)
    assert time.monotonic() - start < 3
    assert done.stderr.count("unchanged, skipped") == len(STEPS)
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}


def test_no_string_of_test_stands_in_train(prepared: Path) -> None:
    rows = count_overlaps(read_keys(prepared))
    assert num_leaks(rows) == 0
    assert [row["test"] for row in rows] == [rows[0]["test"]] * 3
    assert all(isinstance(row["train"], int) and row["train"] > 500 for row in rows)


def test_the_manifest_tells_what_went_in_and_out(prepared: Path) -> None:
    text = (prepared / "manifest.json").read_text()
    assert str(prepared) not in text
    assert str(ROOT) not in text
    steps = json.loads(text)["steps"]
    assert list(steps) == list(STEPS)
    cleaned = steps["clean"]["counts"]["en-de"]
    assert cleaned["in"] == steps["extract"]["counts"]["by_source"]["files 1"]["en-de"]["pairs"]
    assert cleaned["out"] == steps["split"]["counts"]["en-de"]["in"]


@pytest.mark.filterwarnings("ignore")
def test_stock_fairseq_reads_the_data(prepared: Path) -> None:
    from fairseq.data import Dictionary
    from fairseq.tasks.translation import load_langpair_dataset
    from sentencepiece import SentencePieceProcessor

    folder = prepared / "data-bin"
    symbols = Dictionary.load(str(folder / "dict.de.txt"))
    model = SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    languages = ["de", "en", "es", "fr"]
    assert symbols.symbols[4:] == dictionary_symbols(model, languages)
    assert symbols.symbols[-4:] == ["__de__", "__en__", "__es__", "__fr__"]
    assert symbols.symbols[-8:-4] == list(CONTROL_SYMBOLS)
    for split in ("train", "valid", "test"):
        data = load_langpair_dataset(
            str(folder), split, "de", symbols, "en", symbols, **FAIRSEQ_OPTIONS
        )
        german = (prepared / f"text/{split}.en-de.de").read_text().split("\n")[:-1]
        assert len(data) == len(german)
        for index in (0, len(german) - 1):
            tokens = data[index]["source"].tolist()
            assert tokens[-1] == EOS
            assert model.decode([symbols[token] for token in tokens[:-1]]) == german[index]


FAIRSEQ_OPTIONS: dict[str, Any] = {
    "combine": False,
    "dataset_impl": "mmap",
    "upsample_primary": 1,
    "left_pad_source": True,
    "left_pad_target": False,
    "max_source_positions": 1024,
    "max_target_positions": 1024,
}


@pytest.fixture
def corpus(tmp_path: Path) -> SimpleNamespace:
    """A configuration of two files, and how to change it."""
    for code in ("en", "de"):
        (tmp_path / f"text.{code}").write_bytes((SAMPLE / f"sample.{code}").read_bytes())
    config = tmp_path / "data.yaml"
    lines = "languages: [en, de]\nfiles: [{pair: en-de, source: text.en, target: text.de}]\n"
    config.write_text(lines + "split: {test: 20, valid: 20}\nvocabulary: {size: 600}\n")
    return SimpleNamespace(folder=tmp_path, config=config, out=tmp_path / "out")


def change(corpus: SimpleNamespace, old: str, new: str) -> None:
    text = corpus.config.read_text()
    assert old in text
    corpus.config.write_text(text.replace(old, new))


def refused(corpus: SimpleNamespace, *more: str, code: int = 2) -> str:
    done = prepare(corpus.config, corpus.out, *more)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith("error: ")
    assert done.stdout == ""
    return last


def test_unequal_sides_are_refused(corpus: SimpleNamespace) -> None:
    with open(corpus.folder / "text.de", "a") as file:
        file.write("more\n")
    assert "must have equal numbers of lines" in refused(corpus)


def test_invalid_utf8_is_refused(corpus: SimpleNamespace) -> None:
    path = corpus.folder / "text.de"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\xff\n"))
    assert "text.de line 1 has the byte 0xff" in refused(corpus)


def test_hostile_lines_go_with_their_translations_and_stand_in_the_report(
    corpus: SimpleNamespace,
) -> None:
    path = corpus.folder / "text.de"
    lines = path.read_bytes().split(b"\n")
    lines[3] = b"\xff" + lines[3]
    lines[5] = b"x" * (MAX_LINE_BYTES + 1)
    lines[7] = lines[7].replace(b" ", b"\0", 1)
    lines[9] = b""
    path.write_bytes(b"\r\n".join(lines))
    done = prepare(corpus.config, corpus.out)
    assert done.returncode == 0, done.stderr
    assert "files 1 (en-de): 1 lines are not UTF-8 and are left out" in done.stderr
    report = (corpus.out / "report.md").read_text().split("## Reading, by source")[1]
    names, values = ([c.strip() for c in report.split("\n")[n].split("|")] for n in (2, 4))
    found = dict(zip(names, values, strict=True))
    for fault in ("not_utf8", "too_long_line", "control_characters", "empty"):
        assert found[fault] == "1", found
    english = (corpus.folder / "text.en").read_text().split("\n")
    known = {
        (clean_text(a), clean_text(b.decode("utf-8", "replace")))
        for a, b in zip(english, lines, strict=True)
    }
    sides = (corpus.out / f"text/train.en-de.{code}" for code in ("en", "de"))
    train = zip(*(side.read_text().split("\n")[:-1] for side in sides), strict=True)
    assert set(train) <= known


def test_an_empty_corpus_is_refused(corpus: SimpleNamespace) -> None:
    for code in ("en", "de"):
        (corpus.folder / f"text.{code}").write_bytes(b"")
    assert "must not be empty" in refused(corpus)


def test_a_corpus_that_is_too_small_to_split_is_refused(corpus: SimpleNamespace) -> None:
    (corpus.folder / "text.en").write_text("Save the file\n")
    (corpus.folder / "text.de").write_text("Speichere die Datei\n")
    assert "must hold text for every pair, but en-de has none" in refused(corpus)


def test_a_corpus_of_which_cleaning_leaves_nothing_is_refused(corpus: SimpleNamespace) -> None:
    (corpus.folder / "text.de").write_bytes((corpus.folder / "text.en").read_bytes())
    assert "cleaning must leave text, but leaves none of en-de" in refused(corpus)


def test_a_missing_file_is_refused(corpus: SimpleNamespace) -> None:
    (corpus.folder / "text.en").unlink()
    missing = f"{corpus.folder}/text.en. Check the path."
    assert f"files.source of en-de must be a file, but is not there: {missing}" in refused(corpus)
    assert not corpus.out.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("exclude: [{language: de, path: no.de}]", "exclude.path must be a file, but is not there"),
        ("vocabulary: {model: no.model}", "vocabulary.model must be a file, but is not there: "),
        (
            "corpora: [{format: gettext, path: none}]",
            "of gettext must be a folder, an archive or a ",
        ),
        ("corpora: [{format: gettext, path: de.po}]", "but is one catalogue: "),
        (
            "corpora: [{format: tmx, path: none, pair: en-de}]",
            "corpora.path must be a file, but is ",
        ),
    ],
)
def test_whatever_is_missing_is_told_before_anything_is_made(
    corpus: SimpleNamespace, line: str, message: str
) -> None:
    (corpus.folder / "de.po").write_text("")
    change(corpus, "vocabulary: {size: 600}\n", line)
    assert message in refused(corpus)
    assert not corpus.out.exists()


@pytest.mark.parametrize(
    ("options", "piece"),
    [({"pad_id": 3}, "<pad>"), ({"user_defined_symbols": ["__de__"]}, "__de__")],
)
def test_a_model_with_symbols_of_the_dictionary_is_refused(
    corpus: SimpleNamespace, options: dict[str, Any], piece: str
) -> None:
    with open(corpus.folder / "text.en") as lines, open(corpus.folder / "my.model", "wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=file, vocab_size=400, minloglevel=2, **options
        )
    change(corpus, "size: 600", "model: my.model")
    assert f"my.model has the piece {piece}. Train it without" in refused(corpus)


def test_files_of_one_name_are_told_apart(corpus: SimpleNamespace) -> None:
    """A change of either, or an exchange of the two, makes the text anew."""
    for code in ("en", "de"):
        (corpus.folder / code).mkdir()
        (corpus.folder / f"text.{code}").rename(corpus.folder / code / "text")
    change(corpus, "source: text.en, target: text.de", "source: de/text, target: en/text")
    extract(corpus)
    change(corpus, "source: de/text, target: en/text", "source: en/text, target: de/text")
    english = extract(corpus)[0]
    assert english == (SAMPLE / "sample.en").read_text().split("\n")[0]
    for code in ("en", "de"):
        path = corpus.folder / code / "text"
        path.write_text(path.read_text().replace("\n", " (new)\n", 1))
        assert extract(corpus)[code == "de"].endswith("(new)")


def test_tables_of_one_name_are_told_apart(corpus: SimpleNamespace) -> None:
    files = "files: [{pair: en-de, source: text.en, target: text.de}]"
    tables = "{format: tsv, pair: en-de, path: a/t.tsv}, {format: tsv, pair: en-fr, path: b/t.tsv}"
    change(corpus, f"de]\n{files}", f"de, fr]\ncorpora: [{tables}]")
    for folder in ("a", "b"):
        (corpus.folder / folder).mkdir()
        (corpus.folder / folder / "t.tsv").write_text("old\tpair\n")
    assert extract(corpus) == ["old", "pair"]
    (corpus.folder / "a/t.tsv").write_text("new\tpair\n")
    assert extract(corpus) == ["new", "pair"]


def extract(corpus: SimpleNamespace) -> Any:
    """The first extracted pair of en-de."""
    done = command("extract", corpus.config, corpus.out)
    assert done.returncode == 0, done.stderr
    with open(corpus.out / "extracted/en-de.jsonl") as file:
        return json.loads(file.readline())[:2]


def test_an_unknown_language_is_refused(corpus: SimpleNamespace) -> None:
    change(corpus, "languages: [en, de]", "languages: [en, de, qq]")
    assert "languages must be ones that the sources have, but 'qq' is in none" in refused(corpus)


def test_a_vocabulary_that_is_too_large_is_refused(corpus: SimpleNamespace) -> None:
    change(corpus, "600", "60000")
    assert "vocabulary.size must fit the text, but is 60000" in refused(corpus)


def test_permissive_only_needs_a_source_with_licences(corpus: SimpleNamespace) -> None:
    assert "--permissive-only must have a source gettext" in refused(corpus, "--permissive-only")


def test_steps_out_of_order_are_refused(corpus: SimpleNamespace) -> None:
    done = command("split", corpus.config, corpus.out)
    assert done.returncode == 2
    assert "input of split must be there" in done.stderr


def test_an_out_that_is_a_file_is_refused(corpus: SimpleNamespace) -> None:
    corpus.out.write_text("a file")
    assert f"--out must be a folder, but {corpus.out} is a file" in refused(corpus)


def test_without_a_step_the_steps_are_named() -> None:
    done = subprocess.run([sys.executable, "-m", "data_prep"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert all(step in done.stderr for step in (*STEPS, "prepare", "check"))


@pytest.mark.parametrize("step", [*STEPS, "prepare", "check"])
def test_every_step_has_help(step: str) -> None:
    line = [sys.executable, "-m", f"data_prep.{step}", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "--out" in done.stdout
