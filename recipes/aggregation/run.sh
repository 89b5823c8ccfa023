#!/usr/bin/env bash
# Is a large model out of two checkpoints of one run a better start than nothing? Validation loss over updates of the
# aggregate, of the same shape from scratch, and of the later checkpoint alone, trained on alike.
# Needs a finished quickstart (or a run folder of the same form).
# CPU, 2 cores: 5 minutes if nothing else runs (RESULTS.md). Expect its table and plot in OUT.
# Run again: what is done is skipped.
# Usage: bash recipes/aggregation/run.sh [hydra overrides of all trainings]
#   RUN=folder     the run (default runs/quickstart of the repository)
#   OUT=folder     where to put everything (default RUN/aggregation)
#   PARENTS="a b"  two or more checkpoints (default: the newest checkpoint_EPOCH_UPDATE.pt of the run and its best)
#   UPDATES=300    of each training
#   EVERY=50       updates from one validation to the next
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/../.."
. recipes/steps.sh
case ${1-} in -h | --help) usage recipes/aggregation/run.sh; exit ;; esac
. recipes/setup.sh
trap interrupted INT
run=$(from_folder "$caller" "${RUN:-$PWD/runs/quickstart}") out=$(from_folder "$caller" "${OUT:-${RUN:-$PWD/runs/quickstart}/aggregation}")
updates=${UPDATES-300} every=${EVERY-50}
for name in updates every; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || { echo "error: ${name^^} must be 1 or more, but is '${!name}'." >&2; exit 2; }
done
if [[ -n ${PARENTS-} ]]; then
    read -ra parents <<<"$PARENTS"
    for n in "${!parents[@]}"; do parents[n]=$(from_folder "$caller" "${parents[n]}"); done
else
    earlier=$({ find "$run/checkpoints" -maxdepth 1 -name 'checkpoint_[0-9]*_[0-9]*.pt' 2>/dev/null || true; } | sort -V | tail -n 1)
    parents=("$earlier" "$run/checkpoints/checkpoint_best.pt")
    [[ -n $earlier && -e ${parents[1]} ]] || { echo "error: RUN must be a finished run, but $run is not. Run the quickstart first." >&2; exit 2; }
fi
joint=$out/joint.pt last=${parents[-1]}
mkdir -p "$out"

step "1/3 aggregate ${parents[*]}"
sources=$(for parent in "${parents[@]}"; do checksum "$parent"; done | tr '\n' ' ')
if ! is_made "$joint" "$sources"; then
    mtmoe aggregate "${parents[@]}" --output "$joint" >&2
    mark_made "$joint" "$sources"
fi

measure() {  # MODEL LOG: the validation loss before any update
    ! is_made "$2" "$(checksum "$1")" || return 0
    fairseq-validate "$run/data-bin" --user-dir "$PWD/mtmoe" --path "$1" --valid-subset valid --max-tokens 6000 \
        --num-workers 0 --log-format simple >"$2" 2>&1 || { tail -n 3 "$2" >&2; echo "error: fairseq-validate failed. See $2." >&2; return 1; }
    mark_made "$2" "$(checksum "$1")"
}

learn() {  # NAME SHAPE_OF [overrides]: UPDATES updates with the shape of a checkpoint
    local folder=$out/$1 log=$out/$1.log made shape
    made="$(checksum "$2") $updates $every ${*:3}"
    ! is_made "$folder/checkpoint_last.pt" "$made" || return 0
    rm -rf "$folder"
    shape=$(python -m evaluation.pruning --overrides "$2")
    # shellcheck disable=SC2086
    fairseq-hydra-train --config-dir "$PWD/recipes/quickstart" --config-name train checkpoint.save_dir="'$folder'" \
        task.data="'$run/data-bin'" optimization.stop_time_hours=100 optimization.max_update="$updates" \
        lr_scheduler._name=inverse_sqrt ++dataset.validate_interval_updates="$every" ++dataset.max_tokens_valid=6000 \
        checkpoint.save_interval_updates=0 ++checkpoint.no_save_optimizer_state=true $shape "${@:3}" >"$log" 2>&1 \
        || { tail -n 3 "$log" >&2; echo "error: training failed. See $log." >&2; return 1; }
    mark_made "$folder/checkpoint_last.pt" "$made"
}

step "2/3 train all three for $updates updates"
on=("optimization.lr=[0.0007]" lr_scheduler.warmup_updates=10)
measure "$joint" "$out/joint_start.log"
measure "$last" "$out/parent_start.log"
learn joint "$joint" "${on[@]}" checkpoint.finetune_from_model="'$joint'" "$@"
learn parent "$last" "${on[@]}" checkpoint.finetune_from_model="'$last'" "$@"
learn scratch "$joint" lr_scheduler.warmup_updates=$((updates < 600 ? updates / 2 : 300)) "$@"

step "3/3 compare"
python -m evaluation.validation_curves --output "$out" --run "joint=$out/joint_start.log+$out/joint.log" \
    --run "parent=$out/parent_start.log+$out/parent.log" --run "scratch=$out/scratch.log"
step "done in $((SECONDS / 60)) min $((SECONDS % 60)) s; table: $out/curves.md, plot: $out/curves.png"
