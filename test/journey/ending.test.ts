import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { carryingExecId, processTable } from '../support/processes.ts';
import { waitUntil } from '../support/wait.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());

/** A program that can be found in the process table by an argument of its own. */
function marked(script: string): { cmd: string[]; alive(): number } {
  const mark = `mark-${randomUUID()}`;
  return {
    cmd: ['sh', '-c', script, mark],
    alive: () => processTable().filter(({ args }) => args.includes(mark)).length,
  };
}

const rowOf = async (execId: unknown): Promise<Record<string, unknown>> => {
  const { body } = await gateway.ask('/activity?limit=50');
  const rows = (body.items as Record<string, unknown>[]).filter(({ id }) => id === execId);
  expect(rows).toHaveLength(1);
  return rows[0] ?? {};
};

describe('the end of a command', () => {
  it('the deadline ends the program and every child', async () => {
    const { cmd, alive } = marked('sh -c "sleep 100; :" "$0" & sleep 100; :');
    const { status, body } = await gateway.exec({ cmd, timeout_s: 0.5 });
    expect(status).toBe(504);
    expect(body).toMatchObject({ code: 'exec_timeout', outcome: 'timed_out', timeout_s: 0.5, survivors: [] });
    expect(alive()).toBe(0);
    expect(await rowOf(body.exec_id)).toMatchObject({
      status: 'timeout',
      response_body: { outcome: 'timed_out', survivors: [] },
    });
  });

  it('after output the deadline is the terminal frame', async () => {
    const { status, frames } = await gateway.exec({ cmd: ['sh', '-c', 'echo x; sleep 100'], timeout_s: 0.5 });
    expect(status).toBe(200);
    expect(terminalOf(frames)).toMatchObject({
      code: 'exec_timeout',
      outcome: 'timed_out',
      timeout_s: 0.5,
      stdout_bytes: 2,
      complete: false,
      survivors: [],
    });
    expect(terminalOf(frames).error).toContain('0.5 s');
  });

  it.each([
    ['a program that ignores TERM', 'trap "" TERM; while :; do sleep 1; done'],
    ['a program that makes its own group', 'timeout 100 sleep 100; :'],
    ['a child in a session of its own', 'setsid sleep 100 & sleep 100; :'],
  ])('ends %s', async (_name, script) => {
    const { status, body } = await gateway.exec({ cmd: ['sh', '-c', script], timeout_s: 0.3 });
    expect(status).toBe(504);
    expect(body.survivors).toEqual([]);
    expect(carryingExecId(String(body.exec_id))).toEqual([]);
  });

  it('a host that ignores the SSH signal request makes no difference', async () => {
    await gateway.fault('signal_ignored');
    const { cmd, alive } = marked('sleep 100; :');
    const { body } = await gateway.exec({ cmd, timeout_s: 0.3 });
    await gateway.clearFaults();
    expect(body.survivors).toEqual([]);
    expect(alive()).toBe(0);
  });

  it('a host with room for one channel only makes no difference', async () => {
    await gateway.cutConnections();
    await gateway.fault('max_sessions', { value: 1 });
    const { cmd, alive } = marked('sleep 100; :');
    const { body } = await gateway.exec({ cmd, timeout_s: 0.3 });
    await gateway.clearFaults();
    expect(body).toMatchObject({ code: 'exec_timeout', survivors: [] });
    expect(alive()).toBe(0);
  });

  it('a caller who hangs up ends the program, and the row is there', async () => {
    const { cmd, alive } = marked('echo started; sleep 100; :');
    const hangUp = new AbortController();
    const asked = gateway.exec({ cmd }, { signal: hangUp.signal });
    asked.catch(() => undefined);
    await waitUntil('the program runs', () => alive() > 0);
    hangUp.abort();
    await waitUntil('the program is gone', () => alive() === 0);
    await waitUntil('the row is closed', async () => {
      const { body } = await gateway.ask('/workspaces/ws-demo/activity?limit=1');
      return (body.items as { status: string }[])[0]?.status === 'cancelled';
    });
  });

  it('a caller who hangs up while connecting starts nothing', async () => {
    await gateway.cutConnections();
    await gateway.fault('banner_hang');
    const { cmd, alive } = marked('sleep 100; :');
    const hangUp = new AbortController();
    const asked = gateway.exec({ cmd }, { signal: hangUp.signal });
    asked.catch(() => undefined);
    await waitUntil('the gateway is connecting', () => gateway.pool.stats().openings > 0);
    hangUp.abort();
    await waitUntil('the opening is given up', () => gateway.pool.stats().openings === 0);
    await gateway.clearFaults();
    expect(alive()).toBe(0);
    await waitUntil('the row is closed', async () => {
      const { body } = await gateway.ask('/workspaces/ws-demo/activity?limit=1');
      return (body.items as { status: string }[])[0]?.status === 'cancelled';
    });
    await waitUntil('the tunnel is closed', async () => (await gateway.counters()).tunnels.open === 0);
  });

  it('DELETE ends it and answers when it has ended', async () => {
    const { cmd, alive } = marked('echo started; sleep 100; :');
    const asked = gateway.exec({ cmd });
    await waitUntil('the program runs', () => alive() > 0);
    const { body } = await gateway.ask('/workspaces/ws-demo/execs');
    const [running] = body.items as { exec_id: string; outcome: null }[];
    expect(running).toMatchObject({ argv: cmd, outcome: null, actor: expect.stringMatching(/^org-token:/) });
    const cancelled = await gateway.ask(`/workspaces/ws-demo/execs/${running?.exec_id}`, { method: 'DELETE' });
    expect(cancelled.status).toBe(200);
    expect(alive()).toBe(0);
    expect(terminalOf((await asked).frames)).toMatchObject({
      code: 'exec_cancelled',
      outcome: 'cancelled',
      survivors: [],
    });
    const again = await gateway.ask(`/workspaces/ws-demo/execs/${running?.exec_id}`, { method: 'DELETE' });
    expect(again.status).toBe(404);
  });

  it('a background child is left, named, and waited for two seconds only', async () => {
    const { frames } = await gateway.exec({ cmd: ['sh', '-c', 'echo x; sleep 8 & exit 5'] });
    const terminal = terminalOf(frames);
    expect(terminal).toMatchObject({ exit_code: 5, outcome: 'exited', complete: false });
    expect(terminal.duration_ms).toBeGreaterThanOrEqual(2000);
    expect(terminal.duration_ms).toBeLessThan(6000);
    const [child] = terminal.survivors as number[];
    expect(carryingExecId(String(terminal.exec_id))).toEqual([child]);
    process.kill(Number(child));
  });

  it('a background child that chatters does not hold the exec', async () => {
    const { frames } = await gateway.exec({ cmd: ['sh', '-c', '(while echo y; do sleep 0.1; done) & exit 0'] });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0, complete: false });
    expect(terminalOf(frames).duration_ms).toBeLessThan(8000);
  });

  it('a background child that let go of the output costs no time', async () => {
    const { frames } = await gateway.exec({ cmd: ['sh', '-c', 'sleep 3 >/dev/null 2>&1 & exit 0'] });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0, complete: true });
    expect(terminalOf(frames).duration_ms).toBeLessThan(2000);
  });

  it('a link that is cut is connection_lost, and what was left running is ended', async () => {
    const { cmd, alive } = marked('echo started; sleep 100; :');
    const asked = gateway.exec({ cmd });
    await waitUntil('the program runs', () => alive() > 0);
    await gateway.cutConnections();
    const { frames } = await asked;
    expect(terminalOf(frames)).toMatchObject({ code: 'connection_lost', outcome: 'connection_lost', complete: false });
    await waitUntil('the program is gone', () => alive() === 0);
    await waitUntil('the row says so', async () => {
      const row = await rowOf(terminalOf(frames).exec_id);
      return row.status === 'error' && (row.response_body as { reaped?: unknown }).reaped === true;
    });
  });

  it('the next exec after a cut link works at once', async () => {
    await gateway.exec({ cmd: ['true'] });
    await gateway.cutConnections();
    const { frames } = await gateway.exec({ cmd: ['true'] });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
  });
});
