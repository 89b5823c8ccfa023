# Functions of recipes.

# Memory that is freed stays with the process: fresh pages cost a tenth of an update on a CPU.
export MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_MAX_=0

step() { echo "== $*" >&2; }

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"; }  # SCRIPT: the comment at its head

interrupted() {
    echo "interrupted. The same command goes on from here; a training from its last checkpoint." >&2
    exit 130
}

from_folder() { case $2 in /*) echo "$2" ;; *) echo "$1/$2" ;; esac }  # FOLDER PATH: PATH as seen from FOLDER

checksum() { python -c 'import sys; from mtmoe.files import sha256; print(sha256(sys.argv[1]))' "$1"; }

text_checksum() {  # OUT: of the binarised text, which manifest.json has file by file
    python - "$1/manifest.json" <<'PYTHON'
import hashlib, json, sys

files = json.load(open(sys.argv[1], encoding="utf-8"))["steps"]["binarise"]["outputs"]
print(hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest())
PYTHON
}

is_made() {  # FILE SOURCES: FILE is there, and was made from SOURCES
    [[ -e $1 && -e $1.made && $(<"$1.made") == "$2" ]]
}

mark_made() { echo "$2" >"$1.made"; }  # FILE SOURCES

set_aside() {  # FOLDER SOURCES: rename FOLDER if its checkpoints were trained from other SOURCES
    compgen -G "$1/checkpoint*.pt" >/dev/null || return 0
    [[ ! -e $1/sources || $(<"$1/sources") != "$2" ]] || return 0
    local number=1
    while [[ -e $1.old-$number ]]; do number=$((number + 1)); done
    mv "$1" "$1.old-$number"
    echo "warning: what $1 was trained from has changed. It is set aside as $1.old-$number." >&2
}

drop_damaged() {  # FOLDER: fairseq copies checkpoint_last.pt in place; a kill meanwhile leaves half a file
    [[ -e $1/checkpoint_last.pt ]] || return 0
    python - "$1/checkpoint_last.pt" <<'PYTHON'
import os, pathlib, shutil, sys
from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.errors import CheckpointError

last = pathlib.Path(sys.argv[1])
try:
    load_checkpoint(last)
except CheckpointError as error:
    what = str(error).removesuffix(" Give another file.")
    sys.stderr.write(f"warning: {what} It is set aside as {last}.damaged.\n")
    os.replace(last, f"{last}.damaged")
    others = [*last.parent.glob("checkpoint_[0-9]*_*.pt"), *last.parent.glob("checkpoint_best.pt")]
    newest = max(others, key=lambda path: path.stat().st_mtime, default=None)
    if newest:  # whole: fairseq renames it into place
        shutil.copyfile(newest, f"{last}.part")
        os.replace(f"{last}.part", last)
PYTHON
}

train() {  # RECIPE FOLDER MINUTES SOURCES [overrides]: fairseq-hydra-train with RECIPE/train.yaml, resumed if interrupted
    local recipe=$1 folder=$2 minutes=$3 sources=$4 log=$2/train.log
    shift 4
    local settings="$minutes $sources $*"
    set_aside "$folder" "$sources"
    if [[ -e $folder/checkpoint_best.pt && -e $folder/trained && $(<"$folder/trained") == "$settings" ]]; then return; fi
    mkdir -p "$folder"
    echo "$sources" >"$folder/sources"
    drop_damaged "$folder"
    fairseq-hydra-train --config-dir "$(from_folder "$PWD" "$recipe")" --config-name train \
        checkpoint.save_dir="'$(from_folder "$PWD" "$folder")'" \
        optimization.stop_time_hours="$(awk "BEGIN { print $minutes / 60 }")" "$@" 2>&1 \
        | tee -a "$log" | { grep --line-buffered -oE 'epoch [0-9]+: .* ppl=[0-9.]+|valid on .* ppl [0-9.]+|^error: .*|^Could not override.*|^Key .* is not.*' || true; } >&2 \
        || { tail -n 3 "$log" >&2; echo "error: training failed. See $log." >&2; return 1; }
    [[ -e $folder/checkpoint_best.pt ]] || { echo "error: training left no checkpoint. See $log." >&2; return 1; }
    echo "$settings" >"$folder/trained"
}

show_translate() {  # MTMOE CHECKPOINT: the command that translates with it, in a direction that it was trained on
    python - "$@" <<'PYTHON'
import shlex, sys
from mtmoe.checkpoint.fairseq_file import load_checkpoint

directions = load_checkpoint(sys.argv[2]).directions
source, target = next((d for d in directions if d.startswith("en-")), directions[0]).split("-")
command = [sys.argv[1], "translate", "--model", sys.argv[2]]
print("  ", shlex.join([*command, "--source-lang", source, "--target-lang", target]), "< your.txt")
PYTHON
}
