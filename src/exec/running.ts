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

export type Runner = Pick<RunningExec, 'orgId' | 'workspaceId' | 'jti' | 'sub'>;

/** What execs are counted by, each a text of its own. However many sessions a person has, they count together. */
export interface RunnerKeys {
  workspace: string;
  /** The token, or the person of a session; null: the admin. */
  credential: string | null;
  org: string;
}

export function runnerKeys({ orgId, workspaceId, jti, sub }: Runner): RunnerKeys {
  const person = sub === null ? null : `s ${orgId} ${sub}`;
  return { workspace: `w ${workspaceId}`, credential: jti === null ? person : `t ${jti}`, org: `o ${orgId}` };
}

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
  /** `key`: one of `runnerKeys`. */
  count(key: string): number;
  /** Resolves when all that run now have ended by themselves. */
  idle(): Promise<void>;
  /** Ends all; resolves when all have ended. */
  endAll(cause: EndCause): Promise<void>;
}

export function createRunningExecs(): RunningExecs {
  const execs = new Map<string, { exec: RunningExec; ended: Promise<Outcome | undefined> }>();
  const over = new Set<string>();
  const counts = new Map<string, number>();
  const countOne = (exec: RunningExec, by: 1 | -1): void => {
    const { workspace, credential, org } = runnerKeys(exec);
    for (const key of credential === null ? [workspace, org] : [workspace, credential, org]) {
      const count = (counts.get(key) ?? 0) + by;
      if (count === 0) counts.delete(key);
      else counts.set(key, count);
    }
  };
  return {
    add(exec) {
      let markEnded: (outcome?: Outcome) => void = () => {};
      const ended = new Promise<Outcome | undefined>((resolve) => {
        markEnded = resolve;
      });
      execs.set(exec.execId, { exec, ended });
      countOne(exec, 1);
      return (outcome) => {
        if (!execs.delete(exec.execId)) throw new Error('bug: an exec ends once');
        if (!over.delete(exec.execId)) countOne(exec, -1);
        markEnded(outcome);
      };
    },
    giveRoom(execId) {
      const found = execs.get(execId);
      if (found === undefined || over.has(execId)) return;
      over.add(execId);
      countOne(found.exec, -1);
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
    count: (key) => counts.get(key) ?? 0,
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
