/** The audit log: one exec, one row, committed before the program starts, and never a byte that it must not hold. */
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, type Ask, outputOf, startTestGateway, type TestGateway, terminalOf } from '../support/gateway.ts';
import { type Serving, startServing } from '../support/serving.ts';
import { dumpDatabase, type Row, runSql, withClient } from '../support/sql.ts';
import { waitUntil, waitUntilStill } from '../support/wait.ts';

const ROW_OF_EXEC = fileURLToPath(new URL('../fixtures/row-of-exec.mjs', import.meta.url));

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());

/** Every row that a request left, when none of them is running any more. */
async function rowsOf(requestId: string): Promise<Row[]> {
  const read = () => gateway.sql('select * from activity_logs where request_id = $1', [requestId]);
  await waitUntil('its row is closed', async () => {
    const rows = await read();
    return rows.length > 0 && rows.every(({ status }) => status !== 'running');
  });
  return await read();
}

async function activity(query: string, how: Ask = {}): Promise<Row[]> {
  return (await gateway.ask(`/activity?${query}`, how)).body.items as Row[];
}

interface Path {
  name: string;
  requestId: string;
  /** Makes the one request. */
  go(ask: (body: object, how?: Ask & { workspace?: string }) => Promise<Answer>): Promise<unknown>;
  status: string;
  outcome: string;
}

const running = (requestId: string) =>
  waitUntil('it runs', async () => {
    const rows = await gateway.sql(`select id from activity_logs where request_id = $1 and status = 'running'`, [
      requestId,
    ]);
    return rows[0]?.id as string | undefined;
  });

const SLEEP = { cmd: ['sh', '-c', 'echo started; sleep 60'] };
const PATHS: readonly Path[] = [
  { name: 'success', requestId: 'p-ok', go: (ask) => ask({ cmd: ['true'] }), status: 'ok', outcome: 'exited' },
  {
    name: 'another exit',
    requestId: 'p-exit',
    go: (ask) => ask({ cmd: ['false'] }),
    status: 'error',
    outcome: 'exited',
  },
  {
    name: 'a signal',
    requestId: 'p-signal',
    go: (ask) => ask({ cmd: ['sh', '-c', 'kill -KILL $$'] }),
    status: 'error',
    outcome: 'signaled',
  },
  {
    name: 'the deadline',
    requestId: 'p-timeout',
    go: (ask) => ask({ ...SLEEP, timeout_s: 0.3 }),
    status: 'timeout',
    outcome: 'timed_out',
  },
  {
    name: 'DELETE',
    requestId: 'p-cancel',
    async go(ask) {
      const asked = ask(SLEEP);
      const execId = await running('p-cancel');
      // Twice at once: one of them may come too late.
      const path = `/workspaces/ws-demo/execs/${execId}`;
      await Promise.all([gateway.ask(path, { method: 'DELETE' }), gateway.ask(path, { method: 'DELETE' })]);
      await asked;
    },
    status: 'cancelled',
    outcome: 'cancelled',
  },
  {
    name: 'a caller who hangs up',
    requestId: 'p-hang-up',
    async go(ask) {
      const hangUp = new AbortController();
      const asked = ask(SLEEP, { signal: hangUp.signal });
      asked.catch(() => undefined);
      await running('p-hang-up');
      hangUp.abort();
    },
    status: 'cancelled',
    outcome: 'cancelled',
  },
  {
    name: 'a host that cannot be reached',
    requestId: 'p-unreachable',
    async go(ask) {
      await gateway.cutConnections();
      await gateway.fault('instance_stopped');
      await ask({ cmd: ['true'] });
      await gateway.clearFaults();
    },
    status: 'error',
    outcome: 'unreachable',
  },
  {
    name: 'a program that cannot start',
    requestId: 'p-start',
    go: (ask) => ask({ cmd: ['true'], cwd: '/no/such/folder' }),
    status: 'error',
    outcome: 'unreachable',
  },
  {
    name: 'a lost connection',
    requestId: 'p-lost',
    async go(ask) {
      const file = join(gateway.dataDir, 'p-lost');
      const asked = ask({ cmd: ['sh', '-c', 'touch "$0"; echo started; sleep 60', file] });
      await waitUntil('the program runs', () => existsSync(file));
      await gateway.cutConnections();
      await asked;
    },
    status: 'error',
    outcome: 'connection_lost',
  },
  {
    name: 'a gate that says no',
    requestId: 'p-refused',
    go: (ask) => ask({ cmd: ['true'] }, { workspace: 'ws-sandbox' }),
    status: 'refused',
    outcome: 'refused',
  },
];

describe('one exec, one row', () => {
  it.each(PATHS.map((path) => [path.name, path] as const))(
    'after %s',
    async (_name, { requestId, go, status, outcome }) => {
      await go((body, how) => gateway.exec(body, { ...how, headers: { 'x-request-id': requestId } }));
      expect(await rowsOf(requestId)).toEqual([
        expect.objectContaining({
          org_id: 'org-demo',
          activity_type: 'workspace_exec',
          status,
          response_body: expect.objectContaining({ outcome }),
          finished_at: expect.any(Date),
        }),
      ]);
    },
  );

  it('a dry run leaves none', async () => {
    const { status } = await gateway.exec({ cmd: ['true'], dry_run: true }, { headers: { 'x-request-id': 'p-dry' } });
    expect(status).toBe(200);
    expect(await gateway.sql('select id from activity_logs where request_id = $1', ['p-dry'])).toEqual([]);
  });

  it('says who did what, where, and how it ended', async () => {
    const { frames, headers } = await gateway.exec({
      cmd: ['sh', '-c', 'echo four; exit 7'],
      env: { SECOND: '2', FIRST: '1' },
      cwd: '/tmp',
      stdin: 'ü',
      timeout_s: 5,
    });
    const { exec_id: execId, duration_ms: durationMs } = terminalOf(frames);
    const requestId = String(headers['x-request-id']);
    await rowsOf(requestId);
    const [row] = await activity('limit=1');
    const actor = expect.stringMatching(/^org-token:[0-9a-f]{8}$/);
    const body = { actor, argv: ['sh', '-c', 'echo four; exit 7'], cwd: '/tmp', env_names: ['SECOND', 'FIRST'] };
    expect(row).toEqual({
      id: execId,
      org_id: 'org-demo',
      workspace_id: 'ws-demo',
      activity_type: 'workspace_exec',
      source_id: execId,
      target_id: 'ws-demo',
      method: 'exec',
      summary: 'sh -c echo four; exit 7',
      request_body: { ...body, stdin_bytes: 2, timeout_s: 5, driver: 'ec2' },
      response_body: {
        exit_code: 7,
        signal: null,
        outcome: 'exited',
        duration_ms: durationMs,
        stdout_bytes: 5,
        stderr_bytes: 0,
      },
      tool_trace: null,
      duration_ms: durationMs,
      status: 'error',
      error_detail: null,
      actor,
      request_id: requestId,
      replica: expect.any(String),
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      finished_at: expect.stringMatching(/Z$/),
      seq: expect.stringMatching(/^\d+$/),
    });
  });

  it('a finished row never changes', async () => {
    const { frames } = await gateway.exec({ cmd: ['true'] });
    const id = terminalOf(frames).exec_id;
    await waitUntil('its row is closed', async () => (await activity('limit=1'))[0]?.status === 'ok');
    for (const change of [`status = 'error'`, `status = 'running', finished_at = null`, `summary = 'x'`, `actor = 'x'`])
      await expect(gateway.sql(`update activity_logs set ${change} where id = $1`, [id])).rejects.toThrow(
        'never changes',
      );
    expect((await activity('limit=1'))[0]).toMatchObject({ id, status: 'ok', summary: 'true' });
  });
});

describe('the row comes first', () => {
  it('a program finds its own row, which says running', async () => {
    const cmd = [process.execPath, ROW_OF_EXEC, gateway.databaseUrl];
    const { frames } = await gateway.exec({ cmd });
    expect(outputOf(frames, 'stderr').toString()).toBe('');
    expect(outputOf(frames, 'stdout').toString()).toBe('running\n');
  });

  /** While the table is locked no row can be committed; `use` gets to know when a writer waits for the lock. */
  async function whileLocked(use: (waiting: () => Promise<void>, unlock: () => Promise<unknown>) => Promise<void>) {
    await withClient(gateway.databaseUrl, async (client: pg.Client) => {
      await client.query('begin; lock table activity_logs in share mode');
      const waiting = () =>
        waitUntil('the gateway waits for the lock', async () => {
          const { rows } = await client.query('select 1 from pg_locks where not granted');
          return rows.length > 0;
        }).then(() => undefined);
      await use(waiting, () => client.query('commit'));
    });
  }

  const count = async (what: 'logins' | 'channels') =>
    Object.values((await gateway.counters()).instances).reduce((sum, counts) => sum + counts[what], 0);

  it('on an open connection the program waits for it', async () => {
    await gateway.exec({ cmd: ['true'] });
    const file = join(gateway.dataDir, 'ran-warm');
    const channels = await count('channels');
    await whileLocked(async (waiting, unlock) => {
      const asked = gateway.exec({ cmd: ['touch', file] });
      await waiting();
      // A channel is open ahead; nothing has been asked to start on it.
      expect(await waitUntilStill('the host', () => existsSync(file))).toBe(false);
      expect(await count('channels')).toBe(channels);
      await unlock();
      expect(terminalOf((await asked).frames)).toMatchObject({ exit_code: 0 });
    });
    expect(existsSync(file)).toBe(true);
  });

  it('a row that cannot be committed in time: 503, nothing dialled, nothing run', async () => {
    await gateway.exec({ cmd: ['true'] });
    const logins = await count('logins');
    const [warm, cold] = [join(gateway.dataDir, 'never-warm'), join(gateway.dataDir, 'never-cold')];
    await whileLocked(async () => {
      const answers = await Promise.all([
        gateway.exec({ cmd: ['touch', warm] }, { headers: { 'x-request-id': 'locked-warm' } }),
        gateway.exec(
          { cmd: ['touch', cold] },
          { workspace: 'ws-fleet-01', headers: { 'x-request-id': 'locked-cold' } },
        ),
      ]);
      for (const { status, headers, body } of answers) {
        expect({ status, code: body.code }).toEqual({ status: 503, code: 'audit_unavailable' });
        expect(Number(headers['retry-after'])).toBeGreaterThan(0);
      }
    });
    // The next exec on the same connection has come and gone: whatever was on its way has arrived.
    await gateway.exec({ cmd: ['true'] });
    expect([existsSync(warm), existsSync(cold)]).toEqual([false, false]);
    expect(await count('logins')).toBe(logins);
    // Whatever became of the INSERTs, no row says that something runs.
    for (const requestId of ['locked-warm', 'locked-cold'])
      expect(
        (await gateway.sql('select status from activity_logs where request_id = $1', [requestId])).filter(
          ({ status }) => status !== 'error',
        ),
      ).toEqual([]);
  });
});

describe('without its database the gateway', () => {
  const name = () => new URL(gateway.databaseUrl).pathname.slice(1);
  const onCluster = (text: string, values: unknown[] = []) => {
    const url = new URL(gateway.databaseUrl);
    url.pathname = '/postgres';
    return runSql(url.href, text, values);
  };
  const goAway = async () => {
    await onCluster(`alter database ${name()} allow_connections false`);
    await onCluster('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name()]);
  };
  const comeBack = () => onCluster(`alter database ${name()} allow_connections true`);

  it('starts nothing and says so; what runs ends normally and is recorded when the database is back', async () => {
    const [go, never] = [join(gateway.dataDir, 'go'), join(gateway.dataDir, 'never')];
    const script = 'echo started; while [ ! -e "$0" ]; do sleep 0.05; done; echo done; exit 3';
    const runs = gateway.exec({ cmd: ['sh', '-c', script, go] }, { headers: { 'x-request-id': 'outlives' } });
    await running('outlives');
    const before = await gateway.counters();
    await goAway();
    try {
      for (const workspace of ['ws-demo', 'ws-fleet-02']) {
        const { status, headers, body } = await gateway.exec({ cmd: ['touch', never] }, { workspace });
        expect({ status, code: body.code }).toEqual({ status: 503, code: 'audit_unavailable' });
        expect(Number(headers['retry-after'])).toBeGreaterThan(0);
      }
      const change = await gateway.ask('/workspaces/ws-demo', { method: 'PATCH', body: { name: 'other' } });
      expect(change.body.code).toBe('audit_unavailable');
      const ready = await gateway.ask('/readyz', { token: null });
      expect(ready.status).toBe(503);
      expect(ready.body).toMatchObject({ ok: false, reasons: [expect.stringMatching(/^database: /)] });
      expect((await gateway.ask('/healthz', { token: null })).status).toBe(200);
      const { instances } = await gateway.counters();
      expect(instances).toEqual(before.instances);
      await gateway.exec({ cmd: ['true'] });
      await writeFile(go, '');
      const { status, frames } = await runs;
      expect(status).toBe(200);
      expect(outputOf(frames, 'stdout').toString()).toBe('started\ndone\n');
      expect(terminalOf(frames)).toMatchObject({ exit_code: 3, outcome: 'exited', complete: true });
    } finally {
      await comeBack();
    }
    expect(await rowsOf('outlives')).toMatchObject([
      { status: 'error', response_body: { exit_code: 3, stdout_bytes: 13 } },
    ]);
    await waitUntil('it is ready', async () => (await gateway.ask('/readyz', { token: null })).status === 200);
    expect(terminalOf((await gateway.exec({ cmd: ['true'] })).frames)).toMatchObject({ exit_code: 0 });
    expect(existsSync(never)).toBe(false);
  });
});

describe('what is never written down', () => {
  const CANARY = 'canary-5f1c';
  /** No argv of these holds a canary in one piece. */
  const print = (what: string) => `printf '%s-%s-${what}' canary 5f1c`;
  let serving: Serving;
  beforeAll(async () => {
    serving = await startServing({ env: { SALLYPORT_LOG_LEVEL: 'trace' } });
  });
  afterAll(() => serving.stop());

  it('output, stdin and environment values, on any path', async () => {
    const secret = { env: { SECRET: `${CANARY}-env` }, stdin: `${CANARY}-stdin` };
    const both = `${print('stdout')}; ${print('stderr')} >&2`;
    const { frames } = await serving.exec({ cmd: ['sh', '-c', `${both}; cat; printf %s "$SECRET"`], ...secret });
    // It is there to be found.
    expect(outputOf(frames, 'stdout').toString()).toBe(`${CANARY}-stdout${CANARY}-stdin${CANARY}-env`);
    expect(outputOf(frames, 'stderr').toString()).toBe(`${CANARY}-stderr`);
    const { lab } = serving;
    await Promise.all([
      serving.exec({ cmd: ['sh', '-c', `${both}; exit 9`], ...secret }, { headers: { accept: 'application/json' } }),
      serving.exec({ cmd: ['sh', '-c', `${both}; sleep 60`], timeout_s: 0.5, ...secret }),
      serving.exec({ cmd: ['sh', '-c', both], max_output_bytes: 3, ...secret }),
      serving.exec({ cmd: ['true'], cwd: '/no/such/folder', ...secret }),
      serving.exec({ cmd: ['true'], ...secret, env: { 'NOT A NAME': `${CANARY}-env` } }),
      serving.exec({ cmd: ['true'], ...secret, stdin: { base64: `${CANARY}-not-base64` } }),
      serving.exec({ cmd: ['true'], env: { SECRET: { inner: `${CANARY}-env` } } }),
      serving.exec(`{"cmd":["true"],"stdin":"${CANARY}-cut` as unknown as object),
    ]);
    await lab.fault('login_refused');
    await lab.cutConnections();
    expect((await serving.exec({ cmd: ['true'], ...secret })).status).toBe(502);
    await lab.clearFaults();
    const file = join(lab.dataDir, 'lost-runs');
    const lost = serving.exec({ cmd: ['sh', '-c', `${both}; touch "$0"; sleep 60`, file], ...secret });
    await waitUntil('it runs', () => existsSync(file));
    await lab.cutConnections();
    await lost;
    await waitUntil(
      'no row is running',
      async () => {
        const rows = await runSql(serving.databaseUrl, `select 1 from activity_logs where status = 'running'`);
        return rows.length === 0;
      },
      15_000,
    );
    const dump = await dumpDatabase(serving.databaseUrl);
    expect(dump).toContain('printf');
    expect(dump).toContain('SECRET');
    expect(dump).not.toContain(CANARY);
    expect(serving.program.stderr()).not.toBe('');
    expect(serving.program.stderr()).not.toContain(CANARY);
  });

  it('who could not say who he is: a line in the log, no row', async () => {
    const headers = { 'x-request-id': 'nobody-knows' };
    expect((await serving.ask('/workspaces/ws-1', { token: 'x', headers })).status).toBe(401);
    await waitUntil('it is logged', () => serving.program.stderr().includes('nobody-knows'));
    expect(await dumpDatabase(serving.databaseUrl)).not.toContain('nobody-knows');
  });

  it('tokens', async () => {
    const text = (await dumpDatabase(serving.databaseUrl)) + serving.program.stderr();
    for (const token of [serving.token, serving.adminToken, serving.token.split('.')[2] ?? ''])
      expect(text).not.toContain(token);
  });

  it('secrets in argv', async () => {
    const secrets: [string[], string][] = [
      [['mysql', '--password=hunter2-equals'], 'hunter2-equals'],
      [['mysql', '--password', 'hunter2-blank'], 'hunter2-blank'],
      [['curl', '-H', 'Authorization: Bearer hunter2-bearer'], 'hunter2-bearer'],
      [['psql', 'postgres://app:hunter2-url@db/app'], 'hunter2-url'],
      [['sh', '-c', 'PGPASSWORD=hunter2-script pg_dump'], 'hunter2-script'],
      [['aws', 'configure', 'set', 'x', 'AKIAIOSFODNN7EXAMPLE'], 'AKIAIOSFODNN7EXAMPLE'],
      [['echo', `-----BEGIN PRIVATE KEY-----\nhunter2-pem\n-----END PRIVATE KEY-----`], 'hunter2-pem'],
      [['echo', 'ghp_hunter2hunter2hunter2'], 'ghp_hunter2'],
    ];
    const answers = await Promise.all(secrets.map(([cmd]) => serving.exec({ cmd })));
    expect(answers.map(({ status }) => status)).toEqual(secrets.map(() => 200));
    const text = (await dumpDatabase(serving.databaseUrl)) + serving.program.stderr();
    for (const [cmd, secret] of secrets) {
      expect(text).toContain(cmd[0]);
      expect(text).not.toContain(secret);
    }
    expect(text).toContain('--password=***');
    const cmd = ['sh', '-c', 'sleep 60', '--token=hunter2-running'];
    const hangUp = new AbortController();
    const runs = serving.ask('/workspaces/ws-1/exec', { method: 'POST', body: { cmd }, signal: hangUp.signal });
    runs.catch(() => undefined);
    const shown = await waitUntil('it is listed', async () => {
      const { body } = await serving.ask('/workspaces/ws-1/execs');
      return (body.items as { argv: string[] }[])[0]?.argv;
    });
    hangUp.abort();
    expect(shown).toEqual(['sh', '-c', 'sleep 60', '--token=***']);
  });
});

describe('refusals', () => {
  it('of one token get sixty rows a minute', async () => {
    const body = { kind: 'org', name: 'loop', scopes: ['workspaces:read'], expires_in_s: 60 };
    const { token, id } = (await gateway.ask('/tokens', { method: 'POST', body })).body;
    const loop = { token: { raw: String(token) } };
    const answers = await Promise.all(Array.from({ length: 75 }, () => gateway.exec({ cmd: ['true'] }, loop)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([403]));
    const rows = await activity(`limit=500&status=refused&actor=org-token:${String(id).slice(0, 8)}`);
    expect(rows).toHaveLength(60);
  });
});

describe('any argv is storable', () => {
  it.each([
    ['three hundred emoji', ['echo', '😀'.repeat(300)]],
    ['backslashes and quotes', ['echo', '\\u0000 \\ " \' \\x00', '\u0001\u001b[31m\u007f']],
    ['text right to left', ['echo', 'שלום', '\u202e']],
    ['an argument as long as Linux takes', ['true', 'x'.repeat(131_000)]],
    ['256 arguments', ['true', ...Array.from({ length: 255 }, () => 'ü')]],
  ])('%s', async (_name, cmd) => {
    const { frames } = await gateway.exec({ cmd });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    await waitUntil('its row is closed', async () => (await activity('limit=1'))[0]?.status === 'ok');
    const [row] = await activity('limit=1');
    expect(row).toMatchObject({ id: terminalOf(frames).exec_id, request_body: { argv: cmd } });
    const summary = String(row?.summary);
    expect([...summary].length).toBeLessThanOrEqual(200);
    // Cut between characters: the beginning of what was run, and no half of anything.
    expect(cmd.join(' ').startsWith(summary.replace(/…$/, ''))).toBe(true);
    expect(summary).not.toMatch(/\p{Surrogate}/u);
  });
});

describe('lists', () => {
  const ORG = 'org-many';
  const ROWS = 1203;
  let token: Ask['token'];
  beforeAll(async () => {
    await gateway.ask(`/orgs/${ORG}`, { method: 'PUT', token: 'admin', body: { name: 'Many' } });
    const body = { kind: 'org', org_id: ORG, name: 'lists', scopes: ['activity:read'], expires_in_s: 600 };
    token = { raw: String((await gateway.ask('/tokens', { method: 'POST', token: 'admin', body })).body.token) };
    await gateway.sql('delete from activity_logs where org_id = $1', [ORG]);
    await gateway.sql(
      `insert into activity_logs
         (id, org_id, workspace_id, activity_type, method, summary, actor, request_id, replica, status, created_at, finished_at)
       select gen_random_uuid(), $1, 'ws-' || n % 3, case when n % 2 = 0 then 'workspace_exec' else 'token_create' end,
         'exec', 'row ' || n, 'actor-' || n % 5, 'r', 'test', case when n % 4 = 0 then 'ok' else 'refused' end,
         timestamptz '2024-01-01 00:00Z' + n * interval '1 minute', now()
       from generate_series(1, ${ROWS}) as n order by n`,
      [ORG],
    );
  });
  const list = (query: string, headers = {}) => gateway.ask(`/activity?${query}`, { token, headers });
  const summaries = ({ body }: Answer) => (body.items as { summary: string }[]).map(({ summary }) => summary);
  const numbers = (from: number, count: number, step = 1) =>
    Array.from({ length: count }, (_, index) => `row ${from - index * step}`);

  it('newest first, a hundred at a time, at most five hundred', async () => {
    expect(summaries(await list(''))).toEqual(numbers(ROWS, 100));
    expect(summaries(await list('limit=7'))).toEqual(numbers(ROWS, 7));
    expect(summaries(await list('limit=100000'))).toHaveLength(500);
  });

  it('pages join without a gap or a double, whatever is written meanwhile', async () => {
    const seen: string[] = [];
    let after: unknown = '';
    do {
      const page: Answer = await list(`limit=250${after === '' ? '' : `&after=${after}`}`);
      seen.push(...summaries(page));
      after = page.body.next;
      expect(page.headers.link).toEqual(after === null ? undefined : expect.stringContaining(`after=${after}`));
      await gateway.sql(
        `insert into activity_logs (id, org_id, activity_type, method, summary, actor, request_id, replica, status, finished_at)
         values (gen_random_uuid(), $1, 'x', 'x', 'newer', 'x', 'r', 'test', 'ok', now())`,
        [ORG],
      );
    } while (after !== null);
    expect(seen).toEqual(numbers(ROWS, ROWS));
    await gateway.sql(`delete from activity_logs where org_id = $1 and summary = 'newer'`, [ORG]);
  });

  it.each([
    ['status=ok', 'row 1200', 300],
    ['type=workspace_exec', 'row 1202', 601],
    ['actor=actor-2', 'row 1202', 241],
    ['since=2024-01-01T20:00:00Z', `row ${ROWS}`, 4],
    ['until=2024-01-01T00:05:00Z', 'row 4', 4],
    ['since=2024-01-01T01:00:00%2B01:00&until=2024-01-01T00:10:00Z', 'row 9', 9],
    ['status=ok&type=workspace_exec&actor=actor-0', 'row 1200', 60],
    ['actor=nobody', undefined, 0],
  ])('filter %s', async (query, first, count) => {
    const found: string[] = [];
    for (let after: unknown = ''; after !== null; ) {
      const page: Answer = await list(`${query}&limit=500${after === '' ? '' : `&after=${after}`}`);
      found.push(...summaries(page));
      after = page.body.next;
    }
    expect({ first: found[0], count: found.length }).toEqual({ first, count });
  });

  it('of a workspace', async () => {
    for (const workspace of ['ws-demo', 'ws-sandbox']) await gateway.exec({ cmd: ['true'] }, { workspace });
    const { body } = await gateway.ask('/workspaces/ws-demo/activity?limit=500');
    const items = body.items as { workspace_id: string }[];
    expect(items.length).toBeGreaterThan(0);
    expect(new Set(items.map((item) => item.workspace_id))).toEqual(new Set(['ws-demo']));
  });

  it.each(['status=fine', 'limit=0', 'limit=x', 'after=x', 'since=yesterday', 'unknown=1', 'status=ok&status=error'])(
    'a query that means nothing is refused: %s',
    async (query) => {
      const { status, body } = await list(query);
      expect({ status, code: body.code }).toEqual({ status: 400, code: 'invalid_request' });
    },
  );

  it('one line per row, where asked for', async () => {
    const { headers, frames } = await list('limit=3', { accept: 'application/x-ndjson' });
    expect(headers['content-type']).toBe('application/x-ndjson');
    expect(headers.link).toContain('after=');
    expect(frames).toEqual((await list('limit=3')).body.items);
  });

  it('a table, where asked for, that no spreadsheet runs', async () => {
    const formulas = ['=HYPERLINK("http://x","y")', '+1+1', '-1+1', '@SUM(1)', '\t=1', 'a,"b"\r\nc'];
    const { frames } = await gateway.exec({ cmd: ['true'] });
    expect(terminalOf(frames)).toMatchObject({ exit_code: 0 });
    for (const formula of formulas) await gateway.exec({ cmd: [formula] });
    const { headers, text } = await gateway.ask(`/workspaces/ws-demo/activity?limit=${formulas.length}`, {
      headers: { accept: 'text/csv' },
    });
    expect(headers['content-type']).toBe('text/csv; charset=utf-8');
    const [head = [], ...rows] = parseCsv(text);
    expect(head).toContain('summary');
    const column = head.indexOf('summary');
    const cells = rows.map((row) => row[column]);
    expect(cells).toEqual(
      formulas.toReversed().map((formula) => (/^\s*[=+\-@]/.test(formula) ? `'${formula}` : formula)),
    );
    expect(rows.every((row) => row.length === head.length)).toBe(true);
    // Every cell, whoever wrote it: request bodies hold the same argv.
    expect(rows.flat().filter((cell) => /^[\t\r\n]|^\s*[=+\-@]/.test(cell))).toEqual([]);
  });
});

/** RFC 4180. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [[]];
  const cells = text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/gy);
  for (const [, quoted, plain, end] of cells) {
    rows.at(-1)?.push(quoted?.replaceAll('""', '"') ?? plain ?? '');
    if (end === '\r\n') rows.push([]);
  }
  expect(rows.pop()).toEqual([]);
  return rows;
}
