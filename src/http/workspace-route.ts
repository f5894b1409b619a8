/**
 * The registry of workspaces. An org's own credentials may set `name` and `labels`; every field that says where a
 * workspace runs, or how far it may be used, is the admin token's alone (no tenant can make the gateway dial an address).
 */
import type { Request, RequestHandler, Response } from 'express';
import { notFound } from '../access/tenant.ts';
import { SallyportError } from '../errors.ts';
import { ID_PATTERN, type Workspace } from '../workspace.ts';
import { knownCall, workspaceCall } from './call.ts';
import { recordChange, requireExistingOrg } from './change.ts';
import type { HttpDeps } from './deps.ts';
import { listQuery, type Page, sendList } from './lists.ts';
import { validate } from './validate.ts';
import {
  ADMIN_FIELDS,
  showWorkspace,
  tenantPatch,
  tenantPut,
  toBody,
  toWorkspace,
  WORKSPACE_COLUMNS,
  workspaceBody,
} from './workspace-body.ts';

export interface WorkspaceRoutes {
  list: RequestHandler;
  get: RequestHandler;
  put: RequestHandler;
  patch: RequestHandler;
  remove: RequestHandler;
}

export function createWorkspaceRoutes(deps: HttpDeps): WorkspaceRoutes {
  const { registry } = deps;

  async function change(req: Request, res: Response, workspace: { id: string; orgId: string }): Promise<void> {
    const { id, orgId } = workspace;
    await recordChange(deps, req, res, {
      orgId,
      workspaceId: id,
      targetId: id,
      summary: `${req.method} workspace ${id}`,
    });
  }

  /** The admin token creates, replaces and moves. */
  async function putWhole(req: Request, res: Response, rawBody: unknown): Promise<void> {
    const { caller, orgId: boundOrgId, workspace: old } = knownCall(res);
    const id = String(req.params.id);
    if (!ID_PATTERN.test(id)) throw new SallyportError('invalid_request', 'the id in the path is no workspace id');
    const body = validate(workspaceBody, rawBody);
    const orgId = body.org_id ?? old?.orgId ?? boundOrgId;
    if (orgId === null) throw new SallyportError('invalid_request', '"org_id": expected the org of the new workspace');
    if (boundOrgId !== null && orgId !== boundOrgId) throw notFound();
    if (boundOrgId !== null && old === null) await requireFreeId(id);
    await requireExistingOrg(deps, orgId);
    const workspace = toWorkspace(id, orgId, body);
    // Both orgs of a move shall find it in their log.
    if (old !== null && old.orgId !== orgId) await change(req, res, old);
    await change(req, res, workspace);
    const result = await registry.putWorkspace(workspace);
    if (result === 'created') res.status(201).location(`/workspaces/${id}`);
    res.json(showWorkspace(workspace, caller));
  }

  /** The registry lets an id move between orgs; a request that is bound to one org must not take it from another. */
  async function requireFreeId(id: string): Promise<void> {
    const { workspace } = await deps.directory.standing({ orgId: null, jti: null, sub: null, workspaceId: id });
    if (workspace !== null) throw new SallyportError('invalid_request', 'the id in the path is taken in another org');
  }

  async function patchPart(
    req: Request,
    res: Response,
    part: Pick<Partial<Workspace>, 'name' | 'labels'>,
  ): Promise<void> {
    const { caller, workspace } = workspaceCall(res);
    await change(req, res, workspace);
    const changed = await registry.patchWorkspace(workspace.orgId, workspace.id, part);
    if (changed === null) throw notFound();
    res.json(showWorkspace(changed, caller));
  }

  return {
    async list(req, res) {
      const query = validate(listQuery, req.query);
      const { caller, orgId, workspace } = knownCall(res);
      const page: Page<Workspace> =
        caller.workspaceId === null
          ? await registry.listWorkspaces({ orgId, ...query })
          : { items: workspace === null ? [] : [workspace], next: null };
      const items = page.items.map((item) => showWorkspace(item, caller));
      sendList(req, res, { items, next: page.next, columns: WORKSPACE_COLUMNS });
    },

    get(_req, res) {
      const { caller, workspace } = workspaceCall(res);
      res.json(showWorkspace(workspace, caller));
    },

    async put(req, res) {
      const { caller, body } = knownCall(res);
      if (caller.kind === 'admin') return putWhole(req, res, body);
      refuseAdminFields(body);
      await patchPart(req, res, validate(tenantPut, body));
    },

    async patch(req, res) {
      const { caller, body, workspace } = workspaceCall(res);
      if (caller.kind === 'admin' && adminFieldsOf(body).length > 0) return putWhole(req, res, merge(workspace, body));
      refuseAdminFields(body);
      await patchPart(req, res, validate(tenantPatch, body));
    },

    async remove(req, res) {
      const { workspace } = workspaceCall(res);
      await change(req, res, workspace);
      if (!(await registry.deleteWorkspace(workspace.orgId, workspace.id))) throw notFound();
      res.status(204).end();
    },
  };
}

function adminFieldsOf(rawBody: unknown): string[] {
  if (typeof rawBody !== 'object' || rawBody === null) return [];
  return Object.keys(rawBody).filter((field) => ADMIN_FIELDS.includes(field));
}

function refuseAdminFields(rawBody: unknown): void {
  const fields = adminFieldsOf(rawBody);
  if (fields.length > 0)
    throw new SallyportError(
      'scope_missing',
      `set by the admin token only: ${fields.map((name) => `"${name}"`).join(', ')}`,
    );
}

/** RFC 7396 on the top level. Another driver takes nothing of the old one's address along. */
function merge(workspace: Workspace, rawBody: unknown): unknown {
  const part = Object(rawBody) as Record<string, unknown>;
  const { org_id, name, tier, labels, os_user, ...where } = toBody(workspace);
  const keepsDriver = part.driver === undefined || part.driver === where.driver;
  return { org_id, name, tier, labels, os_user, ...(keepsDriver ? where : {}), ...part };
}
