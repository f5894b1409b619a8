/**
 * The script that ends, or only looks for, what belongs to some execs on a Linux host. Plain sh and /proc, no ps.
 *
 * It runs on the host from start to end, so a link cut in the middle does not stop the kill. What belongs to the exec:
 *  - every process of the session that sshd made for it. A session id is not given out again while one process of the
 *    session lives; only when the leader itself is there with another start time has the number been reused;
 *  - what carries EXEC_ID=<id> in its environment (a child that left the session with setsid): found as a whole word,
 *    then as a whole entry;
 *  - descendants of those, as parentage stood before the first signal.
 * Each process is named by pid and start time, read again before every signal, so that no reused pid is hit. What may
 * not be signalled is tried with `sudo -n`. Printed at the end, a line per exec: `survivors <exec id>` and the pids left; or
 * `unknown`.
 */
import { KILL_GRACE_MS } from '../limits.ts';

/** Arguments: kill|look, then one target per exec: `<exec id>:<session id or 0>:<start time of its leader or 0>`. */
export const KILL_SCRIPT = `
mode=$1; shift
if [ ! -r /proc/self/stat ]; then
  for target; do
    rest=\${target#*:}; sid=\${rest%%:*}
    [ "$mode" = kill ] && [ "$sid" != 0 ] || continue
    kill -TERM -- "-$sid" 2>/dev/null; sleep ${KILL_GRACE_MS / 1000}; kill -KILL -- "-$sid" 2>/dev/null
  done
  echo unknown; exit
fi

# fields LINE: reads a line of /proc/PID/stat into pid state ppid psid rest; fails when it is not whole (2), or a
# zombie's (1). The name in it may hold any 15 characters, so fields are counted from its last bracket, and what is short
# is a piece of a line that the name broke.
fields() {
  rest=\${1#*) }
  while :; do case $rest in *") "*) rest=\${rest#*) };; *) break;; esac; done
  [ \${#rest} -ge 60 ] || return 2
  pid=\${1%% *}
  state=\${rest%% *}; rest=\${rest#* }
  ppid=\${rest%% *}; rest=\${rest#* * }
  psid=\${rest%% *}
  case $state in Z|X|x) return 1;; esac
}

# started PID: sets pstart; fails when the process is gone. read takes one byte a call: for few processes only.
started() {
  line=
  { while IFS= read -r part || [ -n "$part" ]; do line="$line $part"; done <"/proc/$1/stat"; } 2>/dev/null
  [ -n "$line" ] && fields "\${line# }" || return 1
  set -f; set -- $rest; set +f
  shift 16; pstart=$1
}

# mine TARGET…: sets found to the pids of everything that belongs to these execs now, first reading table and marked.
mine() {
  owns=" " found=" "
  for target; do
    id=\${target%%:*}; rest=\${target#*:}; sid=\${rest%%:*} start=\${rest#*:}
    case $sid:$start in
      0:*) ;;
      *:0) owns="$owns$sid ";;
      *) if started "$sid" && [ "$pstart" != "$start" ]; then :; else owns="$owns$sid "; fi;;
    esac
    set -- "$@" -e "EXEC_ID=$id"
    shift
  done
  for file in $(grep -lswF "$@" /proc/[0-9]*/environ 2>/dev/null); do
    { tr '\\0' '\\n' <"$file" | grep -qxF "$@"; } 2>/dev/null || continue
    file=\${file#/proc/}; found="$found\${file%%/*} "
  done
  all= line=
  table=$(cat /proc/[0-9]*/stat 2>/dev/null)
  IFS='
'
  set -f; set -- $table; set +f
  unset IFS
  for part; do
    line="$line$part"
    fields "$line"
    case $? in 2) line="$line "; continue;; 1) line=; continue;; esac
    line=
    all="$all $pid:$ppid"
    case $owns in *" $psid "*) found="$found$pid ";; esac
  done
  more=1
  while [ $more = 1 ]; do
    more=0
    for entry in $all; do
      case $found in *" \${entry#*:} "*) ;; *) continue;; esac
      case $found in *" \${entry%%:*} "*) ;; *) found="$found\${entry%%:*} " more=1;; esac
    done
  done
}

# signal NAME: to everything noted that is still the process it was; keeps in noted only what is still there.
signal() {
  kept=
  for entry in $noted; do
    one=\${entry%%:*}
    started "$one" && [ "$pstart" = "\${entry#*:}" ] || continue
    kept="$kept $entry"
    [ "$1" = 0 ] && continue
    kill "-$1" "$one" 2>/dev/null || sudo -n kill "-$1" "$one" 2>/dev/null
  done
  noted=$kept
}

# look TARGET…: adds to noted what belongs to them and is new, with its start time.
look() {
  mine "$@"
  for one in $found; do
    case $noted in *" $one:"*) continue;; esac
    [ "$one" != $$ ] && started "$one" && noted="$noted $one:$pstart"
  done
}

pause() { sleep "$1" 2>/dev/null || sleep 1; }

noted=
look "$@"
if [ "$mode" = kill ] && [ -n "$noted" ]; then
  signal TERM; signal CONT
  for wait in 0.02 0.03 0.05 0.1 0.2 0.2 0.2 0.2 0.25 0.25 0.25 0.25; do
    pause $wait
    signal 0
    [ -z "$noted" ] || continue
    look "$@"
    [ -n "$noted" ] || break
    signal TERM; signal CONT
  done
  tries=0
  while [ -n "$noted" ] && [ $tries -lt 20 ]; do
    tries=$((tries + 1))
    look "$@"
    signal KILL
    pause 0.05
    signal 0
    [ -n "$noted" ] || look "$@"
  done
fi
signal 0
left=$noted
for target; do
  noted=
  [ -z "$left" ] || look "$target"
  echo survivors "\${target%%:*}" $(for entry in $noted; do echo "\${entry%%:*}"; done)
done
`;

/** Pids left of one exec, or null when the host could not look. `output`: all that the script printed. */
export function readSurvivors(output: string, execId: string): number[] | null {
  const line = output.split('\n').find((text) => text.startsWith(`survivors ${execId}`));
  if (line === undefined || !/^survivors \S+( \d+)*$/.test(line)) return null;
  return line.split(' ').slice(2).map(Number);
}
