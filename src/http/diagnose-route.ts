/**
 * For who is on call: why a host cannot be used, and what it wrote on its serial console.
 *
 * `GET /workspaces/:id/diagnose` answers 200 whatever it finds; its row says what that was. `GET /workspaces/:id/console`
 * gives JSON `{workspace_id, instance_id, output}` or, asked for `text/plain`, the text alone; secrets are masked and
 * control characters escaped in both; `output` is null while nothing was posted.
 */
import { randomUUID } from 'node:crypto';
import type { Request, RequestHandler, Response } from 'express';
import { personOf } from '../access/access.ts';
import { mayLogIn } from '../access/tier.ts';
import type { ExecResultFacts, OpenEntry } from '../audit.ts';
import { type Diagnosis, toWire } from '../diagnose/diagnose.ts';
import { asSallyportError } from '../errors.ts';
import { EndCause } from '../exec/cause.ts';
import { DIAGNOSE_MAX_MS } from '../limits.ts';
import { workspaceCall } from './call.ts';
import { recordChange } from './change.ts';
import type { HttpDeps } from './deps.ts';
import { sendProblem } from './problem.ts';
import { methodOf } from './refusal.ts';

export function createDiagnoseRoute(deps: HttpDeps): RequestHandler {
  return async (req, res) => {
    const { workspace } = workspaceCall(res);
    const diagnosis = await onHost(deps, { req, res, timeoutS: DIAGNOSE_MAX_MS / 1000 }, async (id, signal) => {
      const found = await deps.onCall.diagnose(workspace, { id, signal });
      return { answer: found, result: resultOf(found) };
    });
    if (diagnosis !== null) res.json({ workspace_id: workspace.id, ...toWire(diagnosis) });
  };
}

export function createConsoleRoute(deps: HttpDeps): RequestHandler {
  return async (req, res) => {
    const { workspace } = workspaceCall(res);
    const { id, orgId } = workspace;
    await recordChange(deps, req, res, { orgId, workspaceId: id, targetId: id, summary: `read the console of ${id}` });
    const leaving = new AbortController();
    res.once('close', () => leaving.abort(new EndCause('cancelled', 'the caller hung up')));
    const { instanceId, text } = await deps.onCall.readConsole(workspace, leaving.signal);
    res.setHeader('Vary', 'Accept');
    if (req.accepts(['application/json', 'text/plain']) === 'text/plain') res.type('text/plain').send(text ?? '');
    else res.json({ workspace_id: id, instance_id: instanceId, output: text });
  };
}

interface HostWork<Answer> {
  answer: Answer;
  result: Pick<ExecResultFacts, 'outcome' | 'exitCode' | 'errorDetail' | 'toolTrace'>;
}

/**
 * Something of ours that runs on a host: registered as an exec is, so that limits, drain and withdrawn rights hold for it,
 * with one row that is committed before and completed after. Null: it was ended, and the answer has been sent.
 */
export async function onHost<Answer>(
  deps: HttpDeps,
  { req, res, timeoutS }: { req: Request; res: Response; timeoutS: number },
  work: (id: string, signal: AbortSignal) => Promise<HostWork<Answer>>,
): Promise<Answer | null> {
  const { workspace, caller } = workspaceCall(res);
  const id = randomUUID();
  const ending = new AbortController();
  // In the same turn in which the limits gate counted.
  const ended = deps.running.add({
    execId: id,
    orgId: workspace.orgId,
    workspaceId: workspace.id,
    jti: caller.jti,
    sub: personOf(caller),
    target: workspace.target,
    logsIn: mayLogIn(workspace),
    end: (cause) => ending.abort(cause),
  });
  res.once('close', () => ending.abort(new EndCause('cancelled', 'the caller hung up')));
  try {
    return await audited(await openRow(deps, { req, res, id, timeoutS }), async () => await work(id, ending.signal));
  } catch (error) {
    if (!(error instanceof EndCause)) throw error;
    await sendProblem(res, error.toError(timeoutS));
    return null;
  } finally {
    ended();
  }
}

async function openRow(
  deps: HttpDeps,
  { req, res, id, timeoutS }: { req: Request; res: Response; id: string; timeoutS: number },
): Promise<OpenEntry> {
  const { caller, workspace, requestId, activity } = workspaceCall(res);
  const verb = activity.replace('workspace_', '');
  return await deps.audit.open({
    activity: { type: activity, method: methodOf(req), summary: `${verb} ${workspace.id}` },
    execId: id,
    orgId: workspace.orgId,
    workspaceId: workspace.id,
    actor: caller.actor,
    requestId,
    argv: [],
    cwd: null,
    envNames: [],
    stdinBytes: 0,
    timeoutS,
    driver: workspace.target.driver,
  });
}

/** Completes the row on every path. */
async function audited<Answer>(entry: OpenEntry, work: () => Promise<HostWork<Answer>>): Promise<Answer> {
  const startedAtMs = performance.now();
  const close = (result: HostWork<Answer>['result']): void => {
    const durationMs = performance.now() - startedAtMs;
    void entry.close({ ...result, durationMs, signal: null, stdoutBytes: 0, stderrBytes: 0 });
  };
  try {
    const { answer, result } = await work();
    close(result);
    return answer;
  } catch (error) {
    const outcome = error instanceof EndCause ? error.outcome : 'unreachable';
    const { code, message } = error instanceof EndCause ? error.toError(0) : asSallyportError(error);
    close({ outcome, exitCode: null, errorDetail: `${code}: ${message}` });
    throw error;
  }
}

export function resultOf({ ok, firstFailure, cause, steps }: Diagnosis): HostWork<Diagnosis>['result'] {
  const toolTrace = {
    // Without `detail`: addresses are for who may diagnose, rows are read by others too.
    steps: steps.map(({ name, ok: done, duration_ms, error }) => ({ name, ok: done, duration_ms, error })),
  };
  if (ok) return { outcome: 'exited', exitCode: 0, errorDetail: null, toolTrace };
  return { outcome: 'unreachable', exitCode: null, errorDetail: `${firstFailure}: ${cause}`, toolTrace };
}
