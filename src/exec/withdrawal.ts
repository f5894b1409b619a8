/**
 * Ends what runs without a right to: on every replica, within 2 s of the withdrawal.
 *
 * The rights of all that runs here are read again about every second, in one statement per 64 different callers; a notice
 * from the database only makes the next reading come at once, so a lost one costs no more than that second. While the
 * database does not answer nobody knows, and running execs go on to their deadline (contract, section 2).
 */
import type { Directory, Standing } from '../access/access.ts';
import { withdrawnRight } from '../access/withdrawal.ts';
import { RIGHTS_POLL_MS } from '../limits.ts';
import { EndCause } from './cause.ts';
import type { Notice } from './notices.ts';
import { repeat } from './repeat.ts';
import type { RunningExec, RunningExecs } from './running.ts';

export interface Withdrawal {
  heard(notice: Notice): void;
  /** Since the last time at which the rights of all that runs here were known; 0 while nothing runs. */
  rightsAgeMs(): number;
  stop(): Promise<void>;
}

interface Log {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
}

export function startWithdrawal(deps: {
  running: RunningExecs;
  directory: Directory;
  log: Log;
  /** Told once of each exec that is ended: its right was withdrawn at most so long ago, when it was last seen to hold. */
  onEnded?: (withinMs: number) => void;
  pollMs?: number;
}): Withdrawal {
  const { running, directory, log, onEnded = () => undefined, pollMs = RIGHTS_POLL_MS } = deps;

  /** What was read then is known to have held; nothing is read, and nothing unknown, while nothing runs. */
  let knownAtMs = performance.now();
  const ageMs = (): number => performance.now() - knownAtMs;

  const ended = new WeakSet<RunningExec>();

  const endWithoutRight = (execs: readonly RunningExec[], standing: Standing): void => {
    for (const exec of execs) {
      const why = withdrawnRight(standing, exec);
      if (why === null) continue;
      if (!ended.has(exec)) {
        log.info({ exec_id: exec.execId, why }, 'a right was withdrawn: the exec is ended');
        onEnded(ageMs());
      }
      ended.add(exec);
      exec.end(new EndCause('revoked', why));
    }
  };
  const readAgain = async (): Promise<void> => {
    const fromMs = performance.now();
    try {
      await Promise.all(
        byCaller(running.all()).map(async (execs) => {
          const [{ orgId, jti, sub, workspaceId }] = execs;
          endWithoutRight(execs, await directory.standing({ orgId, jti, sub, workspaceId }));
        }),
      );
      knownAtMs = fromMs;
    } catch (error) {
      log.warn({ err: error, execs: running.size }, 'the rights of running execs could not be read');
    }
  };
  const reading = repeat(pollMs, readAgain);
  return {
    heard(notice) {
      if (running.all().some((exec) => concerns(notice, exec))) reading.now();
    },
    rightsAgeMs: () => (running.size === 0 ? 0 : ageMs()),
    stop: () => reading.stop(),
  };
}

/** Execs that need the same answer, together. */
function byCaller(execs: readonly RunningExec[]): [RunningExec, ...RunningExec[]][] {
  const groups = new Map<string, [RunningExec, ...RunningExec[]]>();
  for (const exec of execs) {
    const key = JSON.stringify([exec.orgId, exec.jti, exec.sub, exec.workspaceId]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [exec]);
    else group.push(exec);
  }
  return [...groups.values()];
}

function concerns(notice: Notice, exec: RunningExec): boolean {
  switch (notice.kind) {
    case 'token':
      return exec.jti === notice.id;
    case 'org':
      return exec.orgId === notice.id;
    case 'person':
      return exec.orgId === notice.orgId && exec.sub === notice.sub;
    case 'workspace':
      return exec.workspaceId === notice.id;
    case 'gap':
      return true;
    case 'cancel':
    case 'replica':
    case 'host_keys':
      return false;
    default:
      return notice satisfies never;
  }
}
