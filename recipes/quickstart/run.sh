#!/usr/bin/env bash
# English with German, Spanish and French, both directions, from real text to scores:
# prepare, train 8 experts a layer, prune to 4, fine-tune, translate, score.
# CPU, 2 cores: at most 25 minutes, 15 of them training. Expect the table of RESULTS.md.
# Run again: what is done is skipped, what was interrupted goes on.
# Usage: bash recipes/quickstart/run.sh [--dense] [hydra overrides], e.g. model.num_experts=16 (keys: train.yaml)
#   --dense        also train a dense model of the same FLOPs for as long, and put it into the table
#   MINUTES=60     train longer; an eighth of it on top fine-tunes the pruned model
#   KEEP=2         experts left a layer (default 4)
#   OUT=folder     where to put everything (default runs/quickstart of the repository)
#   DATA=my.yaml   your own text and languages: see docs/data.md
# The last four stand before the command: MINUTES=60 bash recipes/quickstart/run.sh
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/../.."
. recipes/steps.sh
dense=false words=()
for word in "$@"; do
    case $word in
        -h | --help) usage recipes/quickstart/run.sh; exit ;;
        --dense) dense=true ;;
        *) words+=("$word") ;;
    esac
done
. recipes/setup.sh
trap interrupted INT
here=recipes/quickstart minutes=${MINUTES-12.5} keep=${KEEP-4}
out=$(from_folder "$caller" "${OUT:-$PWD/runs/quickstart}") data=$(from_folder "$caller" "${DATA:-$PWD/$here/data.yaml}")
checkpoints=$out/checkpoints full=$checkpoints/checkpoint_best.pt pruned=$checkpoints/pruned.pt
tuned=$checkpoints/pruned/checkpoint_best.pt
systems=(--system "full=$full" --system "pruned=$tuned")
settings=(task.data="'$out/data-bin'" ${words[@]+"${words[@]}"})
model=$(python recipes/check_settings.py --recipe $here --out "$out" --data "$data" \
    --minutes="$minutes" --keep="$keep" -- ${words[@]+"${words[@]}"})

step "1/6 prepare the text"
python -m data_prep.prepare --config "$data" --out "$out"
text=$(text_checksum "$out")
echo "$model" >"$out/settings.json"

step "2/6 train 8 experts a layer for $minutes minutes (log: $checkpoints/train.log)"
train $here "$checkpoints" "$minutes" "$text" "${settings[@]}"
if $dense; then
    step "    train the dense model for $minutes minutes (log: $checkpoints/dense/train.log)"
    train $here "$checkpoints/dense" "$minutes" "$text" "${settings[@]}" model.moe_every=0 model.ffn_dim=512
    systems+=(--system "dense=$checkpoints/dense/checkpoint_best.pt")
fi

tuning=$(awk "BEGIN { print $minutes / 8 }")
step "3/6 prune to $keep experts a layer and fine-tune for $tuning minutes (log: $checkpoints/pruned/train.log)"
whole=$(checksum "$full")
if ! is_made "$pruned" "$whole $keep"; then
    mtmoe prune "$full" --keep "$keep" --output "$pruned" --text "$out"/text/valid.* >&2
    mark_made "$pruned" "$whole $keep"
fi
train $here "$checkpoints/pruned" "$tuning" "$text $(checksum "$pruned")" "${settings[@]}" model.num_experts="$keep" \
    checkpoint.finetune_from_model="'$pruned'" "optimization.lr=[0.0007]" lr_scheduler.warmup_updates=10

step "4/6 draw the use of the experts"
if ! is_made "$out/experts.png" "$whole $text"; then
    mtmoe usage --model "$full" --text "$out/text" --output "$out/experts.png" >&2
    mark_made "$out/experts.png" "$whole $text"
fi

step "5/6 count test strings in the training text"
python -m data_prep.check --out "$out" >&2

step "6/6 translate the test sets and score"
python -m evaluation.evaluate --text "$out/text" --split test --output "$out" "${systems[@]}" --system copy

step "done in $((SECONDS / 60)) min $((SECONDS % 60)) s; scores: $out/scores.md, picture: $out/experts.png"
echo "Translate your own text:" >&2
show_translate "$PWD/.venv/bin/mtmoe" "$full" >&2
