/**
 * A process of its own that does what it is asked: no side of a comparison computes in the time of the other.
 *
 * Both ends of the conversation: `startWorker` in the bench, `answerAsks` in the program. A worker ends with the bench,
 * also when that is killed, because its channel closes.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';

/** What a worker can be asked; each takes one object. */
export type Ops = Record<string, (args: never) => Promise<unknown>>;

export interface Worker<O extends Ops> {
  readonly pid: number;
  /** Rejects with what went wrong there, or when it ends before it answers. */
  ask<K extends keyof O & string>(op: K, args: Parameters<O[K]>[0]): ReturnType<O[K]>;
  stop(): Promise<void>;
}

interface Ask {
  id: number;
  op: string;
  args: unknown;
}

type Answer = { id: number; value: unknown } | { id: number; error: string };

/** `file`: of the program, beside this one. */
export async function startWorker<O extends Ops>(file: string): Promise<Worker<O>> {
  const child = fork(new URL(file, import.meta.url), {
    execArgv: ['--import', 'tsx'],
    serialization: 'advanced',
    // Ctrl-C is the bench's own: it stops its workers.
    detached: true,
  });
  const open = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let asked = 0;
  const over = once(child, 'exit');
  child.on('message', (message) => {
    const answer = message as Answer;
    const waiting = open.get(answer.id);
    open.delete(answer.id);
    if ('error' in answer) waiting?.reject(new Error(`${file}: ${answer.error}`));
    else waiting?.resolve(answer.value);
  });
  child.once('exit', (code, signal) => {
    for (const { reject } of open.values()) reject(new Error(`${file} ended (${code ?? signal}) before it answered`));
    open.clear();
  });
  await once(child, 'spawn');
  const ask = (op: string, args: unknown): Promise<unknown> =>
    new Promise((resolve, reject) => {
      asked += 1;
      if (!child.connected) return reject(new Error(`${file} has ended`));
      open.set(asked, { resolve, reject });
      child.send({ id: asked, op, args } satisfies Ask);
    });
  return {
    pid: child.pid ?? 0,
    ask: ask as Worker<O>['ask'],
    async stop() {
      if (child.connected) child.disconnect();
      // It has nothing to save; connections and children of its own end with it.
      child.kill('SIGTERM');
      await over;
    },
  };
}

/** In the program: answers until the bench lets go. `cleanUp` runs last. */
export function answerAsks(ops: Ops, cleanUp: () => void = () => undefined): void {
  process.on('message', (message) => {
    const { id, op, args } = message as Ask;
    const run = ops[op] as ((args: unknown) => Promise<unknown>) | undefined;
    const answering = run === undefined ? Promise.reject(new Error(`bug: nobody answers ${op}`)) : run(args);
    const send = (answer: Answer): void => {
      if (process.connected) process.send?.(answer);
    };
    answering.then(
      (value) => send({ id, value }),
      (error: unknown) => send({ id, error: error instanceof Error ? error.message : String(error) }),
    );
  });
  const end = (): void => {
    cleanUp();
    process.exit(0);
  };
  process.once('disconnect', end);
  process.once('SIGTERM', end);
}
