"""Is one system better than another? Paired bootstrap resampling (Koehn 2004), by sacreBLEU.

`python -m evaluation.compare --baseline FILE --hypotheses FILE --references FILE`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from sacrebleu.significance import PairedTest

from evaluation.metrics import check_language, check_lines, make_metrics
from mtmoe.cli.main import Parser
from mtmoe.errors import ConfigError, run_command
from mtmoe.files import read_lines


def main() -> None:
    """Read the command line and the files, print the comparison as JSON."""
    args = parse_arguments()
    if args.samples < 100:
        raise ConfigError(
            f"--samples must be at least 100, but is {args.samples}. Give 100 or more."
        )
    check_language("--target-lang", args.target_lang)
    report = compare_lines(
        read_lines(args.baseline),
        read_lines(args.hypotheses),
        read_lines(args.references),
        args.target_lang,
        args.samples,
    )
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The options of the command."""
    parser = Parser("python -m evaluation.compare", description=__doc__)
    parser.add_argument("--baseline", required=True, metavar="FILE", help="the system to beat")
    parser.add_argument("--hypotheses", required=True, metavar="FILE", help="the other system")
    parser.add_argument("--references", required=True, metavar="FILE")
    parser.add_argument("--target-lang", default="", metavar="xx", help="chooses BLEU's tokenizer")
    parser.add_argument("--samples", type=int, default=1000, help="resampled test sets")
    return parser.parse_args()


def compare_lines(
    baseline: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    target_lang: str,
    samples: int,
) -> dict[str, dict[str, Any]]:
    """By metric: both scores, their difference, and the chance of one as large without a reason.

    Returns:
        {"bleu": {"baseline", "hypotheses", "difference", "p_value", "signature"}, "chrf": ...}

    Raises:
        DataError: the numbers of lines differ, or there is none.
    """
    check_lines({"baseline": baseline, "hypotheses": hypotheses, "references": references})
    systems = [("baseline", list(baseline)), ("hypotheses", list(hypotheses))]
    metrics = make_metrics(target_lang)
    test = PairedTest(systems, metrics, [list(references)], "bs", n_samples=samples)
    signatures, scores = test()
    names = [name for name in scores if name != "System"]  # such as chrF2++, in the metrics' order
    return {
        metric: _row(scores[name], f"{name}|{signatures[name].format()}")
        for metric, name in zip(metrics, names, strict=True)
    }


def _row(results: Sequence[Any], signature: str) -> dict[str, Any]:
    baseline, other = results
    is_same = other.score == baseline.score  # sacreBLEU calls equal systems significantly different
    return {
        "baseline": round(baseline.score, 2),
        "hypotheses": round(other.score, 2),
        "difference": round(other.score - baseline.score, 2),
        "p_value": 1.0 if is_same else round(other.p_value, 4),
        "signature": signature,
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
