from __future__ import annotations

from data_prep.tally import NUM_EXAMPLES, Tally, num_words


def test_a_tally_counts_each_corpus_and_filter() -> None:
    tally = Tally(("en", "de"), ["too_long", "copy"])
    for number in range(15):
        tally.add("web", (f"a {number}", f"b {number}"), "copy")
    tally.add("web", ("two words", "ein Wort mehr"), None)
    tally.add("book", ("x", "y"), None)
    tally.add("titles", ("x", "y"), "too_long", sized=False)
    assert tally.totals() == {"in": 18, "too_long": 1, "copy": 15, "out": 2}
    report = tally.report()
    web = report["corpora"]["web"]
    assert (web["read"], web["kept"]) == (16, 1)
    assert web["dropped"]["copy"]["count"] == 15
    assert web["dropped"]["copy"]["examples"] == [
        (f"a {number}", f"b {number}") for number in range(NUM_EXAMPLES)
    ]
    assert report["sizes"]["de"] == {
        "sentences_before": 17, "words_before": 34, "sentences_after": 2, "words_after": 4,
    }  # fmt: skip


def test_words_of_languages_without_spaces_are_characters() -> None:
    assert num_words("a bc d", "en") == 3
    assert num_words("二 字", "zh_hans") == 2
