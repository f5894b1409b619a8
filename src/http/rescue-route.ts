/**
 * Evidence of a host that fails: `POST` collects and keeps it, `GET` shows what was kept last.
 *
 * A token with command rules collects nothing: its rules name every command that it may run, and these are not among them.
 */
import type { RequestHandler } from 'express';
import type { Rescue } from '../diagnose/rescue.ts';
import { SallyportError } from '../errors.ts';
import { DIAGNOSE_MAX_MS, RESCUE_RUN_MAX_MS } from '../limits.ts';
import { workspaceCall } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { onHost, resultOf } from './diagnose-route.ts';

export interface RescueRoutes {
  collect: RequestHandler;
  latest: RequestHandler;
}

export function createRescueRoutes(deps: HttpDeps): RescueRoutes {
  return {
    async collect(req, res) {
      const { caller, workspace } = workspaceCall(res);
      if (caller.allow !== null)
        throw new SallyportError(
          'exec_command_forbidden',
          'a token with command rules collects no evidence: it runs only what its rules name',
        );
      const timeoutS = (DIAGNOSE_MAX_MS + RESCUE_RUN_MAX_MS) / 1000;
      const rescue = await onHost(deps, { req, res, timeoutS }, async (id, signal) => {
        const { rescue: answer, diagnosis } = await deps.onCall.rescue(workspace, { id, actor: caller.actor, signal });
        return { answer, result: resultOf(diagnosis) };
      });
      if (rescue !== null) res.json(show(rescue));
    },

    async latest(_req, res) {
      const { workspace } = workspaceCall(res);
      const rescue = await deps.onCall.rescues.latest(workspace.orgId, workspace.id);
      if (rescue === null) throw new SallyportError('not_found', 'no evidence of this workspace was collected yet');
      res.json(show(rescue));
    },
  };
}

function show({ id, workspaceId, actor, createdAt, diagnosis, sections }: Rescue): Record<string, unknown> {
  return { id, workspace_id: workspaceId, actor, created_at: createdAt.toISOString(), diagnosis, sections };
}
