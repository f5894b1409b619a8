/** Gateways that die or fall asleep, beside one that lives: real processes on one real database. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { carryingExecId } from '../support/processes.ts';
import { nowAndThen, type Replica, type Replicas, runningExec, startReplicas } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

/** The real pace once, in the first test; a shorter one where only the order of things matters. */
const SHORT = { presenceBeatMs: 300, presenceMaxMs: 3_000, reconcileEveryMs: 500 };

const SLEEP = { cmd: ['sh', '-c', 'sleep 100; :'] };
const unanswered = (answer: Promise<unknown>): void => void answer.catch(() => undefined);

describe('at the real pace', () => {
  let replicas: Replicas;
  let survivor: Replica;
  beforeAll(async () => {
    replicas = await startReplicas();
    survivor = await replicas.start();
  });
  afterAll(() => replicas.stop());

  it('what a killed gateway ran is ended, and its rows are interrupted within 60 s', async () => {
    const victim = await replicas.start();
    for (const workspace of ['ws-1', 'ws-2', 'ws-3']) unanswered(victim.exec(SLEEP, { workspace }));
    const execIds = await Promise.all(['ws-1', 'ws-2', 'ws-3'].map((workspace) => runningExec(survivor, workspace)));
    for (const execId of execIds)
      await waitUntil(
        'it runs',
        nowAndThen(() => carryingExecId(execId).length > 0),
      );
    // Its host cannot be reached any more, so nobody can say what became of the program.
    await replicas.lab.fault('target_down', { instanceId: replicas.lab.lab.instances[2]?.id ?? '' });
    await victim.kill();
    const killedAtMs = performance.now();
    // The same machine's gateway comes back under a new name, and waits no longer than the other.
    await replicas.start();
    const finished = async () => {
      const rows = await Promise.all(execIds.map((execId) => replicas.row(execId)));
      return rows.every(({ status }) => status !== 'running') && rows;
    };
    const rows = await waitUntil('every row is finished', finished, 60_000);
    expect(performance.now() - killedAtMs).toBeLessThan(60_000);
    expect(rows.map(({ status }) => status)).toEqual(['interrupted', 'interrupted', 'interrupted']);
    expect(rows[0]?.response_body).toMatchObject({ outcome: 'interrupted', reaped: true, survivors: [] });
    expect(rows[1]?.response_body).toMatchObject({ outcome: 'interrupted', reaped: true, survivors: [] });
    expect(rows[2]?.response_body).toMatchObject({ outcome: 'interrupted', reaped: 'unknown', survivors: null });
    for (const execId of execIds.slice(0, 2)) expect(carryingExecId(execId)).toEqual([]);
    expect(await replicas.sql('select * from reaps')).toEqual([]);
    await replicas.lab.clearFaults();
    for (const pid of carryingExecId(execIds[2] ?? '')) process.kill(pid, 'SIGKILL');
  }, 90_000);
});

describe('at a shorter pace', () => {
  let replicas: Replicas;
  let [one, two, three]: Replica[] = [];
  beforeAll(async () => {
    replicas = await startReplicas();
    [one, two, three] = [await replicas.start(SHORT), await replicas.start(SHORT), await replicas.start(SHORT)];
  });
  afterAll(() => replicas.stop());
  const all = (): [Replica, Replica, Replica] => [one, two, three] as [Replica, Replica, Replica];

  it('a replica that was asleep changes no finished row, ends what it ran and begins anew', async () => {
    const [, other, sleeper] = all();
    const answer = sleeper.exec({ cmd: ['sh', '-c', 'echo started; sleep 100; :'] });
    const execId = await runningExec(other);
    await waitUntil(
      'it runs',
      nowAndThen(() => carryingExecId(execId).length > 0),
    );
    sleeper.child.kill('SIGSTOP');
    const row = await waitUntil(
      'the row is finished',
      async () => {
        const found = await replicas.row(execId);
        return found.status !== 'running' && found;
      },
      30_000,
    );
    expect(row).toMatchObject({ status: 'interrupted', response_body: { reaped: true } });
    expect(carryingExecId(execId)).toEqual([]);
    sleeper.child.kill('SIGCONT');
    await answer;
    await waitUntil('it found its row finished', () => sleeper.log().includes('an audit row was finished already'));
    expect(await replicas.row(execId)).toEqual(row);
    await waitUntil('it begins anew', () => sleeper.log().includes('this replica was taken for dead'));
    const next = await sleeper.exec({ cmd: ['true'] });
    const { replica } = await replicas.row(String(next.headers['x-exec-id']));
    expect(replica).toBe(`${row.replica}.2`);
  }, 60_000);

  it('what ran on before anybody noticed the sleep is ended by its own gateway', async () => {
    const [keeper, other, sleeper] = all();
    const answer = sleeper.exec(SLEEP, { workspace: 'ws-2' });
    const execId = await runningExec(other, 'ws-2');
    await waitUntil(
      'it runs',
      nowAndThen(() => carryingExecId(execId).length > 0),
    );
    // As another replica would, that has claimed the row and has not come to the host yet.
    const { replica } = await replicas.row(execId);
    await replicas.sql(
      `with claimed as (
         insert into reaps (exec_id, org_id, replica)
         select $2::uuid, 'org-1', id from replicas where id <> $1 and over_at is null limit 1
       )
       update replicas set over_at = now() where id = $1`,
      [replica, execId],
    );
    const { status, body, text } = await answer;
    expect(body, `${status} ${text}`).toMatchObject({ outcome: 'interrupted', survivors: [] });
    expect(carryingExecId(execId)).toEqual([]);
    await waitUntil('the row is finished', async () => (await replicas.row(execId)).status === 'interrupted');
    expect((await keeper.ask('/readyz')).status).toBe(200);
  }, 30_000);

  it('two that find the same rows share them: each is ended and finished by one', async () => {
    const [keeper, other] = all();
    const victim = await replicas.start(SHORT);
    const marks = Array.from({ length: 12 }, () => randomUUID());
    for (const [index, mark] of marks.entries())
      unanswered(victim.exec({ cmd: ['sh', '-c', 'sleep 100; :', mark] }, { workspace: `ws-${(index % 3) + 1}` }));
    const running = () => replicas.sql(`select id, summary from activity_logs where status = 'running'`);
    await waitUntil('all run', async () => (await running()).length === marks.length, 20_000);
    const execIds = (await running()).map(({ id }) => String(id));
    await waitUntil(
      'all have started',
      nowAndThen(() => execIds.every((id) => carryingExecId(id).length > 0)),
      20_000,
    );
    await victim.kill();
    await waitUntil('no row is running', async () => (await running()).length === 0, 30_000);
    const said = () =>
      [keeper, other, all()[2]]
        .flatMap((replica) => [...replica.log().matchAll(/"exec_id":"([^"]+)".*was interrupted/g)])
        .map(([, id]) => String(id))
        .filter((id) => execIds.includes(id));
    await waitUntil('the log says so', () => said().length >= execIds.length);
    expect(said().sort()).toEqual([...execIds].sort());
    for (const id of execIds) expect(carryingExecId(id)).toEqual([]);
  }, 60_000);

  it('after an outage nobody is taken for dead who had no time to come back', async () => {
    const [keeper] = all();
    const answer = keeper.exec({ cmd: ['sh', '-c', 'sleep 5; echo done'] }, { workspace: 'ws-3' });
    const execId = await runningExec(keeper, 'ws-3');
    // What an outage leaves behind: nobody was seen for long.
    await replicas.sql(`update replicas set seen_at = now() - interval '1 hour'`);
    const { frames } = await answer;
    expect(frames.at(-1)).toMatchObject({ exit_code: 0, complete: true });
    await waitUntil('the row is finished', async () => (await replicas.row(execId)).status === 'ok');
  }, 30_000);

  it('a host that a workspace got later is not searched, and the row says that nobody knows', async () => {
    const [keeper] = all();
    const victim = await replicas.start(SHORT);
    unanswered(victim.exec(SLEEP, { workspace: 'ws-3' }));
    const execId = await runningExec(keeper, 'ws-3');
    await waitUntil(
      'it runs',
      nowAndThen(() => carryingExecId(execId).length > 0),
    );
    await victim.kill();
    await replicas.sql(`update workspaces set instance_id = 'i-0aaaaaaaaaaaaaaaa' where id = 'ws-3'`);
    const row = await waitUntil(
      'the row is finished',
      async () => {
        const found = await replicas.row(execId);
        return found.status !== 'running' && found;
      },
      30_000,
    );
    expect(row).toMatchObject({ status: 'interrupted', response_body: { reaped: 'unknown', survivors: null } });
    for (const pid of carryingExecId(execId)) process.kill(pid, 'SIGKILL');
  }, 60_000);
});
