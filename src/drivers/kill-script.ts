/**
 * The script that ends, or only looks for, what belongs to one exec on a Linux host. Plain sh and /proc, no ps.
 *
 * It runs on the host from start to end, so a link cut in the middle does not stop the kill. What belongs to the exec:
 *  - every process of the session that sshd made for it. A session id is not given out again while one process of the
 *    session lives; only when the leader itself is there with another start time has the number been reused;
 *  - what carries EXEC_ID=<id> in its environment (a child that left the session with setsid);
 *  - descendants of those, as parentage stood before the first signal.
 * Each process is named by pid and start time, read again before every signal, so that no reused pid is hit. What may
 * not be signalled is tried with `sudo -n`. Last line printed: `survivors` and the pids left, or `unknown`.
 */
import { KILL_GRACE_MS } from '../limits.ts';

/** Arguments: kill|look, exec id, session id or 0, start time of the leader or 0. */
export const KILL_SCRIPT = `
mode=$1 id=$2 sid=$3 start=$4
if [ ! -r /proc/self/stat ]; then
  if [ "$mode" = kill ] && [ "$sid" != 0 ]; then
    kill -TERM -- "-$sid" 2>/dev/null; sleep ${KILL_GRACE_MS / 1000}; kill -KILL -- "-$sid" 2>/dev/null
  fi
  echo unknown; exit
fi

# stat DIR: sets state ppid psid pstart; fails when the process is gone or a zombie. The name may hold any character.
stat() {
  line=
  { while IFS= read -r part || [ -n "$part" ]; do line="$line $part"; done <"$1/stat"; } 2>/dev/null
  [ -n "$line" ] || return 1
  rest=\${line##*) }
  set -f; set -- $rest; set +f
  state=$1 ppid=$2 psid=$4
  shift 19; pstart=$1
  case $state in Z|X|x) return 1;; esac
}

# find: sets found to the pid:start of everything that belongs to the exec now.
find() {
  own=$sid
  if [ "$sid" != 0 ] && [ "$start" != 0 ] && stat "/proc/$sid" && [ "$pstart" != "$start" ]; then own=0; fi
  marked=" "
  for file in $(grep -lsF "EXEC_ID=$id" /proc/[0-9]*/environ 2>/dev/null); do
    file=\${file#/proc/}; marked="$marked\${file%%/*} "
  done
  all= found= pids=" "
  for dir in /proc/[0-9]*; do
    stat "$dir" || continue
    pid=\${dir#/proc/}
    [ "$pid" = $$ ] && continue
    all="$all $pid:$ppid:$pstart"
    case $marked in *" $pid "*) take=1;; *) take=0;; esac
    [ "$own" != 0 ] && [ "$psid" = "$own" ] && take=1
    [ $take = 1 ] && found="$found $pid:$pstart" pids="$pids$pid "
  done
  more=1
  while [ $more = 1 ]; do
    more=0
    for entry in $all; do
      pid=\${entry%%:*}; rest=\${entry#*:}; ppid=\${rest%%:*}
      case $pids in *" $pid "*) continue;; esac
      case $pids in *" $ppid "*) found="$found $pid:\${rest#*:}" pids="$pids$pid " more=1;; esac
    done
  done
}

# signal NAME: to everything noted that is still the process it was; keeps in noted only what is still there.
signal() {
  kept=
  for entry in $noted; do
    pid=\${entry%%:*}
    stat "/proc/$pid" && [ "$pstart" = "\${entry#*:}" ] || continue
    kept="$kept $entry"
    [ "$1" = 0 ] && continue
    kill "-$1" "$pid" 2>/dev/null || sudo -n kill "-$1" "$pid" 2>/dev/null
  done
  noted=$kept
}

# note: adds to noted what was found and is new; sets fresh to it.
note() {
  fresh=
  for entry in $found; do
    case "$noted " in *" $entry "*) ;; *) fresh="$fresh $entry";; esac
  done
  noted="$noted$fresh"
}

pause() { sleep "$1" 2>/dev/null || sleep 1; }

noted=
find; note
if [ "$mode" = kill ] && [ -n "$noted" ]; then
  signal TERM; signal CONT
  for wait in 0.02 0.03 0.05 0.1 0.2 0.2 0.2 0.2 0.25 0.25 0.25 0.25; do
    pause $wait
    signal 0
    [ -z "$noted" ] || continue
    find; note
    [ -n "$noted" ] || break
    signal TERM; signal CONT
  done
  tries=0
  while find; note; signal 0; [ -n "$noted" ] && [ $tries -lt 20 ]; do
    tries=$((tries + 1))
    signal KILL
    pause 0.05
    signal 0
  done
fi
signal 0
echo survivors $(for entry in $noted; do echo "\${entry%%:*}"; done)
`;

/** Pids left, or null when the host could not look. */
export function readSurvivors(output: string): number[] | null {
  const line = output.trimEnd().split('\n').at(-1) ?? '';
  if (!/^survivors( \d+)*$/.test(line)) return null;
  return line.split(' ').slice(1).map(Number);
}
