import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readVersion } from '../../src/cli/version.ts';
import { type Answer, sendJson, sendProblem, startWireServer, type WireServer } from '../client/wire-server.ts';
import { cli, cliHere, type Ended, startShell } from './process.ts';

const SERVE = { serve: { description: 'run the gateway', run: async () => 0 } };

let server: WireServer;
let answer: Answer = (response) => sendJson(response, {});

beforeAll(async () => {
  server = await startWireServer((response, asked) => answer(response, asked));
});
afterEach(() => {
  server.asked.length = 0;
});
afterAll(() => server.close());

/** Runs a verb against one answer. */
async function run(args: readonly string[], document: unknown): Promise<{ text: string; ended: Ended }> {
  answer = (response) => sendJson(response, document);
  const ended = await cliHere(args, { url: server.url });
  return { text: ended.stdout.toString('utf8'), ended };
}

const asked = () => server.asked.map(({ method, path, body }) => [method, path, body === '' ? null : JSON.parse(body)]);

const WORKSPACE = {
  id: 'ws-1',
  org_id: 'o-1',
  name: 'one',
  driver: 'ec2',
  instance_id: 'i-1',
  region: 'eu-west-1',
  os_user: 'ubuntu',
  tier: 3,
  labels: { env: 'prod', team: 'a' },
  status: 'active',
};

describe('token', () => {
  it('create prints the token alone on stdout, the rest on stderr', async () => {
    const token = { id: 't-1', token: 'ey.J.x', expires_at: '2030-01-01T00:00:00.000Z' };
    const words = ['--workspace', 'ws-1', '--scope', 'exec', 'activity:read', '--expires-in', '24h'];
    const allow = ['--allow', 'systemctl  status *', '--allow', '["echo","a b"]'];
    const { text, ended } = await run(['token', 'create', 'ci', ...words, ...allow], token);
    expect(ended).toMatchObject({ code: 0, stderr: expect.stringMatching(/^sallyport: token t-1, .*2030-01-01/) });
    expect(text).toBe('ey.J.x\n');
    expect(asked()).toEqual([
      [
        'POST',
        '/tokens',
        {
          kind: 'workspace',
          workspace_id: 'ws-1',
          name: 'ci',
          scopes: ['exec', 'activity:read'],
          allow: [
            ['systemctl', 'status', '*'],
            ['echo', 'a b'],
          ],
          expires_in_s: 86_400,
        },
      ],
    ]);
  });

  it('create for an org names the org, also in the header', async () => {
    await run(['token', 'create', 'ops', '--org', 'o-1', '--scope', 'exec'], { id: 't', token: 'x' });
    expect(asked()[0]?.[2]).toEqual({ kind: 'org', org_id: 'o-1', name: 'ops', scopes: ['exec'] });
    expect(server.asked[0]?.headers['x-org-id']).toBe('o-1');
  });

  it.each([
    [['--expires-in', 'soon'], /--expires-in takes a time/],
    [['--allow', '[1]'], /--allow takes words or a JSON array of strings/],
    [['--allow', '[oops'], /--allow takes words or a JSON array of strings/],
    [['--allow', ''], /--allow takes words or a JSON array of strings/],
  ])('create refuses %j', async (words, reason) => {
    const { ended } = await run(['token', 'create', 'x', ...words], {});
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringMatching(reason) });
    expect(asked()).toEqual([]);
  });

  it('list is a table, revoke says what it did', async () => {
    const token = {
      id: 't-1',
      kind: 'org',
      workspace_id: null,
      name: 'ci',
      scopes: ['exec', 'diagnose'],
      expires_at: 'E',
    };
    const { text } = await run(['token', 'list'], { items: [token], next: null });
    expect(text).toBe(
      'ID   KIND  WORKSPACE  NAME  SCOPES         EXPIRES  REVOKED\nt-1  org   -          ci    exec,diagnose  E        -\n',
    );
    expect((await run(['token', 'revoke', 't-1'], {})).text).toBe('revoked t-1\n');
    expect((await run(['token', 'revoke', '--json', 't-1'], {})).text).toBe('{"id":"t-1","revoked":true}\n');
    expect(asked().map(([method, path]) => `${method} ${path}`)).toEqual([
      'GET /tokens?limit=100',
      'DELETE /tokens/t-1',
      'DELETE /tokens/t-1',
    ]);
  });
});

describe('workspace', () => {
  it('set puts what the options say and shows the row', async () => {
    const identity = [
      '--org',
      'o-1',
      '--name',
      'one',
      '--driver',
      'ec2',
      '--instance-id',
      'i-1',
      '--region',
      'eu-west-1',
    ];
    const rest = ['--os-user', 'ubuntu', '--tier', '3', '--label', 'env=prod', '--label', 'expr=a=b'];
    const { text } = await run(['workspace', 'set', 'ws-1', ...identity, ...rest], WORKSPACE);
    expect(asked()).toEqual([
      [
        'PUT',
        '/workspaces/ws-1',
        {
          org_id: 'o-1',
          name: 'one',
          driver: 'ec2',
          instance_id: 'i-1',
          region: 'eu-west-1',
          os_user: 'ubuntu',
          tier: 3,
          labels: { env: 'prod', expr: 'a=b' },
        },
      ],
    ]);
    expect(text).toBe(
      'ID    ORG  NAME  DRIVER  TARGET         USER    TIER  LABELS           STATUS\n' +
        'ws-1  o-1  one   ec2     i-1@eu-west-1  ubuntu  3     env=prod,team=a  active\n',
    );
  });

  it.each([
    [{ driver: 'ssh', host: 'h', port: 22 }, ' h:22 '],
    [{ driver: 'docker', container: 'box' }, ' box '],
    [{ driver: 'local' }, ' - '],
  ])('a host of another driver is shown by its address: %j', async (target, shown) => {
    const { text } = await run(['workspace', 'get', 'x'], { ...WORKSPACE, ...target });
    expect(text).toContain(shown);
  });

  it('tier 0 is a tier, and what is not given is not sent', async () => {
    await run(['workspace', 'set', 'x', '--driver', 'docker', '--container', 'box', '--tier', '0'], WORKSPACE);
    expect(asked()).toEqual([['PUT', '/workspaces/x', { driver: 'docker', container: 'box', tier: 0 }]]);
  });

  it('rename and delete', async () => {
    await run(['workspace', 'rename', 'ws-1', 'new name'], WORKSPACE);
    expect((await run(['workspace', 'delete', 'ws-1'], {})).text).toBe('deleted ws-1\n');
    expect(asked()).toEqual([
      ['PATCH', '/workspaces/ws-1', { name: 'new name' }],
      ['DELETE', '/workspaces/ws-1', null],
    ]);
  });

  it('text of the gateway cannot drive the terminal', async () => {
    const { text } = await run(['workspace', 'get', 'x'], { ...WORKSPACE, name: '\u001b[2J\nroot' });
    expect(text).toContain('\\u001b[2J\\nroot');
    expect(text.split('\n')).toHaveLength(3);
  });

  it.each([
    ['--tier', 'three'],
    ['--port', '-1'],
    ['--label', 'novalue'],
  ])('set refuses %s %s', async (option, value) => {
    const { ended } = await run(['workspace', 'set', 'x', option, value], {});
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringMatching(new RegExp(`${option} takes`)) });
    expect(asked()).toEqual([]);
  });
});

it('org: every verb', async () => {
  const org = { id: 'o-1', name: 'Org', frozen: true };
  expect((await run(['org', 'list'], { items: [org], next: null })).text).toBe('ID   NAME  FROZEN\no-1  Org   yes\n');
  expect((await run(['org', 'get', 'o-1', '--json'], org)).text).toBe(`${JSON.stringify(org)}\n`);
  await run(['org', 'set', 'o-1', '--name', 'Org'], org);
  await run(['org', 'freeze', 'o-1'], org);
  await run(['org', 'unfreeze', 'o-1'], org);
  expect(asked()).toEqual([
    ['GET', '/orgs?limit=500', null],
    ['GET', '/orgs/o-1', null],
    ['PUT', '/orgs/o-1', { name: 'Org' }],
    ['POST', '/orgs/o-1/freeze', null],
    ['POST', '/orgs/o-1/unfreeze', null],
  ]);
});

it('org: people in it', async () => {
  const person = { org_id: 'o-1', sub: 'auth0|ada', frozen: true };
  const { text } = await run(['org', 'frozen-people', 'o-1'], { items: [person], next: null });
  expect(text).toBe('ORG  SUB        FROZEN\no-1  auth0|ada  yes\n');
  expect((await run(['org', 'freeze-person', 'o-1', 'auth0|ada', '--json'], person)).text).toBe(
    `${JSON.stringify(person)}\n`,
  );
  await run(['org', 'unfreeze-person', 'o-1', 'a/b c'], person);
  expect(asked()).toEqual([
    ['GET', '/orgs/o-1/people?limit=500', null],
    ['POST', '/orgs/o-1/people/auth0%7Cada/freeze', null],
    ['POST', '/orgs/o-1/people/a%2Fb%20c/unfreeze', null],
  ]);
});

it('freeze and unfreeze are those of org', async () => {
  const org = { id: 'o-1', name: 'Org', frozen: true };
  expect((await run(['freeze', 'o-1'], org)).text).toBe('ID   NAME  FROZEN\no-1  Org   yes\n');
  expect((await run(['unfreeze', 'o-1', '--json'], org)).text).toBe(`${JSON.stringify(org)}\n`);
  expect(asked()).toEqual([
    ['POST', '/orgs/o-1/freeze', null],
    ['POST', '/orgs/o-1/unfreeze', null],
  ]);
});

describe('activity', () => {
  it('asks for what the options say', async () => {
    const words = ['--status', 'ok', '--type', 'workspace_exec', '--actor', 'admin-token', '--limit', '7'];
    const before = Date.now();
    await run(['activity', 'ws-1', ...words, '--since', '2h', '--until', '2030-01-01'], { items: [], next: null });
    await run(['activity'], { items: [], next: null });
    const query = new URL(server.asked[0]?.path ?? '', server.url);
    expect(query.pathname).toBe('/workspaces/ws-1/activity');
    const { since, ...rest } = Object.fromEntries(query.searchParams);
    expect(rest).toEqual({
      status: 'ok',
      type: 'workspace_exec',
      actor: 'admin-token',
      limit: '7',
      until: '2030-01-01T00:00:00.000Z',
    });
    expect(Math.abs(Date.parse(since ?? '') - (before - 7_200_000))).toBeLessThan(5_000);
    expect(server.asked[1]?.path).toBe('/activity?limit=100');
  });

  it('--limit goes over pages, and what is left out is said', async () => {
    answer = (response, { path }) => {
      const size = Number(new URL(path, server.url).searchParams.get('limit'));
      const items = Array.from({ length: size }, (_, index) => ({ id: `${index}`, summary: 'ls' }));
      sendJson(response, { items, next: `c${size}` });
    };
    const ended = await cliHere(['activity', '--limit', '501'], { url: server.url });
    expect(ended.stderr).toMatch(/there are more than these 501/);
    expect(ended.stdout.toString().split('\n')).toHaveLength(501 + 2);
    expect(server.asked.map(({ path }) => path)).toEqual(['/activity?limit=500', '/activity?limit=1&after=c500']);
    const json = await cliHere(['activity', '--limit', '1', '--json'], { url: server.url });
    expect(JSON.parse(json.stdout.toString())).toEqual({ items: [{ id: '0', summary: 'ls' }], next: 'c1' });
  });

  it.each([
    [['--since', 'yesterday'], /--since takes an ISO time/],
    [['--limit', '0'], /--limit takes a whole number/],
  ])('refuses %j', async (words, reason) => {
    const { ended } = await run(['activity', ...words], {});
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringMatching(reason) });
  });
});

describe('every verb', () => {
  it('a refusal is one line on stderr, code 1, and the problem with --json', async () => {
    answer = (response) => sendProblem(response, 403, { code: 'scope_missing', detail: 'needs tokens:write' });
    const plain = await cliHere(['token', 'list'], { url: server.url });
    expect(plain).toMatchObject({ code: 1, stderr: 'sallyport: needs tokens:write (scope_missing)\n' });
    expect(plain.stdout).toHaveLength(0);
    const json = await cliHere(['token', 'list', '--json'], { url: server.url });
    expect(json.code).toBe(1);
    expect(JSON.parse(json.stdout.toString())).toMatchObject({ code: 'scope_missing', status: 403 });
  });

  it('without an address nothing is asked', async () => {
    expect(await cliHere(['org', 'list'])).toMatchObject({ code: 1, stderr: expect.stringMatching(/SALLYPORT_URL/) });
  });

  it.each([
    [['frobnicate'], /^sallyport: unknown command 'frobnicate'/],
    [['token', 'frobnicate'], /unknown command 'frobnicate'/],
    [['token', 'create'], /missing required argument 'name'/],
    [['freeze'], /missing required argument 'id'/],
    [['org', 'set', 'o-1'], /required option '--name/],
    [['org', 'list', 'extra'], /too many arguments/],
    [[], /Usage: sallyport/],
    [['token'], /Usage: sallyport token/],
  ])('%j is wrong usage: code 2, said on stderr', async (args, reason) => {
    const ended = await cliHere(args, { url: server.url });
    expect(ended).toMatchObject({ code: 2, stderr: expect.stringMatching(reason) });
    expect(ended.stdout).toHaveLength(0);
  });

  it.each([
    [['--help'], /Commands:[\s\S]*exec[\s\S]*serve +run the gateway/],
    [['help'], /Commands:/],
    [['help', 'exec'], /Usage: sallyport exec [\s\S]*Exit status/],
    [['exec', '--help'], /Usage: sallyport exec/],
    [['help', 'token', 'create'], /Usage: sallyport token create/],
  ])('%j is help on stdout', async (args, text) => {
    const ended = await cliHere(args, {}, SERVE);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout.toString()).toMatch(text);
  });

  it('a verb of the server gets what follows it, also for help', async () => {
    const served = await cli(['serve', '--port', '1', '--', 'x']);
    expect(served).toMatchObject({ code: 7 });
    expect(served.stdout.toString()).toBe('serve ["--port","1","--","x"]\n');
    expect((await cli(['help', 'serve'])).stdout.toString()).toBe('serve ["--help"]\n');
  });

  it('the version is that of the package', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
    expect(readVersion()).toBe(version);
    const { code, stdout } = await cliHere(['--version']);
    expect({ code, text: stdout.toString() }).toEqual({ code: 0, text: `${version}\n` });
  });

  it('a list into a closed pipe ends quietly with 141', async () => {
    const items = Array.from({ length: 500 }, (_, index) => ({ id: `${index}`, summary: 'x'.repeat(1_000) }));
    answer = (response) => sendJson(response, { items, next: null });
    const { ended } = startShell(`{ $0 activity; echo "code $?" >&2; } | head -c 1`, { url: server.url });
    expect(await ended).toMatchObject({ stderr: 'code 141\n' });
  });
});
