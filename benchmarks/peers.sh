#!/usr/bin/env bash
# Make .venv-peers and .venv-peers-translate beside .venv: the libraries that mtmoe is measured against, in environments of
# their own (the two benchmarks want different versions of transformers).
# First time: two minutes each, half of it downloads; afterwards, when nothing changed: well under a second.
# Usage: bash benchmarks/peers.sh [moe_layer | translate], from any folder, without a name for both benchmarks; remove a
# folder first to get newer versions.
# Exit code: 1 when the installation fails (the folder's install.log says why), 2 without .venv or for another name.
set -euo pipefail
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "peers: $*" >&2; }
fail() { echo "error: $2" >&2; exit "$1"; }

name_folder() {  # sets venv, list, and what is derived from them, of one benchmark
    case $1 in
        moe_layer) venv=$root/.venv-peers list=$root/benchmarks/peers.txt ;;
        translate) venv=$root/.venv-peers-translate list=$root/benchmarks/peers-translate.txt ;;
        *) fail 2 "the benchmark must be moe_layer or translate, but is '$1'. Leave it out for both." ;;
    esac
    stamp=$venv/installed  # what was installed, and where; written last
    log=$venv/install.log
}

wanted() { echo "$root"; cat "$list"; }

is_current() { [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$(wanted)" ]]; }

make_venv() {
    [[ -x $root/.venv/bin/python ]] || fail 2 "$root/.venv must hold mtmoe's environment, but has no \
Python. Make it first: bash recipes/setup.sh."
    [[ ! -e $venv || -f $venv/install.log ]] || fail 2 "$venv must be an environment that this script \
made, but is not. Move it away."
    rm -rf "$venv"
    mkdir "$venv"
    echo '*' >"$venv/.gitignore"
    : >"$log"
    "$root/.venv/bin/python" -m venv "$venv" >&2 || fail 1 "python -m venv failed in $venv."
}

install() {
    say "installing $(sed -n 's/^\([a-z0-9]\+\).*/\1/p' "$list" | paste -sd ' ') (log: $log)"
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off)
    {
        "${pip[@]}" wheel setuptools &&
        DS_BUILD_OPS=0 DS_ACCELERATOR=cpu "${pip[@]}" -r "$list"
    } >"$log" 2>&1 || fail 1 "the peers cannot be installed: \
$(grep -iE '^ *error' "$log" | tail -n 1 || true) See $log."
}

compile() {  # what deepspeed would compile when first used: a minute or two
    say "compiling deepspeed's CPU collectives"
    (cd "$root" && "$venv/bin/python" -c '
from benchmarks.moe_peers import build_deepspeed
build_deepspeed(dict(threads=1, tokens=8, experts=2, top_k=1, dtype="float32", dim=2, ffn_dim=2))
') >>"$log" 2>&1 || say "deepspeed must compile its CPU collectives, but cannot: its row will be missing. \
Is there a C++ compiler? See $log."
}

make_environment() {
    name_folder "$1"
    is_current && return
    make_venv
    install
    [[ $1 != moe_layer ]] || compile
    wanted >"$stamp"
    say "done: $venv"
}

[[ $# -gt 0 ]] || set -- moe_layer translate
for benchmark; do make_environment "$benchmark"; done
