/**
 * What tenants, hosts and callers write cannot drive a terminal or forge a line, wherever our own text shows it: tables,
 * problems, diagnoses, usage errors, the log. A program's own output is nobody's business and passes as it is.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { builtProgram, type Ended, runProgram } from '../support/program.ts';
import { waitUntil } from '../support/wait.ts';

/** A window title, a colour, the same by a C1 control, a turned direction (twice), a forged line, a rubout. */
const EVIL = '\u001b]0;owned\u0007\u001b[31m\u009b31m\u202edetrever\u202c\u061cx\nforged line\r\u007f';
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
const ACTED_ON = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

let gateway: TestGateway;
beforeAll(async () => {
  [gateway] = await Promise.all([startTestGateway(), builtProgram()]);
  await gateway.sql('update workspaces set name = $1, labels = $2 where id = $3', [EVIL, { team: EVIL }, 'ws-demo']);
});
afterAll(() => gateway.stop());

async function cli(args: readonly string[], token: string = gateway.tokens.org): Promise<Ended> {
  return await runProgram(args, { env: { SALLYPORT_URL: gateway.url, SALLYPORT_TOKEN: token } });
}

/** Both outputs together, in which nothing drives a terminal and no line is one of theirs. */
async function neutral(args: readonly string[], token?: string): Promise<string> {
  const { stdout, stderr } = await cli(args, token);
  const text = `${stdout.toString()}${stderr}`;
  expect(ACTED_ON.exec(text)?.[0]).toBeUndefined();
  expect(text).not.toMatch(/^forged line/m);
  return text;
}

describe('text of others', () => {
  it.each([
    ['a table', []],
    ['a document', ['--json']],
  ])('in a name or a label is escaped in %s', async (_what, flags) => {
    expect(await neutral(['workspace', 'list', ...flags])).toContain('\\u001b]0;owned');
    expect(await neutral(['workspace', 'get', 'ws-demo', ...flags])).toContain('\\u202edetrever');
  });

  it('in an argument is escaped in what the audit log shows', async () => {
    await gateway.exec({ cmd: ['true', EVIL] });
    expect(await neutral(['activity', '--limit', '5'])).toContain('true \\u001b]0;owned');
    const { items } = JSON.parse(await neutral(['activity', '--limit', '5', '--json'])) as {
      items: { request_body: { argv: string[] } }[];
    };
    expect(items.map((row) => row.request_body.argv?.[1])).toContain(EVIL);
  });

  it('in a command that cannot start is escaped in the problem', async () => {
    // Without --json the shell's own words on the host are the program's output.
    await neutral(['exec', '--json', 'ws-demo', '--', `/no/such/${EVIL}`]);
    expect(await neutral(['exec', '--cwd', `/no/such/${EVIL}`, 'ws-demo', '--', 'true'])).toMatch(/start_failed/);
    expect(await neutral(['exec', `ws-${EVIL}`, '--', 'true'])).toMatch(/not_found/);
  });

  it('on a console is escaped in a diagnosis, a rescue and the console itself', async () => {
    const [row] = await gateway.sql(`select instance_id from workspaces where id = 'ws-fleet-01'`);
    await gateway.writeConsole(String(row?.instance_id), `\nOut of memory ${EVIL.replace('\n', '')}\n`);
    await gateway.fault('login_refused', { instance_id: String(row?.instance_id) });
    try {
      expect(await neutral(['diagnose', 'ws-fleet-01'])).toContain('Out of memory');
      expect(await neutral(['console', 'ws-fleet-01'])).toContain('Out of memory');
      expect(await neutral(['rescue', 'ws-fleet-01'])).toContain('Out of memory');
      await neutral(['rescue', '--show', 'ws-fleet-01', '--json']);
    } finally {
      await gateway.clearFaults();
    }
  });

  it('in the name of an org or a token is escaped', async () => {
    await gateway.sql('update orgs set name = $1 where id = $2', [EVIL, 'org-demo']);
    expect(await neutral(['org', 'list'], gateway.tokens.admin)).toContain('\\u001b]0;owned');
    await gateway.sql(`update tokens set name = $1 where org_id = 'org-demo'`, [EVIL]);
    expect(await neutral(['token', 'list'])).toContain('\\u001b]0;owned');
  });

  it('is escaped in the words of a client that is used wrongly, whose own lines stay', async () => {
    const word = EVIL.replace('\n', '');
    expect(await neutral([word])).toContain('\\u001b]0;owned');
    expect(await neutral(['workspace', `--${word}`])).toContain('\\u001b]0;owned');
    expect(await neutral(['workspace', 'list', '--limit', EVIL])).toContain('\\u001b]0;owned');
    expect(await neutral(['activity', '--since', EVIL])).toContain('\\u001b]0;owned');
    expect((await cli(['workspace', '--nonsense'])).stderr).toMatch(/^sallyport: unknown option '--nonsense'\n/);
  });

  it('is escaped in the sentence that stops a start', async () => {
    const evil = EVIL.replaceAll('\n', '');
    const env = { SALLYPORT_DATA_DIR: join('/dev/null', evil), SALLYPORT_LOG_LEVEL: evil };
    for (const wrong of [env, { SALLYPORT_DATA_DIR: env.SALLYPORT_DATA_DIR }]) {
      const { code, stderr } = await runProgram(['serve'], { env: wrong });
      expect(code).toBe(1);
      expect(stderr).toContain('owned');
      expect(ACTED_ON.exec(stderr)?.[0]).toBeUndefined();
    }
  });

  it('of a program itself passes byte by byte', async () => {
    const { stdout } = await cli(['exec', 'ws-demo', '--', 'printf', '%s', EVIL]);
    expect(stdout.toString()).toBe(EVIL);
    await waitUntil('nothing runs', async () => {
      const { body } = await gateway.ask('/workspaces/ws-demo/execs');
      return (body.items as unknown[]).length === 0;
    });
  });
});
