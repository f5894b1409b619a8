/** Idempotency-Key: one key, one run, whatever happens to the replicas meanwhile. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Answer } from '../support/gateway.ts';
import { carryingExecId } from '../support/processes.ts';
import { type Replica, type Replicas, runningExec, startReplicas } from '../support/replicas.ts';
import { dumpDatabase } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';

const SHORT = { presenceBeatMs: 300, presenceMaxMs: 3_000, reconcileEveryMs: 500 };
const JSON_ANSWER = { accept: 'application/json' };

let replicas: Replicas;
let one: Replica;
let other: Replica;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'once-'));
  replicas = await startReplicas();
  [one, other] = [await replicas.start(SHORT), await replicas.start(SHORT)];
});
afterAll(async () => {
  await replicas.stop();
  await rm(folder, { recursive: true });
});

/** A program that notes each of its runs. */
function noted(script: string): { cmd: string[]; runs(): Promise<number> } {
  const file = join(folder, randomUUID());
  return {
    cmd: ['sh', '-c', `echo run >> "$0"; ${script}`, file],
    runs: async () => (await readFile(file, 'utf8').catch(() => '')).split('\n').length - 1,
  };
}

const keyed = (
  replica: Replica,
  key: string,
  body: object,
  how: { token?: string; workspace?: string; accept?: string } = {},
) => {
  const { accept, ...rest } = how;
  return replica.exec(body, {
    ...rest,
    headers: { 'idempotency-key': key, ...(accept === undefined ? {} : { accept }) },
  });
};
const terminal = ({ frames }: Answer): Record<string, unknown> => frames.at(-1) ?? {};

describe('after the first request has ended', () => {
  it('the same terminal frame comes again, without output and digests, from every replica, and nothing runs', async () => {
    const { cmd, runs } = noted('echo out; echo err >&2; exit 3');
    const key = randomUUID();
    const first = await keyed(one, key, { cmd });
    const { stdout_sha256, stderr_sha256, ...rest } = terminal(first);
    expect(stdout_sha256).toEqual(expect.any(String));
    expect(stderr_sha256).toEqual(expect.any(String));
    for (const replica of [one, other]) {
      const again = await keyed(replica, key, { cmd });
      expect(again.status).toBe(200);
      expect(again.headers['x-exec-id']).toBe(rest.exec_id);
      expect(again.frames).toEqual([{ ...rest, complete: false, replayed: true }]);
    }
    expect(await runs()).toBe(1);
    const document = await keyed(other, key, { cmd }, JSON_ANSWER);
    expect(document).toMatchObject({
      status: 200,
      body: { exec_id: rest.exec_id, exit_code: 3, success: false, stdout: '', complete: false, replayed: true },
    });
  });

  it('a run that wrote nothing is complete in its replay', async () => {
    const key = randomUUID();
    await keyed(one, key, { cmd: ['true'] });
    expect(terminal(await keyed(other, key, { cmd: ['true'] }))).toMatchObject({
      exit_code: 0,
      complete: true,
      replayed: true,
    });
    expect((await keyed(one, key, { cmd: ['true'] }, JSON_ANSWER)).body).toMatchObject({
      success: true,
      complete: true,
    });
  });

  it('a failure has its own status again, and after output the 200 it had', async () => {
    const quiet = noted('sleep 100');
    const key = randomUUID();
    const first = await keyed(one, key, { cmd: quiet.cmd, timeout_s: 0.5 });
    expect(first.status).toBe(504);
    const again = await keyed(other, key, { cmd: quiet.cmd, timeout_s: 0.5 });
    expect(again.status).toBe(504);
    expect(again.body).toMatchObject({
      code: 'exec_timeout',
      outcome: 'timed_out',
      timeout_s: 0.5,
      survivors: [],
      replayed: true,
    });
    expect(again.body.exec_id).toBe(first.body.exec_id);
    expect(await quiet.runs()).toBe(1);

    const loud = noted('echo out; sleep 100');
    const second = randomUUID();
    expect((await keyed(one, second, { cmd: loud.cmd, timeout_s: 0.5 })).status).toBe(200);
    const replayed = await keyed(other, second, { cmd: loud.cmd, timeout_s: 0.5 });
    expect(replayed.status).toBe(200);
    expect(terminal(replayed)).toMatchObject({ code: 'exec_timeout', complete: false, replayed: true });
    expect((await keyed(other, second, { cmd: loud.cmd, timeout_s: 0.5 }, JSON_ANSWER)).status).toBe(504);
  });

  it('another body is 422, the same fields in another order are the same body', async () => {
    const key = randomUUID();
    await keyed(one, key, { cmd: ['true'], env: { A: '1', B: '2' } });
    const refused = await keyed(other, key, { cmd: ['true'], env: { A: '1', B: '3' } });
    expect(refused).toMatchObject({ status: 422, body: { code: 'idempotency_mismatch', outcome: 'refused' } });
    const again = await keyed(other, key, { env: { B: '2', A: '1' }, cmd: ['true'] });
    expect(terminal(again)).toMatchObject({ replayed: true });
  });

  it('a key is one of its org, workspace and actor', async () => {
    const { cmd, runs } = noted(':');
    const key = randomUUID();
    await keyed(one, key, { cmd });
    const { token } = await replicas.issue(one);
    expect(terminal(await keyed(one, key, { cmd }, { token }))).not.toHaveProperty('replayed');
    expect(terminal(await keyed(one, key, { cmd }, { workspace: 'ws-2' }))).not.toHaveProperty('replayed');
    expect(await runs()).toBe(3);
  });

  it('after a day the key is free, and old keys of the org are forgotten as new ones come', async () => {
    const { cmd, runs } = noted(':');
    const key = randomUUID();
    await keyed(one, key, { cmd });
    await replicas.sql(`update idempotency_keys set created_at = now() - interval '25 hours' where key = $1`, [key]);
    expect(terminal(await keyed(one, key, { cmd }))).not.toHaveProperty('replayed');
    expect(await runs()).toBe(2);
    await replicas.sql(`update idempotency_keys set created_at = now() - interval '3 days' where key = $1`, [key]);
    await keyed(one, randomUUID(), { cmd });
    expect(await replicas.sql(`select * from idempotency_keys where key = $1`, [key])).toEqual([]);
  });

  it('neither output, nor the body, nor a digest of it that anybody could make is stored', async () => {
    const body = {
      cmd: ['sh', '-c', 'echo "canary-$SECRET"; cat'],
      env: { SECRET: 'env-canary' },
      stdin: 'stdin-canary',
    };
    await keyed(one, randomUUID(), body);
    const dump = await dumpDatabase(replicas.databaseUrl);
    for (const secret of ['canary-env', 'env-canary', 'stdin-canary']) expect(dump).not.toContain(secret);
  });
});

describe('while the first request runs', () => {
  it('409, on every replica; another body is 422 at once', async () => {
    const { cmd, runs } = noted('echo out; sleep 100');
    const key = randomUUID();
    const first = keyed(one, key, { cmd });
    const execId = await runningExec(other);
    for (const replica of [one, other]) {
      expect(await keyed(replica, key, { cmd })).toMatchObject({
        status: 409,
        body: { code: 'idempotency_in_progress', outcome: 'refused' },
      });
      expect((await keyed(replica, key, { cmd: ['true'] })).status).toBe(422);
    }
    await other.ask(`/workspaces/ws-1/execs/${execId}`, { method: 'DELETE' });
    expect(terminal(await first)).toMatchObject({ code: 'exec_cancelled' });
    expect(terminal(await keyed(other, key, { cmd }))).toMatchObject({ code: 'exec_cancelled', replayed: true });
    expect(await runs()).toBe(1);
  });

  it('many at once on both replicas run it once', async () => {
    const { cmd, runs } = noted('sleep 1');
    const key = randomUUID();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => keyed(index % 2 === 0 ? one : other, key, { cmd })),
    );
    const statuses = answers.map(({ status }) => status).sort();
    expect(statuses).toEqual([200, ...Array.from({ length: 19 }, () => 409)]);
    expect(await runs()).toBe(1);
  });
});

describe('a first request that never asked the program to start', () => {
  it('frees the key: the next one runs, also with another body', async () => {
    const { cmd, runs } = noted(':');
    const key = randomUUID();
    await replicas.lab.cutConnections();
    await replicas.lab.fault('instance_stopped');
    expect((await keyed(one, key, { cmd })).status).toBe(409);
    expect((await keyed(one, key, { cmd, timeout_s: 1 })).body.code).toBe('instance_not_running');
    await replicas.lab.clearFaults();
    expect(terminal(await keyed(other, key, { cmd, timeout_s: 5 }))).toMatchObject({ exit_code: 0 });
    expect(await runs()).toBe(1);
    expect(terminal(await keyed(other, key, { cmd, timeout_s: 5 }))).toMatchObject({ replayed: true });
  });

  it('frees the key when its caller hangs up while connecting', async () => {
    const { cmd, runs } = noted(':');
    const key = randomUUID();
    await replicas.lab.cutConnections();
    await replicas.lab.fault('banner_hang');
    const first = keyed(one, key, { cmd, connect_timeout_s: 30 });
    const execId = await runningExec(other);
    await other.ask(`/workspaces/ws-1/execs/${execId}`, { method: 'DELETE' });
    expect((await first).body).toMatchObject({ code: 'exec_cancelled' });
    await replicas.lab.clearFaults();
    expect(terminal(await keyed(other, key, { cmd }))).toMatchObject({ exit_code: 0 });
    expect(await runs()).toBe(1);
  });
});

describe('a first request whose gateway dies', () => {
  it('is in progress until its row is interrupted, and is then never run again', async () => {
    const { cmd, runs } = noted('sleep 100; :');
    const key = randomUUID();
    const victim = await replicas.start(SHORT);
    keyed(victim, key, { cmd }).catch(() => undefined);
    const execId = await runningExec(one);
    await waitUntil('it runs', async () => (await runs()) === 1);
    await victim.kill();
    expect((await keyed(one, key, { cmd })).status).toBe(409);
    await waitUntil(
      'the row is interrupted',
      async () => (await replicas.row(execId)).status === 'interrupted',
      30_000,
    );
    const again = await keyed(other, key, { cmd });
    expect(again).toMatchObject({
      status: 500,
      body: { code: 'internal', outcome: 'interrupted', exec_id: execId, survivors: [], replayed: true },
    });
    expect((await keyed(one, key, { cmd: ['true'] })).status).toBe(422);
    expect(await runs()).toBe(1);
    expect(carryingExecId(execId)).toEqual([]);
  }, 60_000);
});

describe('the header', () => {
  it.each([
    ['is empty', ''],
    ['is longer than 255 characters', 'x'.repeat(256)],
    ['is not ASCII', 'schl\xfcssel'],
  ])('is refused when it %s', async (_why, key) => {
    const { status, body } = await keyed(one, key, { cmd: ['true'] });
    expect(status).toBe(400);
    expect(body).toMatchObject({ code: 'invalid_request' });
    expect(String(body.error)).toContain('Idempotency-Key');
  });

  it('of 255 characters is taken', async () => {
    expect(terminal(await keyed(one, 'x'.repeat(255), { cmd: ['true'] }))).toMatchObject({ exit_code: 0 });
  });

  it('means nothing to a dry run', async () => {
    const key = randomUUID();
    const dry = { cmd: ['true'], dry_run: true };
    for (let times = 0; times < 2; times += 1)
      expect((await keyed(one, key, dry)).body).toMatchObject({ dry_run: true });
    expect(terminal(await keyed(one, key, { cmd: ['true'] }))).toMatchObject({ exit_code: 0 });
  });
});
