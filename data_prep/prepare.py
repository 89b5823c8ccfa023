"""All steps: from a YAML file of settings to text, vocabulary and binarised data."""

from __future__ import annotations

import sys

from data_prep.binarise import binarise
from data_prep.clean import clean
from data_prep.command import Run, run_main
from data_prep.corpora import check_named
from data_prep.extract import extract
from data_prep.fetch import fetch
from data_prep.report import report
from data_prep.split import split
from data_prep.vocabulary import vocabulary


def prepare(run: Run) -> None:
    """Run every step that is not done, or whose input or settings have changed."""
    check_named(run.config)
    for step in (fetch, extract, clean, split, vocabulary, binarise, report):
        step(run)


if __name__ == "__main__":
    sys.exit(run_main("prepare", "Run all steps; those that are done are skipped.", prepare))
