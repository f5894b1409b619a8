import { createHash } from 'node:crypto';
import request from 'supertest';
import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { SCOPES } from '../../src/access/access.ts';
import { ERROR_CODES, SallyportError } from '../../src/errors.ts';
import { renderPage } from '../../src/http/docs-page.ts';
import { routesOf } from '../../src/http/openapi.ts';
import { OPERATIONS } from '../../src/http/operations.ts';
import { statusOf } from '../../src/http/problem.ts';
import { ADMIN_TOKEN, endOf, type FakeGateway, fakeGateway, output } from './fake-gateway.ts';

type Json = Record<string, unknown>;
interface Described {
  operationId: string;
  security?: unknown[];
  'x-required'?: string;
  parameters?: { name: string; in: string }[];
  requestBody?: { content: Record<string, { schema: Json; example: Json }> };
  responses: Record<string, { content?: Record<string, { schema: Json; example?: unknown }> }>;
}
interface Document {
  openapi: string;
  paths: Record<string, Record<string, Described>>;
  components: { schemas: Record<string, Json> };
}

let gateway: FakeGateway;
let document: Document;
let all: { method: string; path: string; operation: Described }[];
beforeAll(async () => {
  gateway = await fakeGateway();
  document = (await request(gateway.app).get('/openapi.json').expect(200)).body;
  all = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method, path, operation })),
  );
});

/** A schema of the document as a validator; what it names stands beside it. */
function validator(schema: Json): z.ZodType {
  const whole = { ...schema, $defs: document.components.schemas };
  return z.fromJSONSchema(JSON.parse(JSON.stringify(whole).replaceAll('#/components/schemas/', '#/$defs/')));
}

function everything(value: unknown): [key: string, value: unknown][] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [[key, inner] as [string, unknown], ...everything(inner)]);
}

async function send(
  method: string,
  path: string,
  { token, body, query = '' }: { token: string; body?: unknown; query?: string },
) {
  const concrete = path.replace('{id}', 'ws-1').replace('{execId}', '7c0b4a5e-1f5f-4b5e-9a53-0d8c2a1f6e11');
  const sent = request(gateway.app)
    [method as 'get'](concrete + query)
    .auth(token, { type: 'bearer' });
  return await (body === undefined ? sent : sent.type('json').send(JSON.stringify(body)));
}

describe('the document', () => {
  test('is OpenAPI 3.1 and has every route of the router, and no other', () => {
    expect(document.openapi).toBe('3.1.0');
    const routes = routesOf(gateway.app).map(({ method, path }) => `${method} ${path}`);
    expect(Object.keys(OPERATIONS).sort()).toEqual([...routes].sort());
    expect(all.map(({ method, path }) => `${method.toUpperCase()} ${path}`).sort()).toEqual(
      routes.map((route) => route.replace(/[:*](\w+)/g, '{$1}')).sort(),
    );
  });

  test('has no reference that leads nowhere, and no name twice', () => {
    const references = everything(document).flatMap(([key, value]) => (key === '$ref' ? [String(value)] : []));
    expect(references.length).toBeGreaterThan(20);
    for (const reference of references) {
      const name = reference.replace('#/components/schemas/', '');
      expect(document.components.schemas, reference).toHaveProperty(name);
    }
    const ids = all.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test('uses every schema that it names', () => {
    const text = JSON.stringify(document);
    const unused = Object.keys(document.components.schemas).filter((name) => !text.includes(`schemas/${name}"`));
    expect(unused).toEqual([]);
  });

  test('names the parameters of every path', () => {
    for (const { path, operation } of all) {
      const inPath = (operation.parameters ?? []).filter((one) => one.in === 'path').map(({ name }) => `{${name}}`);
      expect(inPath, path).toEqual(path.match(/\{\w+\}/g) ?? []);
    }
  });

  test('has examples that fit their schemas, and bodies that the gateway takes', () => {
    let seen = 0;
    for (const { operation } of all) {
      const contents = [operation.requestBody, ...Object.values(operation.responses)].flatMap((one) =>
        Object.values(one?.content ?? {}),
      );
      for (const { schema, example } of contents) {
        if (example === undefined) continue;
        seen += 1;
        expect(validator(schema).safeParse(example).error, JSON.stringify(example)).toBeUndefined();
      }
    }
    expect(seen).toBeGreaterThan(15);
  });

  test('has every code of the closed list, each under its status', () => {
    const seen = new Set<string>();
    for (const { path, operation } of all) {
      for (const [status, { content }] of Object.entries(operation.responses)) {
        const { allOf } = (content?.['application/problem+json']?.schema ?? {}) as {
          allOf?: [Json, { properties: { code: { enum: typeof ERROR_CODES } } }];
        };
        for (const code of allOf?.[1].properties.code.enum ?? []) {
          seen.add(code);
          expect(statusOf(code), `${path} ${code}`).toBe(Number(status));
        }
      }
    }
    expect([...seen].sort()).toEqual([...ERROR_CODES].sort());
  });
});

describe('what the document says is what the gateway does:', () => {
  test('a scope that it names is the one that is missing without it', async () => {
    const scoped = all.filter(({ operation }) => operation['x-required']?.startsWith('scope '));
    expect(scoped.length).toBeGreaterThan(10);
    for (const { method, path, operation } of scoped) {
      const scope = String(operation['x-required']).replace('scope ', '');
      const token = await gateway.token({ scopes: SCOPES.filter((one) => one !== scope) });
      const { body } = await send(method, path, { token });
      expect(body, `${method} ${path}`).toMatchObject({ code: 'scope_missing', error: expect.stringContaining(scope) });
    }
  });

  test('a route without security asks for no credential, all others do', async () => {
    for (const { method, path, operation } of all) {
      const { status } = await request(gateway.app)[method as 'get'](path.replaceAll(/\{\w+\}/g, 'x'));
      expect(status === 401, `${method} ${path}`).toBe(operation.security === undefined);
    }
  });

  test('a route for the admin token does not exist for others', async () => {
    const forAdmin = all.filter(({ operation }) => operation['x-required'] === 'the admin token');
    expect(forAdmin).toHaveLength(8);
    for (const { method, path } of forAdmin)
      expect((await send(method, path, { token: await gateway.token() })).status, `${method} ${path}`).toBe(404);
  });

  test('a query parameter that it does not name is refused where it names any', async () => {
    const asked = all.filter(({ operation }) => operation.parameters?.some((one) => one.in === 'query'));
    expect(asked.length).toBeGreaterThan(4);
    for (const { method, path } of asked) {
      const { status, body } = await send(method, path, { token: ADMIN_TOKEN, query: '?canary=1' });
      expect({ status, error: body.error }, path).toEqual({ status: 400, error: 'unknown field "canary"' });
    }
  });

  test('a body is taken as in the example, and refused with one field more', async () => {
    const withBody = all.filter(({ operation }) => operation.requestBody !== undefined);
    expect(withBody.length).toBeGreaterThan(4);
    gateway.orgs.set('acme', { id: 'acme', name: 'Acme', frozen: false });
    for (const { method, path, operation } of withBody) {
      const example = operation.requestBody?.content['application/json']?.example;
      // As the org of the workspace where it has one; the example of a token names its org by its workspace.
      const taken = await send(method, path, { token: ADMIN_TOKEN, body: example });
      expect(taken.status, `${method} ${path}: ${taken.text}`).toBeLessThan(300);
      const refused = await send(method, path, { token: ADMIN_TOKEN, body: { ...example, canary: 1 } });
      expect(refused.body.error, `${method} ${path}`).toContain('"canary"');
    }
  });
});

describe('real answers fit their schemas:', () => {
  /** Also no member that the document does not know: parsing would drop it. */
  function expectFit(name: string, answer: unknown): void {
    const result = validator({ $ref: `#/components/schemas/${name}` }).safeParse(answer);
    expect(result.error, JSON.stringify(answer)).toBeUndefined();
    const known = Object.keys((document.components.schemas[name]?.properties ?? {}) as Json);
    expect(known).toEqual(expect.arrayContaining(Object.keys(answer as Json)));
  }

  async function exec(accept: string, body: object = { cmd: ['ls'] }) {
    return await request(gateway.app)
      .post('/workspaces/ws-1/exec')
      .auth(await gateway.token(), { type: 'bearer' })
      .set('accept', accept)
      .buffer(true)
      .parse((res, done) => {
        const chunks: Buffer[] = [];
        res.on('data', (chunk: Buffer) => chunks.push(chunk));
        res.on('end', () => done(null, Buffer.concat(chunks).toString()));
      })
      .send(body);
  }

  test('frames', async () => {
    const fresh = await fakeGateway();
    gateway = fresh;
    fresh.script.current = async function* (run) {
      yield output('text');
      yield { kind: 'output', stream: 'stderr', bytes: Buffer.from([0xff]), text: false };
      yield { kind: 'truncated', stream: 'stdout', capBytes: 4 };
      yield endOf(run, { survivors: [] });
    };
    const lines = String((await exec('application/x-ndjson')).body)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Json);
    const names = ['OutputFrame', 'OutputFrame', 'TruncatedFrame', 'ExitFrame'];
    expect(lines).toHaveLength(names.length);
    for (const [index, name] of names.entries()) expectFit(name, lines[index]);
    fresh.script.current = async function* (run) {
      yield output('text');
      const error = new SallyportError('exec_timeout', 'over', { failedStep: 'channel' });
      yield endOf(run, { outcome: 'timed_out', error, exitCode: null, survivors: null, complete: false });
    };
    expectFit(
      'ErrorFrame',
      JSON.parse(
        String((await exec('*/*')).body)
          .trim()
          .split('\n')
          .at(-1) ?? '',
      ),
    );
  });

  test('documents and problems of exec', async () => {
    gateway = await fakeGateway();
    expectFit('ExecResult', JSON.parse((await exec('application/json')).body));
    expectFit('DryRun', JSON.parse((await exec('*/*', { cmd: ['ls'], dry_run: true })).body));
    gateway.script.current = async function* (run) {
      const error = new SallyportError('connect_timeout', 'late', {
        failedStep: 'banner',
        retryable: true,
        timeoutS: 20,
      });
      yield endOf(run, { outcome: 'unreachable', error, exitCode: null, survivors: [] });
    };
    expectFit('Problem', JSON.parse((await exec('*/*')).body));
    expectFit('Problem', JSON.parse((await exec('*/*', { cmd: 'ls' })).body));
  });

  test('resources', async () => {
    gateway = await fakeGateway();
    const token = await gateway.token();
    const ask = async (path: string, bearer = token) => (await send('get', path, { token: bearer })).body;
    expectFit('Workspace', await ask('/workspaces/ws-1'));
    expectFit('Workspace', await ask('/workspaces/ws-1', ADMIN_TOKEN));
    expectFit('Token', (await ask('/tokens')).items[0]);
    expectFit('Org', await ask('/orgs/org-a', ADMIN_TOKEN));
    const body = { kind: 'org', name: 'x', scopes: ['exec'] };
    expectFit('IssuedToken', (await send('post', '/tokens', { token, body })).body);
  });
});

describe('the page', () => {
  test('has every operation and schema, no script, and a policy that allows its own style only', async () => {
    const { app } = await fakeGateway();
    const { text, headers, status } = await request(app).get('/docs');
    expect(status).toBe(200);
    for (const { operation } of all) expect(text).toContain(`<section id="${operation.operationId}">`);
    for (const name of Object.keys(document.components.schemas)) expect(text).toContain(`<section id="${name}">`);
    const style = /<style>([\s\S]*?)<\/style>/.exec(text)?.[1] ?? '';
    const digest = createHash('sha256').update(style).digest('base64');
    expect(headers['content-security-policy']).toBe(
      `default-src 'none'; style-src 'sha256-${digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    );
    expect(text).not.toMatch(/<script|<link|<img|style=|\son\w+=|https?:/i);
    const links = [...text.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id);
    for (const id of links) expect(text).toContain(`id="${id}"`);
  });

  test('escapes what it shows', () => {
    const hostile = '<b onclick="x">&\'';
    const page = renderPage({
      info: { title: hostile, version: hostile, description: hostile },
      tags: [],
      paths: {},
      components: {
        schemas: { A: { type: 'object', properties: { [hostile]: { description: hostile, enum: [hostile] } } } },
      },
    });
    expect(page.html).not.toContain('<b onclick');
    expect(page.html).toContain('&#60;b onclick=&#34;x&#34;&#62;&#38;&#39;');
  });
});
