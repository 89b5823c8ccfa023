#!/usr/bin/env bash
# Make the Python environment .venv at the root of the repository and put it first on PATH.
# First time: one to three minutes, mostly downloads; afterwards, when nothing changed: under a second.
# Usage: `. recipes/setup.sh` inside a bash script, or `bash recipes/setup.sh`, from any folder.
# MTMOE_PYTHON names the interpreter to use in place of the one that is found.
# Exit code: 2 without a usable Python, 1 when the installation fails.

if [[ ${BASH_SOURCE[0]} != "$0" ]]; then  # sourced: work in a shell of its own, then set PATH here
    bash "${BASH_SOURCE[0]}" || return $?
    PATH="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH"
    export PATH
    return 0
fi

set -euo pipefail
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/mtmoe-installed    # checksum of what is installed: the folder is whole
unfinished=$venv/mtmoe-installing  # the same file while an installation runs
log=$venv/install.log

say() { echo "setup: $*" >&2; }
fail() { echo "error: $2" >&2; exit "$1"; }

runs_supported_version() {  # INTERPRETER: pyenv's shims exist for versions that are not active
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' >/dev/null 2>&1
}

can_make_environments() {  # INTERPRETER: Debian packs venv apart from Python
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

candidates() {
    type -aP python3.11 python3.12 python3 python || true
    ls -d "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[12].*/bin/python 2>/dev/null || true
}

fingerprint() {  # INTERPRETER
    "$1" - "$root" setup.cfg constraints.txt pyproject.toml recipes/setup.sh 2>/dev/null <<'PYTHON'
import hashlib, pathlib, sys
root, *names = sys.argv[1:]
parts = [sys.version, root, *((pathlib.Path(root) / name).read_text("utf-8") for name in names)]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PYTHON
}

is_current() {
    [[ -f $stamp ]] && runs_supported_version "$venv/bin/python" || return 1
    [[ $(<"$stamp") == "$(fingerprint "${MTMOE_PYTHON:-$venv/bin/python}")" ]]
}

find_python() {
    local candidate without_venv=""
    while read -r candidate; do
        runs_supported_version "$candidate" || continue
        can_make_environments "$candidate" && { echo "$candidate"; return; }
        without_venv=$candidate
    done < <(candidates)
    [[ -z $without_venv ]] || fail 2 "Python must have the modules venv and ensurepip, but $without_venv \
lacks them. Install them (on Debian and Ubuntu: apt-get install python3-venv), or name another Python: \
MTMOE_PYTHON=/path/to/python bash recipes/setup.sh."
    fail 2 "Python must be version 3.11 or 3.12, but none of python3.11, python3.12, python3 and python \
is one that runs. Install one, or name it: MTMOE_PYTHON=/path/to/python bash recipes/setup.sh."
}

check_named_python() {
    runs_supported_version "$MTMOE_PYTHON" || fail 2 "MTMOE_PYTHON must name a Python 3.11 or 3.12 that \
runs, but is '$MTMOE_PYTHON'. Give the path of such an interpreter, or leave it unset."
    can_make_environments "$MTMOE_PYTHON" || fail 2 "MTMOE_PYTHON must name a Python with the modules venv \
and ensurepip, but '$MTMOE_PYTHON' lacks them. Install them, or name another interpreter."
}

is_reusable() {  # PYTHON: the folder is at its place, not half-made, and of the same Python
    [[ -e $venv && ! -e $unfinished ]] || return 1
    grep -qF "$venv" "$venv/pyvenv.cfg" 2>/dev/null && "$venv/bin/python" -m pip --version >/dev/null 2>&1 \
        && [[ $(fingerprint "$venv/bin/python") == "$(fingerprint "$1")" ]]
}

make_venv() {  # PYTHON
    [[ ! -e $venv || -e $unfinished || -e $stamp ]] || fail 2 "$venv must be an environment of $1, or \
one that setup made, but is neither. Move it away."
    rm -rf "$venv"
    mkdir "$venv"
    touch "$unfinished"
    say "making $venv with $("$1" --version) ($1)"
    "$1" -m venv "$venv" >&2 || fail 1 "python -m venv failed in $venv. See the lines above."
}

install() {
    say "installing the packages of constraints.txt (log: $log)"
    (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        --progress-bar off -c constraints.txt -e '.[test]') 2>&1 | tee "$log" \
        | { grep -E --line-buffered '^(Collecting|Installing collected)' || true; } | cut -c 1-100 >&2 \
        || fail 1 "installation failed: $(grep -iE '^ *error' "$log" | tail -n 1 || true) See $log."
}

update() {
    local python
    python=${MTMOE_PYTHON:-$(find_python)}
    [[ -z ${MTMOE_PYTHON:-} ]] || check_named_python
    if is_reusable "$python"; then
        [[ ! -e $stamp ]] || mv "$stamp" "$unfinished"
    else
        make_venv "$python"
    fi
    install
    fingerprint "$venv/bin/python" >"$venv/mtmoe-stamp"
    rm -f "$unfinished"
    mv "$venv/mtmoe-stamp" "$stamp"
    say "done: $venv"
}

if ! is_current; then
    if command -v flock >/dev/null; then  # one at a time; the next one finds the work done
        exec 9<"$root/recipes/setup.sh"
        flock -n 9 2>/dev/null || { say "another setup is at work here: waiting for it"; flock 9 || true; }
    fi
    is_current || update
fi
