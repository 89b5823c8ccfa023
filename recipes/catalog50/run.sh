#!/usr/bin/env bash
# English with 60 languages and regional variants, both directions, denoising and title generation in one model of 16 experts
# a layer: text from the catalogues of ten packages and Debian's package descriptions; train; score some directions and tasks.
# CPU, 2 cores: `prepare` below 15 minutes, then 25 minutes of training, and 5 to score. Expect the tables of RESULTS.md.
# Run again: what is done is skipped, what was interrupted goes on.
# Usage: bash recipes/catalog50/run.sh [prepare] [hydra overrides], e.g. model.num_experts=32 (keys: train.yaml)
#   prepare        only the text, vocabulary, data-bin and report.md
#   MINUTES=60     train longer
#   DIRECTIONS=en-it,it-en  score these
#   STREAMS="title:en-it denoising:it"  and these (docs/multitask.md); empty: none
#   OUT=folder     where to put everything (default runs/catalog50 of the repository)
#   DATA=my.yaml   your own text and languages: see docs/data.md
# The last five stand before the command: MINUTES=60 bash recipes/catalog50/run.sh
set -euo pipefail
caller=$PWD
cd "$(dirname "$0")/../.."
. recipes/steps.sh
only_text=false words=()
for word in "$@"; do
    case $word in
        -h | --help) usage recipes/catalog50/run.sh; exit ;;
        prepare) only_text=true ;;
        *) words+=("$word") ;;
    esac
done
. recipes/setup.sh
trap interrupted INT
here=recipes/catalog50 minutes=${MINUTES-25}
directions=${DIRECTIONS-en-it,it-en,en-fr,fr-en,en-ru,ru-en,en-tr,tr-en} streams=${STREAMS-title:it-it title:en-it denoising:it}
out=$(from_folder "$caller" "${OUT:-$PWD/runs/catalog50}") data=$(from_folder "$caller" "${DATA:-$PWD/$here/data.yaml}")
checkpoints=$out/checkpoints model=$out/checkpoints/checkpoint_best.pt
shape=$(python recipes/check_settings.py --recipe $here --out "$out" --data "$data" \
    --minutes="$minutes" -- ${words[@]+"${words[@]}"})

step "1/5 prepare the text"
python -m data_prep.prepare --config "$data" --out "$out"
text=$(text_checksum "$out")

step "2/5 count test strings in the training text"
python -m data_prep.check --out "$out" >"$out/overlaps.jsonl" || { echo "error: there are some; see $out/overlaps.jsonl." >&2; exit 1; }
if $only_text; then
    sed -n '/^## By language/,/^## Cleaning/{/^## Cleaning/d;p}' "$out/report.md"
    step "done in $((SECONDS / 60)) min $((SECONDS % 60)) s; all tables: $out/report.md, examples of what was dropped: $out/report"
    exit
fi
echo "$shape" >"$out/settings.json"
settings=(task.data="'$out/data-bin'")
if [[ ! -d $out/data-bin/titles ]]; then
    echo "there are no titled texts (Debian's descriptions bring them): title generation is left out." >&2
    settings+=("task.task_mix='translation=8,denoising=1'" "dataset.valid_subset='valid,valid_denoising:it'")
    streams=$(printf '%s\n' $streams | { grep -v "^title:" || true; } | xargs)
fi
settings+=(${words[@]+"${words[@]}"})

step "3/5 train for $minutes minutes (log: $checkpoints/train.log)"
train $here "$checkpoints" "$minutes" "$text" "${settings[@]}"

step "4/5 translate test sets and score"
python -m evaluation.evaluate --text "$out/text" --split test --directions "$directions" --output "$out" \
    --system "model=$model" --system copy

step "5/5 do the other tasks and score"
mkdir -p "$out/tasks"
for stream in $streams; do
    file=$out/tasks/$stream
    is_made "$file" "$(checksum "$model") $text" && continue
    fairseq-generate "$out/data-bin" --user-dir mtmoe --path "$model" --gen-subset "test_$stream" --beam 4 \
        --max-len-a 2 --max-len-b 20 --max-tokens 4000 --remove-bpe sentencepiece >"$file.part" 2>"$out/tasks/log" \
        || { tail -n 3 "$out/tasks/log" >&2; echo "error: $stream failed. See $out/tasks/log." >&2; exit 1; }
    mv "$file.part" "$file"
    mark_made "$file" "$(checksum "$model") $text"
done
[[ -z $streams ]] || (cd "$out/tasks" && python -m evaluation.generated $streams) | tee "$out/tasks.md"

step "done in $((SECONDS / 60)) min $((SECONDS % 60)) s; scores: $out/scores.md, $out/tasks.md"
echo "Translate your own text:" >&2
show_translate "$PWD/.venv/bin/mtmoe" "$model" >&2
