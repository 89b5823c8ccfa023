#!/usr/bin/env bash
# English with 60 languages and regional variants, from the catalogues of ten packages and Debian's package descriptions.
# `prepare`: text, vocabulary, data-bin and report.md; its time on the whole text has not been measured.
# Usage: bash recipes/catalog50/run.sh prepare
#   OUT=folder     where to put everything (default runs/catalog50 of the repository)
#   DATA=my.yaml   your own text and languages: see docs/data.md
# Both stand before the command: OUT=/tmp/text bash recipes/catalog50/run.sh prepare
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/../.."
. recipes/steps.sh
case ${1:-} in
    -h | --help) usage recipes/catalog50/run.sh; exit ;;
    prepare) [[ $# == 1 ]] || { echo "error: prepare must stand alone, but has arguments: ${*:2}. Leave them out." >&2; exit 2; } ;;
    *) echo "error: the step must be prepare, but is '${1:-}'. See --help." >&2; exit 2 ;;
esac
. recipes/setup.sh
trap interrupted INT
here=recipes/catalog50
out=$(from_folder "$caller" "${OUT:-$PWD/runs/catalog50}") data=$(from_folder "$caller" "${DATA:-$PWD/$here/data.yaml}")

step "1/2 prepare the text"
python -m data_prep.prepare --config "$data" --out "$out"

step "2/2 count test strings in the training text"
python -m data_prep.check --out "$out" >"$out/overlaps.jsonl" || { echo "error: there are some; see $out/overlaps.jsonl." >&2; exit 1; }

sed -n '/^## By language/,/^## Cleaning/{/^## Cleaning/d;p}' "$out/report.md"
step "done in $((SECONDS / 60)) min $((SECONDS % 60)) s; all tables: $out/report.md, examples of what was dropped: $out/report"
