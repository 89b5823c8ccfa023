"""Scores of translations: `python -m evaluation.score | evaluate | compare`."""
