# Functions of recipes; sourced after setup.sh.

# Memory that is freed stays with the process: fresh pages cost a tenth of an update on a CPU.
export MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_MAX_=0

step() { echo "== $*" >&2; }

newer() {  # FILE REFERENCE: FILE is there and not older
    [[ -e $1 && ! $1 -ot $2 ]]
}

absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }

drop_damaged() {  # FOLDER: fairseq copies checkpoint_last.pt in place; a kill meanwhile leaves half a file
    [[ -e $1/checkpoint_last.pt ]] || return 0
    python - "$1/checkpoint_last.pt" <<'PYTHON'
import os, shutil, sys
from mtmoe.checkpoint.fairseq_file import load_checkpoint
from mtmoe.errors import CheckpointError

try:
    load_checkpoint(sys.argv[1])
except CheckpointError as error:
    sys.stderr.write(f"warning: {error} It is set aside as {sys.argv[1]}.damaged.\n")
    os.replace(sys.argv[1], f"{sys.argv[1]}.damaged")
    best = sys.argv[1].replace("_last", "_best")
    if os.path.exists(best):
        shutil.copyfile(best, sys.argv[1] + ".part")  # whole: fairseq renames it into place
        os.replace(sys.argv[1] + ".part", sys.argv[1])
PYTHON
}

train() {  # RECIPE FOLDER MINUTES [overrides]: fairseq-hydra-train with RECIPE/train.yaml, resumed if interrupted
    local recipe=$1 folder=$2 minutes=$3 log=$2/train.log
    shift 3
    local settings="$minutes $*"
    if [[ -e $folder/trained && $(<"$folder/trained") == "$settings" ]]; then return; fi
    mkdir -p "$folder"
    drop_damaged "$folder"
    fairseq-hydra-train --config-dir "$(absolute "$recipe")" --config-name train \
        checkpoint.save_dir="$(absolute "$folder")" \
        optimization.stop_time_hours="$(awk "BEGIN { print $minutes / 60 }")" "$@" 2>&1 \
        | tee -a "$log" | { grep --line-buffered -oE 'epoch [0-9]+: .* ppl=[0-9.]+|valid on .* ppl [0-9.]+|^error: .*|^Could not override.*|^Key .* is not.*' || true; } >&2 \
        || { tail -n 3 "$log" >&2; echo "error: training failed. See $log." >&2; return 1; }
    echo "$settings" >"$folder/trained"
}
