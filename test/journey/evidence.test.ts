/** `sallyport audit` as an operator runs it: beside a gateway, and on what it has left. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newSigner, type Signer, spoil } from '../support/evidence.ts';
import { outputOf } from '../support/gateway.ts';
import { builtProgram, runProgram } from '../support/program.ts';
import { type Serving, startServing } from '../support/serving.ts';
import { runSql } from '../support/sql.ts';
import { waitUntil } from '../support/wait.ts';

const RECHECK = fileURLToPath(new URL('../fixtures/verify-export.mjs', import.meta.url));
const CANARY = 'canary-7f3a';
const LONG_ARGUMENT = 100_000;

let serving: Serving;
let signer: Signer;
let folder: string;
let keyFile: string;
let logFile: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'evidence-'));
  signer = await newSigner();
  keyFile = join(folder, 'public.pem');
  logFile = join(folder, 'gateway.log');
  await writeFile(keyFile, signer.publicPem);
  serving = await startServing({ env: { SALLYPORT_SIGNING_KEY: signer.pem } });
  // Put together by the program, so that it stands in no argument.
  const cmd = ['sh', '-c', 'printf %s- canary; printf 7f3a; cat; printenv SECRET'];
  for (let index = 0; index < 3; index += 1)
    expect(
      outputOf((await serving.exec({ cmd, stdin: CANARY, env: { SECRET: CANARY } })).frames, 'stdout').toString(),
    ).toBe(`${CANARY}${CANARY}${CANARY}\n`);
  // Two lines of an export that no pipe holds with what `head` has read (64 KiB, pipe(7)).
  for (let index = 0; index < 2; index += 1)
    expect((await serving.exec({ cmd: ['true', 'x'.repeat(LONG_ARGUMENT)] })).status).toBe(200);
  // In one statement, so that they are sealed together and the first checkpoint stands above both.
  await runSql(
    serving.databaseUrl,
    `insert into activity_logs
       (id, org_id, activity_type, method, summary, actor, request_id, replica, status, created_at, finished_at)
     select gen_random_uuid(), 'org-old', 'x', 'x', 'x', 'x', 'r', 'test', 'ok', '2020-01-01', '2020-01-01'
     from generate_series(1, 2)`,
  );
  const sealed = () =>
    runSql(
      serving.databaseUrl,
      `select from audit_unsealed union all select from activity_logs where status = 'running'`,
    );
  await waitUntil('everything is sealed', async () => (await sealed()).length === 0, 5_000);
  const logged = (org: string) => new RegExp(`"org":"${org}".*"audit checkpoint"`).test(serving.program.stderr());
  await waitUntil('checkpoints are in the log', () => logged('org-1') && logged('org-old'), 30_000);
  await writeFile(logFile, serving.program.stderr());
}, 90_000);
afterAll(async () => {
  await serving.stop();
  await rm(folder, { recursive: true });
});

async function audit(args: string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await runProgram(['audit', ...args], {
    env: { DATABASE_URL: serving.databaseUrl, ...env },
    cwd: folder,
  });
  return { code, out: stdout.toString(), err: stderr };
}
const verify = (...args: string[]) => audit(['verify', '--public-key', keyFile, ...args]);

async function recheck(input: string): Promise<{ entries: number; signatures: number }> {
  return await new Promise((resolve, reject) => {
    const child = execFile(process.execPath, [RECHECK, keyFile], (error, stdout) =>
      error === null ? resolve(JSON.parse(stdout)) : reject(error),
    );
    child.stdin?.end(input);
  });
}

describe('while the gateway runs', () => {
  it('verify with its public key says that all is right, and what it looked at', async () => {
    const { code, out, err } = await verify('--checkpoint', logFile);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(
      /^org org-1: positions 1 to \d+; \d+ entries and \d+ rows checked; good checkpoints: 1, the last at \d+; not sealed yet: 0$/m,
    );
    expect(out).toMatch(/the given checkpoint at position \d+ was looked at/);
    expect(out.trimEnd().split('\n').at(-1)).toBe('the evidence is whole');
  });

  it('verify takes the signing key as the gateway has it, one line of the log, and one org', async () => {
    const line = /^.*"audit checkpoint".*$/m.exec(serving.program.stderr())?.[0] ?? '';
    const { org } = JSON.parse(line);
    const args = ['verify', '--org', org, '--checkpoint', line, '--json'];
    const { code, out } = await audit(args, { SALLYPORT_SIGNING_KEY: signer.pem });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      verdict: 'right',
      findings_total: 0,
      not_checked: [],
      orgs: [{ org_id: org, checkpoints: { given: expect.any(Number) }, unsealed: { entries: 0, oldest_at: null } }],
    });
  });

  it('without a key nothing wrong is found and that is no success', async () => {
    const { code, out } = await audit(['verify']);
    expect(code).toBe(3);
    expect(out).toContain('not checked: org org-1: signatures: no key was given');
    expect(out).toContain('nothing wrong was found, but not everything could be checked');
    expect(out).not.toContain('whole');
  });

  it('an export can be rechecked by thirty lines that know nothing of ours, and not when a byte was changed', async () => {
    const { code, out } = await audit(['export', '--org', 'org-1']);
    expect(code).toBe(0);
    const lines = out.trimEnd().split('\n');
    expect(await recheck(out)).toEqual({ entries: lines.length, signatures: 1 });
    await expect(recheck(out.replace('workspace_exec', 'workspace_exex'))).rejects.toThrow('position');
    await expect(recheck(lines.filter((_, index) => index !== 2).join('\n'))).rejects.toThrow('follows nothing');
    const later = await audit(['export', '--org', 'org-1', '--since', JSON.parse(lines[3] ?? '').at]);
    expect(later.out).toBe(`${lines.slice(3).join('\n')}\n`);
    expect((await audit(['export', '--org', 'org-1', '--until', '2020-01-01'])).out).toBe('');
  });

  it('an export holds neither output nor stdin nor values of the environment', async () => {
    const { out } = await audit(['export', '--org', 'org-1']);
    expect(out).toContain('SECRET');
    expect(out).not.toContain(CANARY);
  });

  it('as CSV it has the same cells', async () => {
    const { out } = await audit(['export', '--org', 'org-1', '--format', 'csv']);
    const entries = (await audit(['export', '--org', 'org-1'])).out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    const rows = out.trimEnd().split('\r\n').slice(1);
    expect(rows).toHaveLength(entries.length);
    for (const [index, { hash, body }] of entries.entries()) {
      expect(rows[index]).toContain(`,${hash},`);
      expect(rows[index]).toContain(`"${body.replaceAll('"', '""')}"`);
    }
  });

  it.each(['ndjson', 'csv'])('an export as %s whose reader has enough ends quietly with 141', async (format) => {
    const script = `set -o pipefail; "$@" | head -1; echo "code $?"`;
    const program = [process.execPath, await builtProgram(), 'audit', 'export', '--org', 'org-1', '--format', format];
    const { stdout, stderr } = await promisify(execFile)('/bin/bash', ['--norc', '-c', script, 'bash', ...program], {
      env: { PATH: process.env.PATH, DATABASE_URL: serving.databaseUrl },
    });
    const [whole = ''] = (await audit(['export', '--org', 'org-1', '--format', format])).out.split('\n');
    expect({ stdout, stderr }).toEqual({ stdout: `${whole}\ncode 141\n`, stderr: '' });
  });

  it.each([
    [['vertify'], 'not "vertify"'],
    [['verify', '--orgs', 'x'], '--orgs'],
    [['verify', '--org', 'nobody'], 'org nobody has neither audit rows nor evidence'],
    [['verify', '--public-key', '/nonexistent'], '--public-key /nonexistent'],
    [['verify', '--checkpoint', '/nonexistent'], '--checkpoint needs a key'],
    [['export'], '--org ID is needed'],
    [['export', '--org', 'org-1', '--format', 'xml'], 'ndjson or csv, not "xml"'],
    [['export', '--org', 'org-1', '--since', 'yesterday'], 'not "yesterday"'],
    [['prune', '--all'], '--before TIME is needed'],
    [['prune', '--all', '--before', '2999-01-01'], 'at least 24 hours ago'],
    [['prune', '--all', '--before', '2020-01-01'], 'prune needs a key'],
  ])('wrong usage ends with 2 and what was expected: %j', async (args, sentence) => {
    const { code, err } = await audit(args);
    expect(code).toBe(2);
    expect(err).toContain(sentence);
  });

  it('a database that cannot be reached ends with 2 and names the setting', async () => {
    const { code, err } = await audit(['verify'], { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' });
    expect(code).toBe(2);
    expect(err).toMatch(/DATABASE_URL: the database cannot be read: .*ECONNREFUSED/);
  });

  it('prune deletes nothing that is not old', async () => {
    const { code, out } = await audit(['prune', '--org', 'org-1', '--before', '2020-01-01', '--public-key', keyFile]);
    expect({ code, out }).toEqual({ code: 0, out: 'org org-1: nothing to do: no row is that old\n' });
  });
});

describe('prune', () => {
  const prune = (...args: string[]) => audit(['prune', '--before', '2021-01-01', '--public-key', keyFile, ...args]);

  it('with --dry-run needs no role that may delete', async () => {
    const role = `reader_${randomBytes(6).toString('hex')}`;
    await runSql(
      serving.databaseUrl,
      `create role ${role} login; grant select on all tables in schema public to ${role}`,
    );
    const url = new URL(serving.databaseUrl);
    url.username = role;
    const args = ['prune', '--org', 'org-old', '--before', '2021-01-01', '--public-key', keyFile, '--dry-run'];
    const told = await audit(args, {
      DATABASE_URL: url.href,
      SALLYPORT_MIGRATE_DATABASE_URL: 'postgres://x@127.0.0.1:1/x',
    });
    await runSql(serving.databaseUrl, `drop owned by ${role}; drop role ${role}`);
    expect(told).toMatchObject({ code: 0, out: expect.stringContaining('org-old: would delete 2 rows'), err: '' });
  });

  it('with --dry-run says what it would delete and deletes nothing; without it does just that', async () => {
    expect(await prune('--all', '--dry-run')).toEqual({
      code: 0,
      out:
        'org org-1: nothing to do: no row is that old\n' +
        'org org-old: would delete 2 rows and 2 entries; the chain would start at position 2\n',
      err: '',
    });
    const told = await prune('--org', 'org-old', '--dry-run', '--json');
    expect(JSON.parse(told.out)).toEqual({
      dry_run: true,
      orgs: [
        {
          org_id: 'org-old',
          would_prune: { position: 2, activities: 2, entries: 2 },
          refused: false,
          reason: null,
        },
      ],
    });
    expect(await verify('--org', 'org-old')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/positions 1 to 2; 2 entries and 2 rows checked/),
    });
    expect((await prune('--org', 'org-old')).out).toBe(
      'org org-old: deleted 2 rows and 2 entries; the chain now starts at position 2\n',
    );
  });
});

describe('what somebody does who owns the database', () => {
  it('is named: activity and position, with exit code 1; a prune is refused', async () => {
    const [row] = await runSql(
      serving.databaseUrl,
      `select a.id, s.position from activity_logs a join audit_seals s on s.activity_id = a.id
       where method = 'exec' order by s.position desc limit 1`,
    );
    await spoil(
      serving.databaseUrl,
      `update activity_logs set summary = 'ls' where id = '${row?.id}'`,
      `update activity_logs set finished_at = '2020-01-01', created_at = '2020-01-01' where method <> 'exec'`,
    );
    const { code, out } = await verify('--org', 'org-1');
    expect(code).toBe(1);
    expect(out).toContain(`edited: activity ${row?.id}, position ${row?.position}, its row in activity_logs`);
    expect(out).toContain('THE EVIDENCE IS NOT WHOLE');
    const pruned = await audit(['prune', '--org', 'org-1', '--before', '2021-01-01', '--public-key', keyFile]);
    expect(pruned.code).toBe(1);
    expect(pruned.out).toContain('REFUSED');
  });

  it('a history that is gone as a whole is missed by the checkpoint in the log', async () => {
    const tables = ['activity_logs', 'audit_entries', 'audit_seals', 'audit_checkpoints', 'audit_unsealed'];
    await spoil(serving.databaseUrl, ...tables.map((table) => `delete from ${table}`));
    expect((await verify('--org', 'org-1')).code).toBe(2);
    const { code, out } = await verify('--checkpoint', logFile);
    expect(code).toBe(1);
    expect(out).toMatch(/removed: position \d+, the given checkpoint was made at this position; the chain ends at 0/);
  });

  it('a line of the log that somebody else wrote counts as wrong', async () => {
    const line = /^.*"audit checkpoint".*$/m.exec(serving.program.stderr())?.[0] ?? '';
    const elsewhere = line.replace(/"position":(\d+)/, (_, position) => `"position":${Number(position) + 1}`);
    const { code, out } = await verify('--checkpoint', elsewhere);
    expect(code).toBe(1);
    expect(out).toContain('1 of the given checkpoints are not signed by the key that they name');
  });
});
