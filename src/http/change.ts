/** What the routes that change something share: the audit row that comes first, and the org it is written in. */
import type { Request, Response } from 'express';
import { SallyportError } from '../errors.ts';
import { knownCall } from './call.ts';
import type { HttpDeps } from './deps.ts';
import { methodOf } from './refusal.ts';

/** Rejects with `audit_unavailable`: the change must then not be made. */
export async function recordChange(
  { audit }: HttpDeps,
  req: Request,
  res: Response,
  what: { orgId: string; workspaceId: string | null; targetId: string; summary: string },
): Promise<void> {
  const { caller, requestId, activity } = knownCall(res);
  await audit.changed({ ...what, actor: caller.actor, requestId, activityType: activity, method: methodOf(req) });
}

/** The org that a list is about. The admin token belongs to none and has to say which. */
export function requireOrg(res: Response): string {
  const { orgId, workspace } = knownCall(res);
  const about = workspace?.orgId ?? orgId;
  if (about !== null) return about;
  throw new SallyportError('invalid_request', 'the admin token belongs to no org: name one in the header X-Org-Id');
}

/** For an org that a body names; one in a path is 404. */
export async function requireExistingOrg({ registry }: HttpDeps, orgId: string): Promise<void> {
  if ((await registry.getOrg(orgId)) !== null) return;
  throw new SallyportError('invalid_request', `there is no org "${orgId}": create it first with PUT /orgs/${orgId}`);
}
