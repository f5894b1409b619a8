/**
 * A right that is withdrawn ends what runs by it, on every replica: seen in the process table and in what the caller reads.
 *
 * The contract says: TERM and no more output within 2 s, gone within 4.5 s. The programs here ignore TERM and note when
 * it came, so both times are seen.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { oidcEnv, startIssuer, type TestIssuer } from '../support/issuer.ts';
import { carryingExecId } from '../support/processes.ts';
import { nowAndThen, placeOf, type Replica, type Replicas, runningExec, startReplicas } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

/** What a busy machine may take on top of what is promised. */
const MARGIN_MS = 1_000;
const TERM_MAX_MS = 2_000 + MARGIN_MS;
const GONE_MAX_MS = 4_500 + MARGIN_MS;

/** Each has an instance to itself; one more is nobody's case. */
const CASES_AT_ONCE = 12;

let replicas: Replicas;
let issuer: TestIssuer;
/** Runs the execs; `deaf` runs them too, and never hears a notice. */
let here: Replica;
let there: Replica;
let deaf: Replica;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'withdrawal-'));
  issuer = await startIssuer();
  replicas = await startReplicas({ instances: CASES_AT_ONCE + 1, env: oidcEnv(issuer) });
  [here, there, deaf] = [await replicas.start(), await replicas.start(), await replicas.start({ listens: false })];
});
afterAll(async () => {
  await replicas.stop();
  await issuer.stop();
  await rm(folder, { recursive: true });
});

interface Case {
  org: string;
  workspace: string;
  place: object;
  tokenId: string;
  /** Of a session of its own, and of a token that the session made. */
  sub: string;
}

/** What each does, on any replica. */
const WITHDRAWALS = {
  'the token is revoked': (by: Replica, { tokenId }: Case) =>
    replicas.admin(by, 'DELETE', `/tokens/${tokenId}`).then((): number => 401),
  'the tier is lowered': (by: Replica, { workspace }: Case) =>
    replicas.admin(by, 'PATCH', `/workspaces/${workspace}`, { tier: 2 }).then((): number => 403),
  'the workspace is deleted': (by: Replica, { workspace }: Case) =>
    replicas.admin(by, 'DELETE', `/workspaces/${workspace}`).then((): number => 404),
  'the workspace is moved': (by: Replica, { workspace, place }: Case) =>
    replicas.admin(by, 'PUT', `/workspaces/${workspace}`, { org_id: 'org-2', ...place }).then((): number => 404),
  'the org is frozen': (by: Replica, { org }: Case) =>
    replicas.admin(by, 'POST', `/orgs/${org}/freeze`).then((): number => 403),
  'the person is frozen': (by: Replica, { org, sub }: Case) =>
    replicas.admin(by, 'POST', `/orgs/${org}/people/${encodeURIComponent(sub)}/freeze`).then((): number => 403),
  'the person who made the token is frozen': (by: Replica, { org, sub }: Case) =>
    replicas.admin(by, 'POST', `/orgs/${org}/people/${encodeURIComponent(sub)}/freeze`).then((): number => 403),
};
/** By what each is asked for; otherwise by a token that the admin has made. */
const CREDENTIALS: Partial<Record<keyof typeof WITHDRAWALS, 'session' | 'token of a person'>> = {
  'the person is frozen': 'session',
  'the person who made the token is frozen': 'token of a person',
};
const NAMES = Object.keys(WITHDRAWALS) as (keyof typeof WITHDRAWALS)[];

let cases = 0;
/** An org, a workspace on an instance that nobody else uses now, and a token, all of their own. */
async function newCase(name?: keyof typeof WITHDRAWALS): Promise<Case & { token: string }> {
  cases += 1;
  const [org, workspace] = [`org-case-${cases}`, `ws-case-${cases}`];
  const index = cases % CASES_AT_ONCE;
  const place = placeOf(replicas.lab, index);
  // (region, instance id) is unique: whoever had the instance gives it back.
  await replicas.sql(`update workspaces set deleted_at = now() where instance_id = $1 and deleted_at is null`, [
    (place as { instance_id: string }).instance_id,
  ]);
  await replicas.admin(here, 'PUT', `/orgs/${org}`, { name: org });
  await replicas.admin(here, 'PUT', `/workspaces/${workspace}`, { org_id: org, ...place });
  const { id, token } = await replicas.issue(here, { org_id: org });
  const sub = `auth0|person of ${org}`;
  const it = { org, workspace, place, tokenId: id, sub };
  const credential = name === undefined ? undefined : CREDENTIALS[name];
  if (credential === undefined) return { ...it, token };
  const session = await issuer.token({ sub, org });
  if (credential === 'session') return { ...it, token: session };
  const body = { kind: 'workspace', workspace_id: workspace, name: 'mine', scopes: ['exec', 'activity:read'] };
  const made = await here.ask('/tokens', { method: 'POST', token: session, body });
  return { ...it, token: String(made.body.token) };
}

/** Streams an exec and notes when frames came. */
async function stream(replica: Replica, { workspace, token }: { workspace: string; token: string }, body: object) {
  const frames: { atMs: number; frame: Record<string, unknown> }[] = [];
  const sent = request(`${replica.url}/workspaces/${workspace}/exec`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
  });
  const over = (async () => {
    const [response] = (await once(sent, 'response')) as [import('node:http').IncomingMessage];
    let rest = '';
    for await (const chunk of response) {
      rest += String(chunk);
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line !== '') frames.push({ atMs: Date.now(), frame: JSON.parse(line) });
    }
    if (rest !== '') frames.push({ atMs: Date.now(), frame: JSON.parse(rest) });
    return response.statusCode ?? 0;
  })();
  sent.end(JSON.stringify(body));
  return { frames, over };
}

/** A program that ignores TERM and writes the time of the first one into a file. */
function stubborn(script: string): { cmd: string[]; termAtMs(): Promise<number> } {
  const file = join(folder, randomUUID());
  return {
    cmd: ['bash', '-c', `trap 'date +%s%3N >> "$0"' TERM; ${script}`, file],
    termAtMs: async () => Number((await readFile(file, 'utf8').catch(() => '')).split('\n')[0] || Number.NaN),
  };
}

async function withdrawWhileRunning(
  name: keyof typeof WITHDRAWALS,
  { runner, by, script, streams }: { runner: Replica; by: Replica; script: string; streams: boolean },
): Promise<void> {
  const it = await newCase(name);
  const program = stubborn(script);
  const { frames, over } = await stream(runner, it, { cmd: program.cmd, timeout_s: 60 });
  const execId = await runningExec(
    { ...runner, ask: (path, how) => runner.ask(path, { token: it.token, ...how }) },
    it.workspace,
  );
  await waitUntil(
    'it runs',
    nowAndThen(() => carryingExecId(execId).length > 0),
    20_000,
  );
  if (streams) await waitUntil('it streams', () => frames.length > 3, 20_000);
  // The trap is set a moment after the start of the shell.
  else
    await waitUntil(
      'its sleep has begun',
      nowAndThen(() => carryingExecId(execId).length > 1),
      20_000,
    );

  const startedAtMs = Date.now();
  const refusal = await WITHDRAWALS[name](by, it);
  await waitUntil(
    'it is gone',
    nowAndThen(() => carryingExecId(execId).length === 0),
    20_000,
  );
  expect(Date.now() - startedAtMs).toBeLessThan(GONE_MAX_MS);
  const termAtMs = await program.termAtMs();
  expect(termAtMs - startedAtMs).toBeLessThan(TERM_MAX_MS);

  await over;
  const output = frames.filter(({ frame }) => 'stream' in frame);
  // It writes on for the two seconds between TERM and KILL, and nobody gets to read that.
  for (const { atMs } of output) expect(atMs - termAtMs).toBeLessThan(MARGIN_MS);
  const terminal = frames.at(-1)?.frame;
  expect(terminal).toMatchObject({ code: 'exec_revoked', outcome: 'revoked', survivors: [] });
  const row = await waitUntil('the row is finished', async () => {
    const found = await replicas.row(execId);
    return found.status !== 'running' && found;
  });
  expect(row).toMatchObject({ status: 'cancelled', response_body: { outcome: 'revoked', survivors: [] } });

  for (const replica of [here, there, deaf]) {
    const again = await replica.exec({ cmd: ['true'] }, it);
    expect(again.status).toBe(refusal);
  }
}

const SILENT = 'while :; do sleep 0.1; done';
const STREAMING = 'while :; do echo tick; sleep 0.05; done';

describe.each(NAMES)('%s', (name) => {
  const places: [string, () => { runner: Replica; by: Replica }][] = [
    ['on the replica that runs it', () => ({ runner: here, by: here })],
    ['on another replica', () => ({ runner: here, by: there })],
    ['on another replica, and the notice is lost', () => ({ runner: deaf, by: there })],
  ];
  // Every case is an org of its own and leaves a tunnel behind; the endpoint has twenty for all replicas together.
  afterAll(async () => {
    await replicas.lab.clearFaults();
    await replicas.lab.cutConnections();
  });

  // Most of a case is waiting: for TERM, and for the two seconds until KILL.
  describe.concurrent.each(places)('%s', (_place, where) => {
    it.concurrent(
      'a silent program is ended in time',
      () => withdrawWhileRunning(name, { ...where(), script: SILENT, streams: false }),
      40_000,
    );

    it.concurrent(
      'the output of a streaming program stops in time',
      () => withdrawWhileRunning(name, { ...where(), script: STREAMING, streams: true }),
      40_000,
    );

    it.concurrent('an exec that is still connecting never starts', async () => {
      const it = await newCase(name);
      const { runner, by } = where();
      const instanceId = (it.place as { instance_id: string }).instance_id;
      await replicas.lab.fault('banner_hang', { instanceId });
      const mark = `mark-${randomUUID()}`;
      const asked = runner.exec({ cmd: ['sh', '-c', 'sleep 100; :', mark], connect_timeout_s: 30 }, it);
      const execId = await runningExec(
        { ...runner, ask: (path, how) => runner.ask(path, { token: it.token, ...how }) },
        it.workspace,
      );
      const startedAtMs = Date.now();
      await WITHDRAWALS[name](by, it);
      const { status, body } = await asked;
      expect(Date.now() - startedAtMs).toBeLessThan(TERM_MAX_MS);
      expect(status).toBe(403);
      expect(body).toMatchObject({ code: 'exec_revoked', outcome: 'revoked' });
      expect(carryingExecId(execId)).toEqual([]);
      const { response_body } = await waitUntil('the row is finished', async () => {
        const found = await replicas.row(execId);
        return found.status !== 'running' && found;
      });
      expect(response_body).toMatchObject({ outcome: 'revoked' });
    }, 40_000);
  });
});

describe('an exec that is queued for a connection', () => {
  const ONE_TUNNEL = { SALLYPORT_TUNNELS_PER_ENDPOINT: '1' };
  let narrow: { hears: Replica; deaf: Replica };
  let holding: Promise<unknown>[];
  beforeAll(async () => {
    narrow = {
      hears: await replicas.start({}, ONE_TUNNEL),
      deaf: await replicas.start({ listens: false }, ONE_TUNNEL),
    };
    const workspace = `ws-${CASES_AT_ONCE + 1}`;
    const known: string[] = [];
    holding = [];
    for (const replica of Object.values(narrow)) {
      // Killed with the replicas, in the end.
      holding.push(replica.exec({ cmd: ['sh', '-c', 'sleep 100; :'], timeout_s: 100 }, { workspace }).catch(() => {}));
      const execId = await runningExec(replica, workspace, known);
      known.push(execId);
      await waitUntil(
        'the only tunnel is taken',
        nowAndThen(() => carryingExecId(execId).length > 0),
        20_000,
      );
    }
  });
  afterAll(async () => {
    for (const replica of Object.values(narrow)) await replica.kill();
    await Promise.all(holding);
  });

  describe.concurrent.each(NAMES)('%s', (name) => {
    it.concurrent.each([
      ['on another replica', 'hears'],
      ['on another replica, and the notice is lost', 'deaf'],
    ] as const)(
      '%s: it never starts',
      async (_place, which) => {
        const it = await newCase(name);
        const runner = narrow[which];
        const logins = async () => {
          const { instances } = await replicas.lab.counters();
          return instances[(it.place as { instance_id: string }).instance_id]?.logins ?? 0;
        };
        const before = await logins();
        const asked = runner.exec({ cmd: ['true'], connect_timeout_s: 60 }, it);
        const execId = await runningExec(
          { ...runner, ask: (path, how) => runner.ask(path, { token: it.token, ...how }) },
          it.workspace,
        );
        const startedAtMs = Date.now();
        await WITHDRAWALS[name](there, it);
        const { status, body } = await asked;
        expect(Date.now() - startedAtMs).toBeLessThan(TERM_MAX_MS);
        expect({ status, code: body.code, outcome: body.outcome }).toEqual({
          status: 403,
          code: 'exec_revoked',
          outcome: 'revoked',
        });
        expect(await logins()).toBe(before);
        const { response_body } = await waitUntil('the row is finished', async () => {
          const found = await replicas.row(execId);
          return found.status !== 'running' && found;
        });
        expect(response_body).toMatchObject({ outcome: 'revoked' });
      },
      40_000,
    );
  });
});

describe('what is no withdrawal', () => {
  it('a new name, new labels, a higher tier and another route end nothing', async () => {
    const it = await newCase();
    const asked = here.exec({ cmd: ['sh', '-c', 'sleep 4; echo done'] }, it);
    await runningExec({ ...here, ask: (path, how) => here.ask(path, { token: it.token, ...how }) }, it.workspace);
    for (const change of [{ name: 'x', labels: { a: 'b' } }, { tier: 4 }, { route: 'auto' }])
      await replicas.admin(there, 'PATCH', `/workspaces/${it.workspace}`, change);
    expect((await asked).frames.at(-1)).toMatchObject({ exit_code: 0, complete: true });
  });

  it('the expiry of a token ends nothing', async () => {
    const it = await newCase();
    const { token } = await replicas.issue(here, { org_id: it.org, expires_in_s: 60 });
    const asked = here.exec({ cmd: ['sh', '-c', 'sleep 3; echo done'] }, { ...it, token });
    await runningExec({ ...here, ask: (path, how) => here.ask(path, { token: it.token, ...how }) }, it.workspace);
    await replicas.sql(`update tokens set expires_at = now() - interval '1 hour' where org_id = $1`, [it.org]);
    expect((await asked).frames.at(-1)).toMatchObject({ exit_code: 0, complete: true });
  });
});
