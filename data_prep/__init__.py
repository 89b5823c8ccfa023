"""Text preparation: `python -m data_prep.STEP --config CONFIG --out OUT`.

Steps, in order: fetch, extract, clean, split, vocabulary, binarise, report; `prepare` runs
all of them, `check` counts test strings that occur in train, `encode` writes text with the
vocabulary of a checkpoint. See docs/data.md.
"""
