/** The execs of this process: what DELETE, drain and the limits ask about. Rows of other replicas are the database's. */
import type { Outcome } from '../outcome.ts';
import type { Target } from '../workspace.ts';
import type { EndCause } from './cause.ts';

export interface RunningExec {
  execId: string;
  orgId: string;
  workspaceId: string;
  /** Id of the token that asked; null for admin and sessions. */
  jti: string | null;
  /** Of the credential that asked; null for admin. */
  sub: string | null;
  /** The host it runs on; absent: whichever the workspace has. */
  target?: Target;
  /** False: it does not log in to the host. */
  logsIn?: boolean;
  end(cause: EndCause): void;
}

type Filter = Partial<Pick<RunningExec, 'orgId' | 'workspaceId' | 'jti' | 'sub'>>;

export interface RunningExecs {
  /** Call the returned function once, when the exec has ended and its row is closed. */
  add(exec: RunningExec): (outcome?: Outcome) => void;
  /** It has ended and only its row is still to be closed: limits count it no more, drain waits for it. */
  giveRoom(execId: string): void;
  /** Null: no such exec here, in this org and workspace. Resolves with how it has ended, which may be its own way. */
  cancel(key: { orgId: string; workspaceId: string; execId: string }, cause: EndCause): Promise<Outcome> | null;
  all(): RunningExec[];
  /** Of those that have not ended, as `count`. */
  readonly size: number;
  count(by: Filter): number;
  /** Resolves when all that run now have ended by themselves. */
  idle(): Promise<void>;
  /** Ends all; resolves when all have ended. */
  endAll(cause: EndCause): Promise<void>;
}

export function createRunningExecs(): RunningExecs {
  const execs = new Map<string, { exec: RunningExec; ended: Promise<Outcome | undefined> }>();
  const over = new Set<string>();
  return {
    add(exec) {
      let markEnded: (outcome?: Outcome) => void = () => {};
      const ended = new Promise<Outcome | undefined>((resolve) => {
        markEnded = resolve;
      });
      execs.set(exec.execId, { exec, ended });
      return (outcome) => {
        if (!execs.delete(exec.execId)) throw new Error('bug: an exec ends once');
        over.delete(exec.execId);
        markEnded(outcome);
      };
    },
    giveRoom(execId) {
      if (execs.has(execId)) over.add(execId);
    },
    cancel({ orgId, workspaceId, execId }, cause) {
      const found = execs.get(execId);
      if (found === undefined || found.exec.orgId !== orgId || found.exec.workspaceId !== workspaceId) return null;
      found.exec.end(cause);
      return found.ended.then((outcome) => outcome ?? cause.outcome);
    },
    all: () => [...execs.values()].map(({ exec }) => exec),
    get size() {
      return execs.size - over.size;
    },
    count(by) {
      let count = 0;
      for (const { exec } of execs.values()) if (matches(exec, by) && !over.has(exec.execId)) count += 1;
      return count;
    },
    async idle() {
      await Promise.all([...execs.values()].map(({ ended }) => ended));
    },
    async endAll(cause) {
      const all = [...execs.values()];
      for (const { exec } of all) exec.end(cause);
      await Promise.all(all.map(({ ended }) => ended));
    },
  };
}

function matches(exec: RunningExec, by: Filter): boolean {
  if (by.orgId !== undefined && exec.orgId !== by.orgId) return false;
  if (by.workspaceId !== undefined && exec.workspaceId !== by.workspaceId) return false;
  if (by.jti !== undefined && exec.jti !== by.jti) return false;
  return by.sub === undefined || exec.sub === by.sub;
}
