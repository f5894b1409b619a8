/**
 * What the document says of each route beyond what its gates say: words, and the schemas that its handler validates with.
 *
 * A route without an entry, and an entry without a route, fail the test of the document.
 */
import { z } from 'zod';
import { tokenRequestSchema } from '../access/token-request.ts';
import { ERROR_CODES, type ErrorCode } from '../errors.ts';
import { commandSchema } from '../exec/command.ts';
import { activityQuery } from './activity-route.ts';
import { hostKeysBody } from './host-keys-route.ts';
import { listQuery } from './lists.ts';
import { orgBody } from './org-route.ts';
import * as shapes from './shapes.ts';
import { tenantPatch, tenantPut, workspaceBody } from './workspace-body.ts';

export interface Answer {
  status: number;
  description: string;
  /** Media type → schema; null: text. Absent: no body. */
  content?: Readonly<Record<string, z.ZodType | null>>;
  example?: unknown;
}

export interface Operation {
  id: string;
  tag: 'exec' | 'workspaces' | 'diagnosis' | 'activity' | 'tokens' | 'orgs' | 'service';
  summary: string;
  description?: string;
  query?: z.ZodObject;
  headers?: Readonly<Record<string, string>>;
  body?: { schema: z.ZodType; example: unknown };
  answers: readonly Answer[];
  /** Beside those of its gates. */
  codes?: readonly ErrorCode[];
}

const JSON_TYPE = 'application/json';
const NDJSON_TYPE = 'application/x-ndjson';

function answers(schema: z.ZodType, description: string, { status = 200, example }: Partial<Answer> = {}): Answer {
  return { status, description, content: { [JSON_TYPE]: schema }, ...(example === undefined ? {} : { example }) };
}

/** JSON with a cursor, one line per item, or a table, by `Accept`. */
function lists(item: z.ZodType, description: string): Answer {
  const page = z.object({ items: z.array(item), next: z.string().nullable() });
  return { status: 200, description, content: { [JSON_TYPE]: page, [NDJSON_TYPE]: item, 'text/csv': null } };
}

const nothing: Answer = { status: 204, description: 'Done.' };

/** What can go wrong between the gates and the end of a program. */
const ON_THE_WAY: readonly ErrorCode[] = ERROR_CODES.slice(ERROR_CODES.indexOf('host_unreachable'));
const EXEC_CODES: readonly ErrorCode[] = [
  'exec_revoked',
  'instance_not_running',
  'idempotency_in_progress',
  'exec_cancelled',
  'idempotency_mismatch',
  'start_failed',
  ...ON_THE_WAY,
];
const CHANGES: readonly ErrorCode[] = ['invalid_request', 'not_found', 'audit_unavailable'];

const EXEC_ID = '7c0b4a5e-1f5f-4b5e-9a53-0d8c2a1f6e11';
const EXIT_FRAME = {
  exit_code: 0,
  outcome: 'exited',
  signal: null,
  duration_ms: 12,
  exec_id: EXEC_ID,
  stdout_bytes: 3,
  stderr_bytes: 0,
  stdout_sha256: '98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4',
  stderr_sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  complete: true,
};
const WORKSPACE = {
  id: 'ws-1',
  org_id: 'acme',
  name: 'build host',
  driver: 'ec2',
  instance_id: 'i-0123456789abcdef0',
  region: 'eu-central-1',
  os_user: 'ec2-user',
  tier: 3,
  labels: { role: 'build' },
  status: 'active',
};
const HOST_KEYS = {
  workspace_id: 'ws-1',
  keys: [{ type: 'ssh-ed25519', fingerprint: 'SHA256:uNiVztksCsDhcc0u9e8BrrGXkUzCWkAFpc+2OtD5bGA', source: 'admin' }],
};
const PERSON = { org_id: 'acme', sub: 'auth0|7c0b4a5e', frozen: false };
const ORG = { id: 'acme', name: 'Acme Inc', frozen: false };

export const OPERATIONS: Readonly<Record<string, Operation>> = {
  'POST /workspaces/:id/exec': {
    id: 'exec',
    tag: 'exec',
    summary: 'Run one program and see its output as it comes',
    description:
      'Frames as NDJSON, or one document with `Accept: application/json`. Until the first byte a failure has its own ' +
      'status; after that the status is 200 and the failure is the terminal frame. Hanging up ends the program.',
    headers: {
      'Idempotency-Key':
        'Never runs the program twice: a second request with this key gets the end of the first, for 24 h.',
    },
    body: { schema: commandSchema, example: { cmd: ['df', '-h', '/'], timeout_s: 10 } },
    answers: [
      {
        status: 200,
        description: 'The program ran, whatever its exit code; or, for `dry_run`, the decision.',
        content: { [NDJSON_TYPE]: shapes.execFrame, [JSON_TYPE]: z.union([shapes.execResult, shapes.dryRun]) },
        example: EXIT_FRAME,
      },
    ],
    codes: EXEC_CODES,
  },
  'GET /workspaces/:id/execs': {
    id: 'listExecs',
    tag: 'exec',
    summary: 'What runs now, on every replica',
    query: z.strictObject({}),
    answers: [lists(shapes.runningExec, 'Newest first.')],
    codes: ['invalid_request', 'audit_unavailable'],
  },
  'DELETE /workspaces/:id/execs/:execId': {
    id: 'cancelExec',
    tag: 'exec',
    summary: 'End a running exec',
    description: 'Every process of the program gets TERM, then KILL. Answers when it has ended.',
    answers: [
      answers(shapes.cancelled, 'It has ended.', { example: { exec_id: EXEC_ID, outcome: 'cancelled' } }),
      answers(shapes.cancelled, 'Asked for: the replica that runs it does not answer.', {
        status: 202,
        example: { exec_id: EXEC_ID, outcome: null },
      }),
    ],
  },

  'GET /workspaces/:id/diagnose': {
    id: 'diagnose',
    tag: 'diagnosis',
    summary: 'Why a host cannot be used, step by step',
    description: 'Once authorised always 200. Below the tier for logins it ends where the host has proved its key.',
    answers: [answers(shapes.diagnosis, 'What was found, within 30 s.')],
    codes: ['exec_cancelled', 'exec_revoked', 'draining', 'audit_unavailable'],
  },
  'GET /workspaces/:id/console': {
    id: 'readConsole',
    tag: 'diagnosis',
    summary: 'The serial console log',
    answers: [
      {
        status: 200,
        description: 'As JSON, or as text alone by `Accept`.',
        content: { [JSON_TYPE]: shapes.consoleLog, 'text/plain': null },
      },
    ],
    codes: ['host_unreachable', 'aws_denied', 'aws_throttled', 'aws_unavailable', 'audit_unavailable'],
  },

  'GET /workspaces': {
    id: 'listWorkspaces',
    tag: 'workspaces',
    summary: 'Workspaces of the org',
    query: listQuery,
    answers: [lists(shapes.workspace, 'Ordered by id.')],
    codes: ['invalid_request'],
  },
  'GET /workspaces/:id': {
    id: 'getWorkspace',
    tag: 'workspaces',
    summary: 'One workspace',
    description: 'One of another org, an unknown and a deleted one answer alike.',
    answers: [answers(shapes.workspace, 'The workspace.', { example: WORKSPACE })],
  },
  'PUT /workspaces/:id': {
    id: 'putWorkspace',
    tag: 'workspaces',
    summary: 'Create or replace a workspace',
    description:
      'The admin token sets every field; credentials of an org only `name` and `labels`, of one that exists.',
    body: {
      schema: z.union([workspaceBody, tenantPut]),
      example: {
        org_id: 'acme',
        driver: 'ec2',
        instance_id: 'i-0123456789abcdef0',
        region: 'eu-central-1',
        os_user: 'ec2-user',
        tier: 3,
      },
    },
    answers: [
      answers(shapes.workspace, 'Replaced.', { example: WORKSPACE }),
      answers(shapes.workspace, 'Created.', { status: 201 }),
    ],
    codes: CHANGES,
  },
  'PATCH /workspaces/:id': {
    id: 'patchWorkspace',
    tag: 'workspaces',
    summary: 'Change some fields (RFC 7396)',
    description: 'The admin token may send any field of PUT as well.',
    body: { schema: tenantPatch, example: { labels: { role: 'build' } } },
    answers: [answers(shapes.workspace, 'Changed.', { example: WORKSPACE })],
    codes: CHANGES,
  },
  'DELETE /workspaces/:id': {
    id: 'deleteWorkspace',
    tag: 'workspaces',
    summary: 'Forget a workspace',
    answers: [nothing],
    codes: CHANGES,
  },

  'POST /workspaces/:id/rescue': {
    id: 'collectEvidence',
    tag: 'diagnosis',
    summary: 'Collect evidence of a host that fails, and keep it',
    description:
      'The diagnosis, the console and what a fixed list of commands that only read says, 64 KiB a section, redacted before it is kept. Where nobody can log in, what needs no login.',
    answers: [answers(shapes.rescue, 'What was kept, within a minute.')],
    codes: ['exec_command_forbidden', 'exec_cancelled', 'exec_revoked', 'draining', 'audit_unavailable'],
  },
  'GET /workspaces/:id/rescue': {
    id: 'latestEvidence',
    tag: 'diagnosis',
    summary: 'The evidence that was collected last',
    answers: [answers(shapes.rescue, 'As it was kept.')],
  },

  'GET /workspaces/:id/host-keys': {
    id: 'getHostKeys',
    tag: 'workspaces',
    summary: 'The host keys by which the host is known',
    answers: [answers(shapes.hostKeys, 'Empty: the first connection pins them.', { example: HOST_KEYS })],
    codes: ['invalid_request'],
  },
  'PUT /workspaces/:id/host-keys': {
    id: 'putHostKeys',
    tag: 'workspaces',
    summary: 'Say which host keys are right; the admin token only',
    body: {
      schema: hostKeysBody,
      example: { keys: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHky6/41rr60o5tUpP65sJGKOTP0BHnayhVIEwEj3QAC'] },
    },
    answers: [answers(shapes.hostKeys, 'They hold from the next connection on.', { example: HOST_KEYS })],
    codes: CHANGES,
  },

  'GET /workspaces/:id/activity': {
    id: 'listWorkspaceActivity',
    tag: 'activity',
    summary: 'The audit log of one workspace',
    query: activityQuery,
    answers: [lists(shapes.activity, 'Newest first.')],
    codes: ['invalid_request'],
  },
  'GET /activity': {
    id: 'listActivity',
    tag: 'activity',
    summary: 'The audit log of the org',
    query: activityQuery,
    answers: [lists(shapes.activity, 'Newest first.')],
    codes: ['invalid_request'],
  },

  'GET /tokens': {
    id: 'listTokens',
    tag: 'tokens',
    summary: 'Tokens of the org, never the tokens themselves',
    query: listQuery,
    answers: [lists(shapes.token, 'Newest first.')],
    codes: ['invalid_request'],
  },
  'POST /tokens': {
    id: 'createToken',
    tag: 'tokens',
    summary: 'Issue a token no wider than the own credential',
    body: {
      schema: tokenRequestSchema,
      example: {
        kind: 'workspace',
        workspace_id: 'ws-1',
        name: 'log reader',
        scopes: ['exec'],
        allow: [['journalctl', '**']],
        expires_in_s: 3600,
      },
    },
    answers: [answers(shapes.issuedToken, 'Issued.', { status: 201 })],
    codes: ['scope_missing', 'not_found', 'audit_unavailable'],
  },
  'DELETE /tokens/:id': {
    id: 'revokeToken',
    tag: 'tokens',
    summary: 'Revoke a token',
    answers: [nothing],
    codes: CHANGES,
  },

  'GET /orgs': {
    id: 'listOrgs',
    tag: 'orgs',
    summary: 'Orgs',
    query: listQuery,
    answers: [lists(shapes.org, 'Ordered by id.')],
    codes: ['invalid_request'],
  },
  'GET /orgs/:id': {
    id: 'getOrg',
    tag: 'orgs',
    summary: 'One org',
    answers: [answers(shapes.org, 'The org.', { example: ORG })],
  },
  'PUT /orgs/:id': {
    id: 'putOrg',
    tag: 'orgs',
    summary: 'Create or rename an org',
    body: { schema: orgBody, example: { name: 'Acme Inc' } },
    answers: [
      answers(shapes.org, 'Renamed.', { example: ORG }),
      answers(shapes.org, 'Created.', { status: 201, example: ORG }),
    ],
  },
  'POST /orgs/:id/freeze': {
    id: 'freezeOrg',
    tag: 'orgs',
    summary: 'Stop everything in an org',
    description: 'Running execs are ended; its credentials may do nothing until it is unfrozen.',
    answers: [answers(shapes.org, 'Frozen.', { example: { ...ORG, frozen: true } })],
  },
  'POST /orgs/:id/unfreeze': {
    id: 'unfreezeOrg',
    tag: 'orgs',
    summary: 'Let an org go on',
    answers: [answers(shapes.org, 'Not frozen.', { example: ORG })],
  },

  'GET /orgs/:id/people': {
    id: 'listFrozenPeople',
    tag: 'orgs',
    summary: 'Who is frozen in an org',
    query: listQuery,
    answers: [lists(shapes.frozenPerson, 'Ordered by `sub`.')],
    codes: ['invalid_request'],
  },
  'POST /orgs/:id/people/:sub/freeze': {
    id: 'freezePerson',
    tag: 'orgs',
    summary: 'Stop everything a person does in an org',
    description:
      'Running execs are ended; sessions of this `sub`, and the tokens that the person has made, may do nothing until unfrozen.',
    answers: [answers(shapes.person, 'Frozen.', { example: { ...PERSON, frozen: true } })],
    codes: ['invalid_request'],
  },
  'POST /orgs/:id/people/:sub/unfreeze': {
    id: 'unfreezePerson',
    tag: 'orgs',
    summary: 'Let a person go on',
    answers: [answers(shapes.person, 'Not frozen.', { example: PERSON })],
    codes: ['invalid_request'],
  },

  'GET /healthz': {
    id: 'live',
    tag: 'service',
    summary: 'Whether the process lives',
    answers: [answers(shapes.live, 'It does.', { example: { ok: true } })],
  },
  'GET /readyz': {
    id: 'ready',
    tag: 'service',
    summary: 'Whether it should get requests, with every reason why not',
    answers: [
      answers(shapes.ready, 'Database and signing key work, and it is not stopping.', {
        example: { ok: true, reasons: [] },
      }),
      answers(shapes.ready, 'Not now.', {
        status: 503,
        example: { ok: false, reasons: ['draining: the gateway is stopping'] },
      }),
    ],
  },
  'GET /metrics': {
    id: 'metrics',
    tag: 'service',
    summary: 'Counters for Prometheus',
    answers: [{ status: 200, description: 'Text format 0.0.4.', content: { 'text/plain': null } }],
  },
  'GET /openapi.json': {
    id: 'document',
    tag: 'service',
    summary: 'This document',
    answers: [{ status: 200, description: 'OpenAPI 3.1.', content: { [JSON_TYPE]: z.looseObject({}) } }],
  },
  'GET /docs': {
    id: 'docs',
    tag: 'service',
    summary: 'This document as a page',
    answers: [{ status: 200, description: 'HTML without scripts.', content: { 'text/html': null } }],
  },
};
