#!/usr/bin/env bash
# Run the tests in the project's environment; quick CPU tests unless told otherwise.
# Usage: bash tests/run.sh [pytest arguments], e.g. tests/ops, -k prune, -m slow, -m long, -m gpu
set -euo pipefail
cd "$(dirname "$0")/.."
. recipes/setup.sh
exec python -m pytest -m "not slow and not long and not gpu" "$@"
