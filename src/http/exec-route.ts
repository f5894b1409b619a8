/**
 * One exec over HTTP: request → run; events → response; hang-up → abort.
 *
 * The first event decides the status: an `end` that carries an error is a problem with its own status, anything else is
 * 200 and later failures are the terminal frame. A caller who has gone ends the exec through its signal; what is still
 * to come is then read and dropped.
 */
import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import type { Request, RequestHandler, Response } from 'express';
import { personOf } from '../access/access.ts';
import { maskArgv } from '../access/mask.ts';
import type { ExecRequestFacts, GivenAnswer, OpenEntry } from '../audit.ts';
import { SallyportError } from '../errors.ts';
import { EndCause } from '../exec/cause.ts';
import type { ExecEnd, ExecEvent, StreamName } from '../exec/frame.ts';
import { watched } from '../span.ts';
import { execCall, workspaceCall } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { createLineMaker, createLineWriter, type FrameEvent, frameLine } from './ndjson.ts';
import { type ProblemFacts, sendProblem } from './problem.ts';
import { keptAnswer, replay } from './replay.ts';

/** A reader that takes nothing for the program's whole life and this long on top of it is cut off. */
const STALL_EXTRA_MS = 30_000;

/** How events become one kind of response. */
interface Reply {
  take(event: ExecEvent): Promise<void> | null;
  /** Called once when no event comes any more. */
  stop(): void;
}

export function createExecRoute(deps: HttpDeps, heartbeatMs: number): RequestHandler {
  const toLine = createLineMaker();
  return async (req, res) => {
    const call = execCall(res);
    const { caller, workspace, command } = call;
    const execId = randomUUID();
    call.execId = execId;
    res.setHeader('X-Exec-Id', execId);

    const ending = new AbortController();
    // A caller who had gone before has not got through the body gate, and the one gate after it that may wait looks again.
    const hangUp = () => {
      if (!res.writableFinished) ending.abort(new EndCause('cancelled', 'the caller hung up'));
    };
    const { id: workspaceId, orgId } = workspace;
    // Registered in the same turn in which the limits gate counted: nothing may be awaited in between.
    const ended = deps.running.add({
      execId,
      orgId,
      workspaceId,
      jti: caller.jti,
      sub: personOf(caller),
      target: workspace.target,
      end: (cause) => ending.abort(cause),
    });
    const openReply = (): Reply =>
      prefersDocument(req)
        ? documentReply(res, command.encoding === 'base64')
        : streamReply(res, toLine, { heartbeatMs, stallMaxMs: command.timeoutS * 1000 + STALL_EXTRA_MS });
    res.once('close', hangUp);
    const once = await openOnce(deps, res).catch((error: unknown) => {
      ended('refused');
      throw error;
    });
    if (once !== null && 'answer' in once) {
      ended('refused');
      return await replay(res, once.answer, !prefersDocument(req));
    }
    const fromMs = performance.now();
    let started = false;
    /** Made when there is something to say, while the program runs. */
    let reply: Reply | null = null;
    try {
      const events = deps.exec({
        execId,
        workspace,
        command,
        fixedPath: caller.allow !== null,
        entry: once === null ? () => deps.audit.open(factsOf(res, execId)) : async () => once.entry,
        ...(once === null ? {} : { answerOf: (end) => keptAnswer(end, res, !prefersDocument(req)) }),
        signal: ending.signal,
        onSettled: ended,
        span: call.span,
      });
      for await (const event of events) {
        if (event.kind === 'started') {
          started = true;
          deps.metrics.countStart(workspace, performance.now() - fromMs);
        } else if (event.kind === 'end') {
          deps.metrics.countEnd(event, workspace, started);
          // Before its caller hears of it: the next exec may be there before the row of this one is closed.
          deps.running.giveRoom(execId);
          call.outcome = event.outcome;
          call.code = event.error?.code ?? null;
        }
        reply ??= openReply();
        const wait = reply.take(event);
        if (wait !== null) await wait;
      }
    } finally {
      reply?.stop();
    }
  };
}

/** Null: the request has no key. Opens the row, or finds the answer that the first request got. */
async function openOnce(
  { audit, hashBody }: HttpDeps,
  res: Response,
): Promise<{ entry: OpenEntry } | { answer: GivenAnswer } | null> {
  const { idempotencyKey: key, body, execId, span } = execCall(res);
  if (key === null || execId === null) return null;
  const once = { key, bodyHash: hashBody(body) };
  return await watched(span, 'audit.open', () => audit.openOnce(factsOf(res, execId), once));
}

/** `dry_run`: the gates have decided; nothing is written, counted or dialled. */
export const answerDryRun: RequestHandler = (_req, res, next) => {
  const { command, rule } = execCall(res);
  if (!command.dryRun) return next();
  res.json({ dry_run: true, decision: 'allowed', rule });
};

/** Ends a running exec of this workspace, on any replica, and answers with how it has ended. */
export function createCancelRoute(deps: HttpDeps): RequestHandler {
  return async (req, res) => {
    const { caller, workspace } = workspaceCall(res);
    const execId = String(req.params.execId);
    const { orgId, id: workspaceId } = workspace;
    const cancelled = await deps.cancel({ orgId, workspaceId, execId, by: caller.actor });
    if (cancelled === null) throw new SallyportError('not_found', 'no such exec runs in this workspace');
    // 202: asked for, not ended yet. Only while the replica that runs it is dead or cut off.
    res.status(cancelled.outcome === null ? 202 : 200).json({ exec_id: execId, outcome: cancelled.outcome });
  };
}

function factsOf(res: Response, execId: string): ExecRequestFacts {
  const { caller, workspace, command, requestId } = execCall(res);
  return {
    execId,
    orgId: workspace.orgId,
    workspaceId: workspace.id,
    actor: caller.actor,
    requestId,
    argv: maskArgv(command.argv),
    cwd: command.cwd,
    envNames: Object.keys(command.env),
    stdinBytes: command.stdin?.length ?? 0,
    timeoutS: command.timeoutS,
    driver: workspace.target.driver,
  };
}

function prefersDocument(req: Request): boolean {
  return req.accepts(['application/x-ndjson', 'application/json']) === 'application/json';
}

function streamReply(
  res: Response,
  toLine: (event: FrameEvent) => string,
  limits: { heartbeatMs: number; stallMaxMs: number },
): Reply {
  const writer = createLineWriter(res, limits);
  return {
    take(event) {
      if (event.kind === 'started') {
        writer.startHeartbeat();
        return null;
      }
      if (event.kind !== 'end') return writer.write(toLine(event));
      writer.stop();
      if (event.error !== null && !res.headersSent) return sendProblem(res, event.error, endFacts(event));
      writer.end(frameLine(event));
      return null;
    },
    stop: writer.stop,
  };
}

/** `Accept: application/json`: everything in one document, with its own status also after output. */
function documentReply(res: Response, base64: boolean): Reply {
  const chunks: Record<StreamName, Buffer[]> = { stdout: [], stderr: [] };
  const truncated: Record<StreamName, boolean> = { stdout: false, stderr: false };
  return {
    take(event) {
      if (event.kind === 'output') chunks[event.stream].push(event.bytes);
      if (event.kind === 'truncated') truncated[event.stream] = true;
      if (event.kind !== 'end' || res.closed) return null;
      const stdout = textOf(Buffer.concat(chunks.stdout), base64);
      const stderr = textOf(Buffer.concat(chunks.stderr), base64);
      const result = {
        exec_id: event.execId,
        exit_code: event.exitCode,
        signal: event.signal,
        outcome: event.outcome,
        success: event.outcome === 'exited' && event.exitCode === 0,
        stdout: stdout.text,
        stderr: stderr.text,
        stdout_encoding: stdout.encoding,
        stderr_encoding: stderr.encoding,
        stdout_truncated: truncated.stdout,
        stderr_truncated: truncated.stderr,
        duration_ms: event.durationMs,
        complete: event.error === null && event.complete,
      };
      if (event.error !== null) return sendProblem(res, event.error, endFacts(event), result);
      res.json({ ...result, ...(event.survivors === undefined ? {} : { survivors: event.survivors }) });
      return null;
    },
    stop() {},
  };
}

function endFacts(end: ExecEnd): ProblemFacts {
  return {
    outcome: end.outcome,
    ...(end.outcome === 'timed_out' ? { timeoutS: end.timeoutS } : {}),
    ...(end.survivors === undefined ? {} : { survivors: end.survivors }),
  };
}

function textOf(bytes: Buffer, base64: boolean): { text: string; encoding: 'utf8' | 'base64' } {
  return !base64 && isUtf8(bytes)
    ? { text: bytes.toString('utf8'), encoding: 'utf8' }
    : { text: bytes.toString('base64'), encoding: 'base64' };
}
