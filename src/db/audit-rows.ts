/**
 * Facts of an exec, a refusal or a change as columns of `activity_logs`.
 *
 * Contract, section 3: names of environment variables, never values; the size of stdin, never its bytes; no output.
 */
import { randomUUID } from 'node:crypto';
import type { ChangeFacts, ExecRequestFacts, ExecResultFacts, RefusalFacts } from '../audit.ts';
import { SUMMARY_MAX_CHARS } from '../limits.ts';
import { auditStatus } from '../outcome.ts';
import { cutText, storableJson, storableText } from './storable.ts';

/** Ids, methods and routes as they came: an odd one must not be too long for an index. */
const WORD_MAX_CHARS = 200;
const DETAIL_MAX_CHARS = 2_000;

export type Entry = ReturnType<typeof entryOf>;

/** Goes through storableJson. */
export function entryOf(facts: ExecRequestFacts, replica: string) {
  const { actor, argv, cwd, envNames, stdinBytes, timeoutS, driver } = facts;
  return {
    id: facts.execId,
    org_id: facts.orgId,
    workspace_id: facts.workspaceId,
    activity_type: facts.activity?.type ?? 'workspace_exec',
    method: facts.activity?.method ?? 'exec',
    summary: cutText(facts.activity?.summary ?? argv.join(' '), SUMMARY_MAX_CHARS),
    request_body: { actor, argv, cwd, env_names: envNames, stdin_bytes: stdinBytes, timeout_s: timeoutS, driver },
    actor,
    request_id: facts.requestId,
    replica,
  };
}

export type Result = ReturnType<typeof resultOf>;

/** Goes through storableJson. */
export function resultOf(exec: { execId: string; orgId: string }, result: ExecResultFacts) {
  const { exitCode, signal, outcome, stdoutBytes, stderrBytes, survivors, reaped, errorDetail } = result;
  const durationMs = Math.round(result.durationMs);
  return {
    id: exec.execId,
    org_id: exec.orgId,
    status: auditStatus(outcome, exitCode),
    response_body: {
      exit_code: exitCode,
      signal,
      outcome,
      duration_ms: durationMs,
      stdout_bytes: stdoutBytes,
      stderr_bytes: stderrBytes,
      // JSON leaves out what is undefined: nobody had to look.
      survivors,
      reaped,
    },
    tool_trace: result.toolTrace,
    duration_ms: durationMs,
    error_detail: errorDetail === null ? null : cutText(errorDetail, DETAIL_MAX_CHARS),
  };
}

export function refusalRow(facts: RefusalFacts, replica: string) {
  const detail = `${facts.code}: ${facts.message}`;
  const workspaceId = facts.workspaceId === null ? null : text(facts.workspaceId, WORD_MAX_CHARS);
  return {
    ...commonOf(facts, replica),
    workspace_id: workspaceId,
    target_id: workspaceId,
    summary: text(detail, SUMMARY_MAX_CHARS),
    response_body: storableJson({ outcome: 'refused', code: facts.code }),
    status: 'refused' as const,
    error_detail: text(detail, DETAIL_MAX_CHARS),
  };
}

export function changeRow(facts: ChangeFacts, replica: string) {
  return {
    ...commonOf(facts, replica),
    workspace_id: facts.workspaceId,
    target_id: facts.targetId,
    summary: text(facts.summary, SUMMARY_MAX_CHARS),
    status: 'ok' as const,
  };
}

function commonOf(facts: RefusalFacts | ChangeFacts, replica: string) {
  return {
    id: randomUUID(),
    org_id: facts.orgId,
    activity_type: facts.activityType,
    method: text(facts.method, WORD_MAX_CHARS),
    request_body: storableJson({ actor: facts.actor }),
    actor: storableText(facts.actor),
    request_id: storableText(facts.requestId),
    replica,
  };
}

function text(value: string, maxChars: number): string {
  return storableText(cutText(value, maxChars));
}
