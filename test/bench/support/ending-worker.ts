/**
 * Starts a program through the gateway, and watches the host's process table until nothing of it is left.
 *
 * The program's first line is its pid, which is the session of all that it starts. Looked at every millisecond, so that the
 * look itself takes nothing from the kill.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { processRow, processTable } from '../../support/processes.ts';
import { waitUntil, within } from '../../support/wait.ts';
import { type HttpTarget, RawHttp, requestBytes } from './raw-http.ts';
import { answerAsks } from './worker.ts';

const GONE_MAX_MS = 10_000;

interface Started {
  target: HttpTarget;
  /** Processes of the program, at least. */
  processes: number;
}

const ops = {
  /** From the moment in which the caller closes its connection. ms */
  async hangUp(started: Started): Promise<number> {
    const { connection, session, pids } = await start(started);
    const from = performance.now();
    connection.close();
    return (await gone(session, pids)) - from;
  },

  /** From the deadline as the caller counts it, from its request on, which is a few milliseconds before the gateway's own. ms */
  async deadline({ timeoutMs, ...started }: Started & { timeoutMs: number }): Promise<number> {
    const { connection, session, pids, sentAtMs } = await start(started);
    try {
      return (await gone(session, pids)) - (sentAtMs + timeoutMs);
    } finally {
      connection.close();
    }
  },
};

async function start({ target, processes }: Started) {
  const connection = await RawHttp.open(target.url);
  let answer = '';
  connection.socket.setEncoding('latin1').on('data', (text: string) => {
    answer += text;
  });
  const sentAtMs = performance.now();
  connection.socket.write(requestBytes(target));
  const session = await waitUntil('the program says its pid', () => {
    if (/^HTTP\/1\.1 (?!200)/.test(answer)) throw new Error(`the program was not started: ${answer}`);
    return Number(/"stdout","data":"(\d+)\\n"/.exec(answer)?.[1] ?? 0);
  });
  const pids = membersOf(session);
  if (pids.length < processes) throw new Error(`expected ${processes} processes of session ${session}, got ${pids}`);
  return { connection, session, pids, sentAtMs };
}

function membersOf(session: number): number[] {
  return processTable()
    .filter((row) => row.session === session)
    .map(({ pid }) => pid);
}

/** When the last of them was seen to be gone. */
async function gone(session: number, pids: readonly number[]): Promise<number> {
  let left = pids;
  const watch = async (): Promise<number> => {
    for (;;) {
      left = left.filter((pid) => processRow(pid) !== null);
      const at = performance.now();
      if (left.length === 0) {
        // Were there more than those that were known, the watch goes on.
        left = membersOf(session);
        if (left.length === 0) return at;
      }
      await sleep(1);
    }
  };
  return await within(`everything of session ${session} is gone`, watch(), GONE_MAX_MS);
}

export type EndingOps = typeof ops;
answerAsks(ops);
