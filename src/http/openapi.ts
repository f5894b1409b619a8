/**
 * The OpenAPI 3.1 document, made from what runs: routes, their order and their gates are read from the Express app, bodies
 * and queries are the schemas that validate them, and only the words come from operations.ts.
 */
import type { Express, RequestHandler } from 'express';
import { z } from 'zod';
import { tokenRequestSchema } from '../access/token-request.ts';
import { ERROR_CODES, type ErrorCode } from '../errors.ts';
import { commandSchema } from '../exec/command.ts';
import { renderPage } from './docs-page.ts';
import { type Answer, OPERATIONS, type Operation } from './operations.ts';
import { orgBody } from './org-route.ts';
import { statusOf, titleOf } from './problem.ts';
import { factsOf, type HandlerFacts } from './route-facts.ts';
import * as shapes from './shapes.ts';
import { tenantPatch, tenantPut, workspaceBody } from './workspace-body.ts';

export type JsonObject = Record<string, unknown>;

/** Schemas that have a name in the document. */
const NAMED = {
  Problem: shapes.problem,
  ExecRequest: commandSchema,
  ExecFrame: shapes.execFrame,
  OutputFrame: shapes.outputFrame,
  TruncatedFrame: shapes.truncatedFrame,
  ExitFrame: shapes.exitFrame,
  ErrorFrame: shapes.errorFrame,
  ExecResult: shapes.execResult,
  DryRun: shapes.dryRun,
  RunningExec: shapes.runningExec,
  Workspace: shapes.workspace,
  WorkspaceByAdmin: workspaceBody,
  WorkspaceByTenant: tenantPut,
  WorkspacePatch: tenantPatch,
  HostKeys: shapes.hostKeys,
  Token: shapes.token,
  TokenRequest: tokenRequestSchema,
  IssuedToken: shapes.issuedToken,
  Org: shapes.org,
  OrgRequest: orgBody,
  Activity: shapes.activity,
  Diagnosis: shapes.diagnosis,
};
const refTo = (name: string): string => `#/components/schemas/${name}`;

const TAGS: Readonly<Record<Operation['tag'], string>> = {
  exec: 'Run programs, see and end what runs',
  workspaces: 'The registry of hosts',
  diagnosis: 'Why a host cannot be used',
  activity: 'The audit log',
  tokens: 'Credentials of an org',
  orgs: 'Tenants; the admin token only',
  service: 'For machines that watch, and for people who read',
};

export interface Documentation {
  document: RequestHandler;
  page: RequestHandler;
}

/** The document is made when it is first asked for: a gateway that nobody asks starts faster. */
export function createDocumentation(app: Express, { version }: { version: string }): Documentation {
  let made: { json: string; html: string; policy: string } | null = null;
  const make = () => {
    const document = describeApi(app, version);
    return { json: JSON.stringify(document), ...renderPage(document) };
  };
  return {
    document(_req, res) {
      made ??= make();
      res.setHeader('Content-Type', 'application/json');
      res.end(made.json);
    },
    page(_req, res) {
      made ??= make();
      res.setHeader('Content-Security-Policy', made.policy);
      res.setHeader('Referrer-Policy', 'no-referrer');
      res.setHeader('Content-Type', 'text/html; charset=utf-8');
      res.end(made.html);
    },
  };
}

interface Route {
  method: string;
  /** As Express has it. */
  path: string;
  facts: readonly HandlerFacts[];
}

/** Every route in its order. */
export function routesOf(app: Express): Route[] {
  return app.router.stack.flatMap(({ route }) => {
    if (route === undefined) return [];
    const facts = route.stack.map(({ handle }) => factsOf(handle)).filter((found) => found !== null);
    const methods = [...new Set(route.stack.map(({ method }) => method.toUpperCase()))];
    return methods.map((method) => ({ method, path: route.path, facts }));
  });
}

export function describeApi(app: Express, version: string): JsonObject {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(NAMED)) registry.add(schema, { id });
  const paths: Record<string, JsonObject> = {};
  for (const route of routesOf(app)) {
    const operation = OPERATIONS[`${route.method} ${route.path}`];
    if (operation === undefined) throw new Error(`bug: operations.ts does not know ${route.method} ${route.path}`);
    const path = route.path.replace(/[:*](\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: describe(route, operation, registry) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sallyport',
      version,
      description:
        'Run one command on a tenant’s own EC2 instance, and see its output live. Every error is a problem document with a stable `code`.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    security: [{ bearer: [] }],
    paths,
    components: {
      schemas: namedSchemas(registry),
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description:
            'A workspace token, an org token, the session of a person (a JWT of the OIDC issuer that the gateway is configured with), or the admin token. Scopes stand in the token; those of a session follow from its claims.',
        },
      },
    },
  };
}

type SchemaRegistry = ReturnType<typeof z.registry<{ id: string }>>;

const RENDERING = {
  io: 'input' as const,
  /** Without the flag `u`, which not every tool sets, a pattern with Unicode classes refuses ordinary letters. */
  override({ jsonSchema }: { jsonSchema: JsonObject }): void {
    if (String(jsonSchema.pattern).includes('\\p{')) delete jsonSchema.pattern;
  },
};

function namedSchemas(registry: SchemaRegistry): Record<string, JsonObject> {
  const { schemas } = z.toJSONSchema(registry, { uri: refTo, ...RENDERING });
  return Object.fromEntries(
    Object.entries(schemas).map(([name, { $schema: _dialect, $id: _id, ...schema }]) => [name, schema]),
  );
}

/** Named schemas within become references. */
function schemaOf(schema: z.ZodType, registry: SchemaRegistry): JsonObject {
  const named = registry.get(schema);
  if (named !== undefined) return { $ref: refTo(named.id) };
  const {
    $schema: _dialect,
    $defs: _definitions,
    ...json
  } = z.toJSONSchema(schema, { metadata: registry, ...RENDERING });
  return JSON.parse(JSON.stringify(json).replaceAll('"#/$defs/', '"#/components/schemas/'));
}

function describe({ path, facts }: Route, operation: Operation, registry: SchemaRegistry): JsonObject {
  const { id, tag, summary, description, body } = operation;
  const scopes = facts.flatMap(({ scope }) => scope ?? []);
  const isOpen = facts.length === 0;
  const isAdmin = facts.some(({ adminOnly }) => adminOnly);
  const parameters = [
    ...pathParameters(path),
    ...queryParameters(operation, registry),
    ...headerParameters(operation, isOpen),
  ];
  const codes = new Set<ErrorCode>([...facts.flatMap((one) => one.codes), ...(operation.codes ?? []), 'internal']);
  return {
    operationId: id,
    tags: [tag],
    summary,
    ...(description === undefined ? {} : { description }),
    ...(isOpen ? { security: [] } : { 'x-required': isAdmin ? 'the admin token' : `scope ${scopes.join(', ')}` }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { 'application/json': { schema: schemaOf(body.schema, registry), example: body.example } },
          },
        }),
    responses: {
      ...Object.fromEntries(
        operation.answers.map((answer) => [String(answer.status), describeAnswer(answer, registry)]),
      ),
      ...(isOpen ? {} : describeProblems(codes)),
    },
  };
}

function pathParameters(path: string): JsonObject[] {
  return [...path.matchAll(/[:*](\w+)/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: name === 'execId' ? { type: 'string', format: 'uuid' } : { type: 'string' },
  }));
}

function queryParameters({ query }: Operation, registry: SchemaRegistry): JsonObject[] {
  if (query === undefined) return [];
  const { properties = {} } = schemaOf(query, registry) as { properties?: Record<string, JsonObject> };
  return Object.entries(properties).map(([name, schema]) => ({ name, in: 'query', required: false, schema }));
}

function headerParameters({ headers = {} }: Operation, isOpen: boolean): JsonObject[] {
  const everywhere = isOpen
    ? {}
    : { 'X-Org-Id': 'Must match the org of the credential; the admin token names an org with it.' };
  return Object.entries({ ...headers, ...everywhere }).map(([name, description]) => ({
    name,
    in: 'header',
    required: false,
    description,
    schema: { type: 'string' },
  }));
}

function describeAnswer({ description, content, example }: Answer, registry: SchemaRegistry): JsonObject {
  if (content === undefined) return { description };
  const bodies = Object.entries(content).map(([type, schema], index) => [
    type,
    {
      schema: schema === null ? { type: 'string' } : schemaOf(schema, registry),
      // It is one of the first type.
      ...(example === undefined || index > 0 ? {} : { example }),
    },
  ]);
  return { description, content: Object.fromEntries(bodies) };
}

/** One response per status, with the codes it may have, in the order of the closed list. */
function describeProblems(codes: ReadonlySet<ErrorCode>): JsonObject {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of ERROR_CODES.filter((one) => codes.has(one)))
    byStatus.set(statusOf(code), [...(byStatus.get(statusOf(code)) ?? []), code]);
  return Object.fromEntries(
    [...byStatus].map(([status, ofStatus]) => [
      String(status),
      {
        description: ofStatus.map((code) => `\`${code}\`: ${titleOf(code)}.`).join(' '),
        ...(status === 429 || status === 503 ? { headers: RETRY_HEADERS } : {}),
        content: {
          'application/problem+json': {
            schema: { allOf: [{ $ref: refTo('Problem') }, { properties: { code: { enum: ofStatus } } }] },
          },
        },
      },
    ]),
  );
}

const RETRY_HEADERS = {
  'Retry-After': { description: 'Whole seconds.', schema: { type: 'integer' } },
};
