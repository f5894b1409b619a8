/**
 * What runs in a container around the program, and what it says on the program's own streams.
 *
 * The engine tells of an exec one number, the same for `exit 137` and a kill, and closes the streams when the process that
 * it started has ended, whoever still writes to them. So it starts WRAPPER, which starts the program, says how it ended,
 * and stays until nobody holds the streams any more, for about four seconds at most. It says that in lines that carry a
 * mark of 128 random bits:
 *  - on stdout `<mark> here <pid> <start time>`, only where its own process session has to serve for the program's;
 *  - on stderr `<mark> end <status>`: 0 to 255 an exit code, 256 + n a signal, 512 + n one with a core file;
 *  - on both `<mark> eof`: nothing more comes on this stream. Each stream keeps its order, the two between them do not.
 *
 * Decisions:
 * - Only a parent learns exit code and signal apart, and no shell tells: awk's system() does. Where it does not (busybox)
 *   or is missing, 128 + n counts as the signal n.
 * - The program gets a session of its own by setsid(1): an own group, so that a script's `kill 0` does not hit the wrapper.
 *   Without it they share the one that the engine made for the exec; the wrapper then outlives a TERM by a trap, which,
 *   unlike an ignored signal, the program does not inherit.
 * - What the program did not read of its stdin is read here: podman takes a closed stdin for a broken exec and drops output.
 */
import { constants } from 'node:os';
import { READ_PREAMBLE } from './bootstrap.ts';
import type { Ended, OwnSession } from './channel.ts';
import { quote } from './shell-quote.ts';

/** For `/bin/sh -c`; its argument is the mark. */
export const WRAPPER = `
mark=$1 awk= setsid=
for dir in /usr/bin /bin; do
  [ -x $dir/awk ] && awk=$dir/awk
  [ -x $dir/setsid ] && setsid=$dir/setsid
done
if [ -z "$setsid" ]; then
  trap : TERM
  awk=
  { IFS= read -r stat </proc/$$/stat; } 2>/dev/null
  set -f; start=$(set -- \${stat##*) }; shift 19; echo "$1"); set +f
  echo "$mark here $$ $start"
fi
[ -n "$awk" ] && $awk 'BEGIN { exit system("kill -KILL $$") != 265 }' 2>/dev/null || awk=
if [ -n "$awk" ]; then
  $awk -v mark=$mark -v setsid=$setsid 'BEGIN {
    status = system("exec " setsid " /bin/sh -c ${inAwk(READ_PREAMBLE)}")
    printf "%s end %d\\n", mark, status | "cat >&2"
  }'
else
  $setsid /bin/sh -c ${quote(READ_PREAMBLE)}
  status=$?
  [ $status -gt 128 ] && [ $status -le 192 ] && status=$((status + 128))
  echo "$mark end $status" >&2
fi
cat >/dev/null

# held: somebody beside this shell has the pipe of its stdout or stderr open.
out=$(readlink /proc/$$/fd/1) err=$(readlink /proc/$$/fd/2)
held() {
  [ -n "$out" ] && [ "$(exec 2>/dev/null; ls -l /proc/[0-9]*/fd | grep -cF -e "> $out" -e "> $err")" -gt 2 ]
}
for pause in 0.01 0.02 0.05 0.1 0.1 0.1 0.1 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2; do
  held || { echo "$mark eof" >&2; echo "$mark eof"; exit; }
  sleep $pause 2>/dev/null || sleep 1
done
`;

/** A text in single quotes inside an awk string inside single quotes of sh. */
function inAwk(text: string): string {
  return `\\047${text.replaceAll('"', '\\"')}\\047`;
}

export interface Told {
  /** The program's own bytes. */
  output: Buffer[];
  wrapper: OwnSession | null;
  end: Ended | null;
  eof: boolean;
}

/** Takes the wrapper's lines out of one stream. Whatever could be the beginning of one waits for the next bytes. */
export interface MarkReader {
  push(bytes: Buffer): Told;
  /** What was waiting, when the stream has ended. */
  rest(): Buffer;
}

/** The longest line has the mark, a word, a pid and a start time. */
const LINE_MAX_BYTES = 96;

export function createMarkReader(mark: string): MarkReader {
  const sought = Buffer.from(mark);
  let held = Buffer.alloc(0);

  return {
    push(bytes) {
      const told: Told = { output: [], wrapper: null, end: null, eof: false };
      let rest = held.length === 0 ? bytes : Buffer.concat([held, bytes]);
      held = Buffer.alloc(0);
      for (;;) {
        const at = rest.indexOf(sought);
        const lineEnd = at === -1 ? -1 : rest.indexOf(0x0a, at);
        if (lineEnd === -1) {
          const keep = at === -1 ? beginningAtEnd(rest, sought) : rest.length - at;
          const kept = keep > LINE_MAX_BYTES ? 0 : keep;
          if (rest.length > kept) told.output.push(rest.subarray(0, rest.length - kept));
          held = Buffer.from(rest.subarray(rest.length - kept));
          return told;
        }
        if (at > 0) told.output.push(rest.subarray(0, at));
        const word = rest.toString('latin1', at + sought.length + 1, lineEnd);
        if (word === 'eof') told.eof = true;
        told.wrapper ??= parseHere(word);
        told.end ??= parseEnd(word);
        rest = rest.subarray(lineEnd + 1);
        if (rest.length === 0) return told;
      }
    },
    rest: () => held,
  };
}

/** How many of the last bytes could be the first ones of `sought`. */
function beginningAtEnd(bytes: Buffer, sought: Buffer): number {
  for (let count = Math.min(bytes.length, sought.length - 1); count > 0; count--) {
    if (bytes.subarray(bytes.length - count).equals(sought.subarray(0, count))) return count;
  }
  return 0;
}

function parseHere(word: string): OwnSession | null {
  const [, pid, startTicks] = /^here (\d+) (\d+)$/.exec(word) ?? [];
  return pid === undefined || startTicks === undefined ? null : { sid: Number(pid), startTicks };
}

function parseEnd(word: string): Ended | null {
  const status = /^end (\d{1,3})$/.exec(word)?.[1];
  return status === undefined ? null : endOfStatus(Number(status));
}

/** The first name of a number is the usual one; ABRT before IOT. */
const SIGNALS = new Map(
  Object.entries(constants.signals)
    .reverse()
    .map(([name, number]) => [number, name.slice(3)]),
);

function endOfStatus(status: number): Ended {
  if (status < 256) return { kind: 'exited', code: status };
  return { kind: 'signaled', signal: SIGNALS.get(status % 256) ?? String(status % 256) };
}

/** An exit code of the engine, which folds signals into it. */
export function endOfExitCode(code: number): Ended {
  return endOfStatus(code > 128 && code < 128 + 65 ? code + 128 : code);
}
