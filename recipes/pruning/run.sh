#!/usr/bin/env bash
# How good is a pruned model? chrF++ over the share of experts kept, by criterion, before and after a short fine-tuning,
# each against the full model by paired bootstrap. Needs a finished quickstart (or a run folder of the same form).
# CPU, 2 cores: 13 minutes if nothing else runs (RESULTS.md). Expect its table and plot in OUT.
# Run again: what is done is skipped.
# Usage: bash recipes/pruning/run.sh [hydra overrides of the fine-tuning]
#   RUN=folder     the run (default runs/quickstart of the repository)
#   OUT=folder     where to put everything (default RUN/pruning)
#   KEEP="6 4 2 1" experts kept a layer; fewer numbers or criteria: less time
#   CRITERIA="importance use random language"   language: by the use of the pair PAIR only, tested on it
#   PAIR=en-de     the pair of `language`
#   UPDATES=100    of fine-tuning, on all directions; 0: none
#   SENTENCES=100  of each pair's test set
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/../.."
. recipes/steps.sh
case ${1-} in -h | --help) usage recipes/pruning/run.sh; exit ;; esac
. recipes/setup.sh
trap interrupted INT
run=$(from_folder "$caller" "${RUN:-$PWD/runs/quickstart}") out=$(from_folder "$caller" "${OUT:-${RUN:-$PWD/runs/quickstart}/pruning}")
keep=${KEEP-6 4 2 1} criteria=${CRITERIA-importance use random language} pair=${PAIR-en-de}
updates=${UPDATES-100} sentences=${SENTENCES-100} full=$run/checkpoints/checkpoint_best.pt
[[ -e $full ]] || { echo "error: RUN must be a finished run, but $full is not there. Run the quickstart first." >&2; exit 2; }
[[ $updates =~ ^[0-9]+$ ]] || { echo "error: UPDATES must be a whole number, but is '$updates'." >&2; exit 2; }
[[ $sentences =~ ^[1-9][0-9]*$ ]] || { echo "error: SENTENCES must be 1 or more, but is '$sentences'." >&2; exit 2; }
mkdir -p "$out"
whole=$(checksum "$full")

step "1/4 count what each expert does on the validation text"
if ! is_made "$out/stats.json" "$whole"; then
    mtmoe expert-stats "$full" --text "$run"/text/valid.* --decoding reference --output "$out/stats.json" >&2
    mark_made "$out/stats.json" "$whole"
fi

tune() {  # MODEL FOLDER [overrides]: UPDATES updates from the checkpoint MODEL, with its own shape
    local shape log=$2.log sources
    sources="$(checksum "$1") $updates ${*:3}"
    ! is_made "$2/checkpoint_last.pt" "$sources" || return 0
    rm -rf "$2"
    shape=$(python -m evaluation.pruning --overrides "$1")
    # shellcheck disable=SC2086
    fairseq-hydra-train --config-dir "$PWD/recipes/quickstart" --config-name train checkpoint.save_dir="'$2'" \
        task.data="'$run/data-bin'" checkpoint.finetune_from_model="'$1'" optimization.stop_time_hours=100 \
        optimization.max_update="$updates" "optimization.lr=[0.0007]" lr_scheduler._name=inverse_sqrt \
        lr_scheduler.warmup_updates=10 ++dataset.disable_validation=true ++checkpoint.no_save_optimizer_state=true \
        $shape "${@:3}" >"$log" 2>&1 \
        || { tail -n 3 "$log" >&2; echo "error: fine-tuning failed. See $log." >&2; return 1; }
    mark_made "$2/checkpoint_last.pt" "$sources"
}

step "2/4 prune and fine-tune"
models=(--model "full=$full")
if ((updates > 0)); then  # what the updates do to a model that lost nothing
    tune "$full" "$out/full" "$@"
    models+=(--model "full_tuned=$out/full/checkpoint_last.pt")
fi
for criterion in $criteria; do
    for number in $keep; do
        name=${criterion}_$number pruned=$out/${criterion}_$number.pt
        options=(--criterion "$criterion")
        [[ $criterion != language ]] || options=(--directions "$pair,${pair#*-}-${pair%-*}")
        if ! is_made "$pruned" "$whole ${options[*]}"; then
            mtmoe prune "$full" --keep "$number" --stats "$out/stats.json" "${options[@]}" --output "$pruned" >&2
            mark_made "$pruned" "$whole ${options[*]}"
        fi
        models+=(--model "$name=$pruned")
        if ((updates > 0)); then
            tune "$pruned" "$out/$name" "$@"
            models+=(--model "${name}_tuned=$out/$name/checkpoint_last.pt")
        fi
    done
done

step "3/4 translate the test set, compare with the full model"
python -m evaluation.pruning --text "$run/text" --pair "$pair" --limit "$sentences" --output "$out" "${models[@]}"

step "4/4 done in $((SECONDS / 60)) min $((SECONDS % 60)) s; table: $out/pruning.md, plot: $out/pruning.png"
