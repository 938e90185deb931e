#!/usr/bin/env bash
# try_run.sh: `make run` as a newcomer would, then one request; fails if the answer is not a completion.
set -euo pipefail
cd "$(dirname "$0")/.."
port=${PORT:-18000}
started=$SECONDS
make run PORT="$port" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
ask() { # no curl on a bare machine: bash speaks enough HTTP
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    body='{"messages":[{"role":"user","content":"Hello"}],"max_tokens":8}'
    printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body" >&3
    cat <&3
}
for _ in $(seq 600); do
    kill -0 $server 2>/dev/null || { echo "try_run: make run ended"; exit 1; }
    answer=$(ask 2>/dev/null || true)
    case $answer in *'"chat.completion"'*)
        echo "$answer" | tail -n 1
        echo "try_run: answered $((SECONDS - started)) s after make run"
        exit 0
        ;;
    esac
    sleep 1
done
echo "try_run: no answer"
exit 1
