/**
 * What this API answers, as schemas: for the document, and for the test that holds real answers against them.
 *
 * Answers are not validated on their way out. A member that is not listed here may come with a later version.
 */
import { z } from 'zod';
import { SCOPES } from '../access/access.ts';
import { ERROR_CODES, STEPS } from '../errors.ts';
import { OUTCOMES, type Outcome } from '../outcome.ts';
import { DRIVERS } from '../workspace.ts';

const outcome = z
  .enum(Object.keys(OUTCOMES) as [Outcome, ...Outcome[]])
  .meta({ description: 'How an exec ended, in one word.' });
const code = z.enum(ERROR_CODES).meta({ description: 'Stable; what to decide on.' });
const failedStep = z.enum(STEPS).meta({ description: 'Where the way to the host ended.' });
const time = z.iso.datetime();
const count = z.int().min(0);
const survivors = z
  .array(z.int())
  .nullable()
  .meta({ description: '`[]`: looked and found none; pids: still there; `null`: could not look.' });
const timeoutS = z.number().meta({ description: 'The budget that was used up.' });

export const problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code,
    error: z.string().meta({ description: 'The same as `detail`.' }),
    request_id: z.string(),
    exec_id: z.uuid().optional(),
    outcome: outcome.optional(),
    failed_step: failedStep.optional(),
    retryable: z
      .boolean()
      .optional()
      .meta({ description: 'The same request may succeed later without anybody changing anything.' }),
    timeout_s: timeoutS.optional(),
    survivors: survivors.optional(),
  })
  .meta({ description: 'RFC 9457. A program that exits non-zero is no problem but an ordinary answer.' });

const stream = z.enum(['stdout', 'stderr']);
export const outputFrame = z
  .object({
    stream,
    data: z.string(),
    encoding: z
      .literal('base64')
      .optional()
      .meta({ description: '`data` is base64: the bytes are not valid UTF-8, or base64 was asked for.' }),
    truncated: z.literal(false),
  })
  .meta({ description: 'What the program wrote, as it came.' });
export const truncatedFrame = z
  .object({ stream, data: z.string(), truncated: z.literal(true) })
  .meta({ description: 'Once per stream: more came than was asked for. `data` is a marker, not output.' });

const endCounts = {
  duration_ms: z.number(),
  exec_id: z.uuid(),
  stdout_bytes: count.meta({ description: 'Bytes read, those beyond the cap included.' }),
  stderr_bytes: count,
  stdout_sha256: z.string().optional().meta({ description: 'Of the bytes read. Left out of a replay.' }),
  stderr_sha256: z.string().optional(),
  complete: z.boolean().meta({ description: 'Both streams reached end-of-file and all of it was sent.' }),
  survivors: survivors.optional(),
  replayed: z
    .boolean()
    .optional()
    .meta({ description: 'The stored end of an earlier request with the same idempotency key; nothing ran.' }),
};
export const exitFrame = z
  .object({
    exit_code: z.int().meta({ description: '128+n when a signal killed the program.' }),
    outcome,
    signal: z.string().nullable().meta({ description: 'Name without SIG.' }),
    ...endCounts,
  })
  .meta({ description: 'Terminal: the program’s own end.' });
export const errorFrame = z
  .object({
    error: z.string(),
    code,
    outcome,
    timeout_s: timeoutS.optional(),
    ...endCounts,
    failed_step: failedStep.optional(),
  })
  .meta({ description: 'Terminal: the program’s own end is not known.' });
export const execFrame = z.union([outputFrame, truncatedFrame, exitFrame, errorFrame]).meta({
  description:
    'One line. Exactly one terminal frame, always last: a stream without one is an unfinished exec. Blank lines are heartbeats.',
});

const encoding = z.enum(['utf8', 'base64']);
export const execResult = z.object({
  exec_id: z.uuid(),
  exit_code: z.int().nullable(),
  signal: z.string().nullable(),
  outcome,
  success: z.boolean().meta({ description: 'It exited with 0.' }),
  stdout: z.string(),
  stderr: z.string(),
  stdout_encoding: encoding,
  stderr_encoding: encoding,
  stdout_truncated: z.boolean(),
  stderr_truncated: z.boolean(),
  duration_ms: z.number(),
  complete: z.boolean(),
  survivors: survivors.optional(),
  replayed: z.boolean().optional(),
});
const rule = z.array(z.string());
export const dryRun = z
  .object({ dry_run: z.literal(true), decision: z.literal('allowed'), rule: rule.nullable() })
  .meta({ description: 'The answer to `dry_run`; a refusal is the problem that the exec would have had.' });
export const cancelled = z.object({
  exec_id: z.uuid(),
  outcome: outcome.nullable().meta({ description: '`null`: asked for, not ended yet.' }),
});
export const runningExec = z.object({
  exec_id: z.uuid(),
  argv: z.array(z.string()).meta({ description: 'Secrets masked.' }),
  actor: z.string(),
  started_at: time,
  outcome: z.null(),
});

export const workspace = z
  .object({
    id: z.string(),
    org_id: z.string(),
    name: z.string(),
    driver: z.enum(DRIVERS),
    instance_id: z.string().nullable(),
    region: z.string().nullable(),
    os_user: z.string(),
    tier: z.int(),
    labels: z.record(z.string(), z.string()),
    status: z.enum(['active', 'no_instance']),
    route: z.string().nullable().optional(),
    host: z.string().optional(),
    port: z.int().optional(),
    container: z.string().optional(),
  })
  .meta({ description: '`route`, `host`, `port`, `container`: shown to the admin token only.' });

export const hostKeys = z.object({
  workspace_id: z.string(),
  keys: z.array(z.object({ type: z.string(), fingerprint: z.string(), source: z.string() })),
});

const tokenFacts = {
  id: z.string(),
  kind: z.enum(['org', 'workspace']),
  name: z.string(),
  scopes: z.array(z.enum(SCOPES)),
  workspace_id: z.string().nullable(),
  allow: z.array(rule).nullable(),
  created_at: time,
  expires_at: time,
};
export const token = z.object({
  ...tokenFacts,
  org_id: z.string(),
  revoked_at: time.nullable(),
  created_by: z.string(),
});
export const issuedToken = z.object({
  ...tokenFacts,
  token: z.string().meta({ description: 'In this answer and nowhere else.' }),
});

export const org = z.object({ id: z.string(), name: z.string(), frozen: z.boolean() });

export const person = z.object({ org_id: z.string(), sub: z.string(), frozen: z.boolean() });
export const frozenPerson = person.extend({ frozen_at: time });

export const activity = z.object({
  id: z.uuid(),
  org_id: z.string(),
  workspace_id: z.string().nullable(),
  activity_type: z.string(),
  source_id: z.string().nullable(),
  target_id: z.string().nullable(),
  method: z.string(),
  summary: z.string(),
  request_body: z.record(z.string(), z.unknown()).nullable(),
  response_body: z.record(z.string(), z.unknown()).nullable(),
  tool_trace: z.unknown(),
  duration_ms: z.int().nullable(),
  status: z.enum(['running', 'ok', 'error', 'timeout', 'cancelled', 'refused', 'interrupted']),
  error_detail: z.string().nullable(),
  actor: z.string(),
  request_id: z.string(),
  replica: z.string(),
  created_at: time,
  finished_at: time.nullable(),
  seq: z.string(),
});

export const diagnosis = z.object({
  workspace_id: z.string(),
  ok: z.boolean(),
  first_failure: failedStep.nullable(),
  cause: z.string().nullable(),
  remedy: z.string().nullable(),
  steps: z.array(
    z.object({
      name: failedStep,
      ok: z.boolean().nullable().meta({ description: '`null`: not reached.' }),
      duration_ms: z.number().nullable(),
      error: z.string().optional(),
      detail: z.string().optional(),
    }),
  ),
  instance: z.record(z.string(), z.unknown()).nullable(),
  console_tail: z.string().nullable(),
});
export const consoleLog = z.object({
  workspace_id: z.string(),
  instance_id: z.string().nullable(),
  output: z.string().nullable().meta({ description: 'Secrets masked; `null`: nothing was posted yet.' }),
});

export const rescue = z.object({
  id: z.string(),
  workspace_id: z.string(),
  actor: z.string(),
  created_at: time,
  diagnosis: diagnosis.omit({ workspace_id: true }),
  sections: z.array(
    z.object({
      name: z.string(),
      output: z.string().nullable().meta({ description: 'Secrets masked; `null`: nothing could be had or kept.' }),
      command: z
        .array(z.string())
        .optional()
        .meta({ description: 'Of several that were tried, the one that said this.' }),
      exit_code: z.number().nullable().optional().meta({ description: '`null`: ended at its deadline.' }),
      truncated: z.boolean().optional(),
      duration_ms: z.number(),
      error: z.string().optional(),
    }),
  ),
});

export const live = z.object({ ok: z.literal(true) });
export const ready = z.object({ ok: z.boolean(), reasons: z.array(z.string()) });
