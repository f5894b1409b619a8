#!/usr/bin/env bash
# The whole way against a real AWS account, which no test of this repository touches. Opt-in and read-mostly: it logs in
# to one instance and runs `uname`, `cat`, `sleep` there. Needs `npm ci` before, credentials as in iam-policy.json, and
#   SALLYPORT_SMOKE=1 SMOKE_INSTANCE_ID=i-… AWS_REGION=… [SMOKE_OS_USER=ec2-user] [SALLYPORT_HOST_KEYS=first-use] infra/smoke-aws.sh
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${SALLYPORT_SMOKE:-}" = 1 ] || { echo 'refused: this reaches a real AWS account; set SALLYPORT_SMOKE=1 to mean it' >&2; exit 2; }
: "${SMOKE_INSTANCE_ID:?set it to the id of a running instance}" "${AWS_REGION:?set it to the region of that instance}"

folder=$(mktemp -d)
failures=0
gateway=
stop() {
  if [ -n "$gateway" ] && kill "$gateway" 2>/dev/null; then wait "$gateway" || true; fi
  rm -rf "$folder"
}
trap stop EXIT

sallyport() { node dist/main.js "$@"; }
now_ms() { date +%s%3N; }
say() { printf '%-44s %s\n' "$1" "$2"; }
finish() {
  [ "$failures" != 0 ] || exit 0
  printf '\n%s failed; the gateway says:\n' "$failures"
  tail -n 40 "$folder/serve.log"
  exit 1
}
fail() { say "$1" "FAILED: $2"; failures=$((failures + 1)); }

# timed NAME WANTED_STATUS ARGS…: one exec; its stdout is left in $folder/out, its time in $took_ms.
timed() {
  local name=$1 wanted=$2 begun status=0
  shift 2
  begun=$(now_ms)
  sallyport exec "$@" >"$folder/out" 2>"$folder/err" || status=$?
  took_ms=$(($(now_ms) - begun))
  if [ "$status" = "$wanted" ]; then say "$name" "$took_ms ms"; else fail "$name" "exit code $status, not $wanted: $(cat "$folder/err")"; fi
}

admin=$(node -p 'crypto.randomBytes(32).toString("base64url")')
env -u DATABASE_URL -u SALLYPORT_SMOKE SALLYPORT_HOST=127.0.0.1 SALLYPORT_PORT=0 SALLYPORT_DATA_DIR="$folder/data" SALLYPORT_ADMIN_TOKEN="$admin" \
  node dist/main.js serve >"$folder/serve.out" 2>"$folder/serve.log" &
gateway=$!
for _ in $(seq 300); do
  SALLYPORT_URL=$(sed -n 's/.* listening on //p' "$folder/serve.out")
  [ -z "$SALLYPORT_URL" ] || break
  kill -0 "$gateway" 2>/dev/null || { echo 'the gateway did not start:' >&2; cat "$folder/serve.log" >&2; exit 1; }
  sleep 0.1
done
export SALLYPORT_URL SALLYPORT_TOKEN=$admin

sallyport org set smoke --name 'Smoke test' >/dev/null
sallyport workspace set ws-smoke --org smoke --name smoke --driver ec2 --instance-id "$SMOKE_INSTANCE_ID" \
  --region "$AWS_REGION" --os-user "${SMOKE_OS_USER:-ec2-user}" --tier 3 >/dev/null
SALLYPORT_TOKEN=$(sallyport token create smoke --org smoke --scope exec diagnose activity:read workspaces:read --expires-in 1h 2>/dev/null)

# The times include the start of the command line itself, about 0.1 s.
timed 'first exec (cold): uname -a' 0 ws-smoke -- uname -a
[ "$failures" = 0 ] || finish
cat "$folder/out"
for round in 1 2 3 4 5; do timed "warm exec $round: true" 0 ws-smoke -- true; done
timed 'exit code 7 is exit code 7' 7 ws-smoke -- sh -c 'exit 7'

head -c 1000000 /dev/urandom >"$folder/in"
timed '1 MB in and out' 0 ws-smoke -- cat <"$folder/in"
cmp -s "$folder/in" "$folder/out" || fail '1 MB in and out' 'the bytes differ'

timed 'a deadline of 2 s' 124 --timeout 2 ws-smoke -- sh -c 'sleep 86399 & setsid sleep 86398 & sleep 86397'
timed 'a look at what is left of it' 0 ws-smoke -- sh -c "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\000' ' ' | grep -o 'sleep 8639[789] ' || true"
# Brackets, so that the look does not find itself.
[ ! -s "$folder/out" ] || fail 'nothing survives the deadline' "$(tr '\n' ' ' <"$folder/out")"

if [[ $(sallyport --help) =~ $'\n'\ +diagnose ]]; then
  begun=$(now_ms)
  if sallyport diagnose ws-smoke; then say diagnose "$(($(now_ms) - begun)) ms"; else fail diagnose 'see above'; fi
fi

echo
sallyport activity ws-smoke --limit 20 || true
finish
