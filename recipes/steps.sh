# Functions of recipes; sourced after setup.sh.

# Memory that is freed stays with the process: fresh pages cost a tenth of an update on a CPU.
export MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_MAX_=0

step() { echo "== $*" >&2; }

newer() {  # FILE REFERENCE: FILE is there and not older
    [[ -e $1 && ! $1 -ot $2 ]]
}

absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }

train() {  # RECIPE FOLDER MINUTES [overrides]: fairseq-hydra-train with RECIPE/train.yaml, resumed if interrupted
    local recipe=$1 folder=$2 minutes=$3 log=$2/train.log
    shift 3
    local settings="$minutes $*"
    if [[ -e $folder/trained && $(<"$folder/trained") == "$settings" ]]; then return; fi
    mkdir -p "$folder"
    fairseq-hydra-train --config-dir "$(absolute "$recipe")" --config-name train \
        checkpoint.save_dir="$(absolute "$folder")" \
        optimization.stop_time_hours="$(awk "BEGIN { print $minutes / 60 }")" "$@" 2>&1 \
        | tee -a "$log" | { grep --line-buffered -oE 'epoch [0-9]+: .* ppl=[0-9.]+|valid on .* ppl [0-9.]+|^error: .*' || true; } >&2 \
        || { tail -n 3 "$log" >&2; echo "error: training failed. See $log." >&2; return 1; }
    echo "$settings" >"$folder/trained"
}
