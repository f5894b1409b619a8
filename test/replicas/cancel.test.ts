/** DELETE of an exec, asked of a replica that does not run it. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { carryingExecId, processRow } from '../support/processes.ts';
import { nowAndThen, type Replica, type Replicas, runningExec, startReplicas } from '../support/replicas.ts';
import { waitUntil, waitUntilStill } from '../support/wait.ts';

let replicas: Replicas;
let one: Replica;
let other: Replica;
beforeAll(async () => {
  replicas = await startReplicas();
  [one, other] = [await replicas.start(), await replicas.start()];
});
afterAll(() => replicas.stop());

const cancel = (replica: Replica, execId: string, workspace = 'ws-1', token?: string) =>
  replica.ask(`/workspaces/${workspace}/execs/${execId}`, {
    method: 'DELETE',
    ...(token === undefined ? {} : { token }),
  });

it('the one that runs it ends it, and the answer comes when it has ended', async () => {
  const asked = one.exec({ cmd: ['sh', '-c', 'echo started; sleep 100; :'] });
  const execId = await runningExec(other);
  await waitUntil(
    'it runs',
    nowAndThen(() => carryingExecId(execId).length > 0),
  );
  const answer = await cancel(other, execId);
  expect(answer).toMatchObject({ status: 200, body: { exec_id: execId, outcome: 'cancelled' } });
  expect(carryingExecId(execId)).toEqual([]);
  expect((await replicas.row(execId)).status).toBe('cancelled');
  const terminal = (await asked).frames.at(-1);
  expect(terminal).toMatchObject({ code: 'exec_cancelled', outcome: 'cancelled', survivors: [] });
  expect(String(terminal?.error)).toMatch(/^cancelled by org-token:/);
  expect((await cancel(other, execId)).status).toBe(404);
});

it.each(['one', 'other'] as const)('asked of %s, the answer says how it really ended', async (name) => {
  // It has exited by itself; only a child that holds its output keeps the exec, which then ends as exited.
  const asked = one.exec({ cmd: ['sh', '-c', 'sleep 100 & echo started; exit 3'] });
  const execId = await runningExec(one);
  const left = () => carryingExecId(execId).map((pid) => processRow(pid)?.args.join(' '));
  await waitUntil(
    'only the child is left',
    nowAndThen(() => left().join() === 'sleep 100'),
  );
  // The news of the exit is on its way to the gateway; nothing that can be asked says when it is there.
  await waitUntilStill('the program', () => left().join());
  const answer = await cancel(name === 'one' ? one : other, execId);
  await asked;
  expect(answer).toMatchObject({ status: 200, body: { outcome: 'exited' } });
  expect((await replicas.row(execId)).response_body).toMatchObject({ outcome: 'exited', exit_code: 3 });
  for (const pid of carryingExecId(execId)) process.kill(pid, 'SIGKILL');
});

it('what does not run in this org and workspace is 404, also when it runs elsewhere, and goes on', async () => {
  const asked = one.exec({ cmd: ['sh', '-c', 'sleep 100; :'] });
  const execId = await runningExec(other);
  const stranger = await replicas.issue(one, { org_id: 'org-2' });
  expect((await cancel(other, execId, 'ws-2')).status).toBe(404);
  expect((await cancel(other, execId, 'ws-1', stranger.token)).status).toBe(404);
  expect((await cancel(other, randomUUID())).status).toBe(404);
  expect((await cancel(other, 'no-uuid')).status).toBe(404);
  expect(carryingExecId(execId)).not.toEqual([]);
  await cancel(one, execId);
  await asked;
});

it('of a replica that hears nothing the answer is 202 in bounded time', async () => {
  const deaf = await replicas.start({ listens: false });
  const asked = deaf.exec({ cmd: ['sh', '-c', 'sleep 100; :'] });
  const execId = await runningExec(other);
  const answer = await cancel(other, execId);
  expect(answer).toMatchObject({ status: 202, body: { exec_id: execId, outcome: null } });
  expect((await cancel(deaf, execId)).body).toMatchObject({ outcome: 'cancelled' });
  await asked;
}, 30_000);

it('a replica that lost its line for notices makes it again', async () => {
  await replicas.sql(
    `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sallyport notices'`,
  );
  const asked = one.exec({ cmd: ['sh', '-c', 'sleep 100; :'] });
  const execId = await runningExec(other);
  expect((await cancel(other, execId)).body).toMatchObject({ outcome: 'cancelled' });
  await asked;
}, 30_000);
