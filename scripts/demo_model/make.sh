#!/usr/bin/env bash
# make.sh WORK [arguments of train.py]: makes deploy/demo-model and its goldens from nothing: vocabulary, text, training,
# proof, scores, card. Needs the packages of requirements.txt, and build/weir for the card's conversation. What is already
# in WORK is not made again, so a run that was ended goes on. RANKS: processes that train together (2; 1 with --device cuda);
# PROMPTS: held-out prompts per task (500).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "${1:?make.sh WORK}"
work=$(cd "$1" && pwd)
shift
ranks=${RANKS:-2}
case " $* " in *" cuda "*) ranks=1 ;; esac
python=${PYTHON:-python3}
folder=$root/deploy/demo-model
cd "$here"
export OMP_NUM_THREADS=1

[ -f "$work/tokenizer.json" ] || "$python" make_tokenizer.py "$work"
rm -f "$work/meeting"
pids=()
for rank in $(seq 0 $((ranks - 1))); do
    "$python" train.py "$work" --ranks "$ranks" --rank "$rank" "$@" &
    pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT
for pid in "${pids[@]}"; do wait "$pid"; done
trap - EXIT

"$python" export.py "$work" "$folder"
dialogues=$("$python" -c "import sys, torch; print(torch.load(sys.argv[1], map_location='cpu', weights_only=False)['dialogues'])" \
    "$work/checkpoint.pt")
"$python" check_held_out.py "$dialogues" | tee "$work/proof.txt"
"$python" check_tokens.py "$work"
OMP_NUM_THREADS=2 "$python" evaluate.py "$folder" --n "${PROMPTS:-500}" --json "$work/scores.json" | tee "$work/scores.txt"

port=${PORT:-18473}
"$root/build/weir" serve "$folder" --served-model-name weir-demo --port "$port" 2>"$work/weir.log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    grep -q 'weir: ready' "$work/weir.log" && break
    sleep 0.1
done
"$python" converse.py "http://127.0.0.1:$port/v1" >"$work/conversation.md"
kill $server
wait $server || true
trap - EXIT
"$python" card.py "$work" "$folder"
"$python" "$root/scripts/goldens/demo.py"
echo "make.sh: $folder and tests/golden/demo are made; now pytest tests/e2e/test_demo_model.py"
