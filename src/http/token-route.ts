/** Tokens: issue one no wider than oneself, list, revoke. The token itself is in one answer and nowhere else. */
import type { Request, RequestHandler, Response } from 'express';
import type { TokenRecord } from '../access/access.ts';
import { mayLookAt, notFound } from '../access/tenant.ts';
import { signToken } from '../access/token.ts';
import { parseTokenRequest, planToken, type TokenRequest } from '../access/token-request.ts';
import { ID_PATTERN } from '../workspace.ts';
import { knownCall } from './call.ts';
import { recordChange, requireExistingOrg, requireOrg } from './change.ts';
import type { HttpDeps } from './deps.ts';
import { listQuery, sendList } from './lists.ts';
import { validate } from './validate.ts';

const TOKEN_COLUMNS = [
  'id',
  'kind',
  'name',
  'scopes',
  'org_id',
  'workspace_id',
  'allow',
  'created_at',
  'expires_at',
  'revoked_at',
  'created_by',
];

export interface TokenRoutes {
  list: RequestHandler;
  create: RequestHandler;
  revoke: RequestHandler;
}

export function createTokenRoutes(deps: HttpDeps): TokenRoutes {
  const { tokens, directory } = deps;

  /** The request with the org it is for: the caller's, or for the admin token the one it names by any means. */
  async function placed(res: Response, request: TokenRequest): Promise<TokenRequest> {
    const { caller, orgId: boundOrgId } = knownCall(res);
    const asked = request.orgId ?? boundOrgId;
    if (boundOrgId !== null && asked !== boundOrgId) throw notFound();
    if (request.workspaceId === undefined) {
      if (caller.kind !== 'admin') return request;
      const orgId = asked ?? requireOrg(res);
      await requireExistingOrg(deps, orgId);
      return { ...request, orgId };
    }
    const { workspace } = await directory.standing({
      orgId: asked,
      jti: null,
      sub: null,
      workspaceId: request.workspaceId,
    });
    if (workspace === null || !mayLookAt(caller, workspace.id)) throw notFound();
    return caller.kind === 'admin' ? { ...request, orgId: workspace.orgId } : request;
  }

  async function change(req: Request, res: Response, record: TokenRecord, verb: string): Promise<void> {
    const { orgId, workspaceId, id, kind } = record;
    await recordChange(deps, req, res, { orgId, workspaceId, targetId: id, summary: `${verb} ${kind} token ${id}` });
  }

  return {
    async list(req, res) {
      const query = validate(listQuery, req.query);
      const { caller } = knownCall(res);
      const page = await tokens.list({ orgId: requireOrg(res), ...query });
      // A workspace token sees those of its workspace; a page may then be short, and `next` still leads on.
      const items = page.items.filter((record) => isVisible(caller.workspaceId, record)).map(showToken);
      sendList(req, res, { items, next: page.next, columns: TOKEN_COLUMNS });
    },

    async create(req, res) {
      const { caller, body } = knownCall(res);
      const request = await placed(res, parseTokenRequest(body));
      const { claims, ...record } = planToken(caller, request, new Date());
      const token = await signToken(deps.signingKey, claims);
      await change(req, res, record, 'issue');
      await tokens.add(record);
      const { id, kind, name, scopes, workspaceId, allow, createdAt, expiresAt } = record;
      res.status(201).json({
        id,
        token,
        kind,
        name,
        scopes,
        workspace_id: workspaceId,
        allow,
        created_at: createdAt.toISOString(),
        expires_at: expiresAt.toISOString(),
      });
    },

    async revoke(req, res) {
      const { caller, orgId } = knownCall(res);
      const id = String(req.params.id);
      const record = ID_PATTERN.test(id) ? await tokens.get(orgId, id) : null;
      if (record === null || !isVisible(caller.workspaceId, record)) throw notFound();
      await change(req, res, record, 'revoke');
      if (!(await tokens.revoke(record.orgId, id))) throw notFound();
      res.status(204).end();
    },
  };
}

function isVisible(onlyWorkspaceId: string | null, record: TokenRecord): boolean {
  return onlyWorkspaceId === null || record.workspaceId === onlyWorkspaceId;
}

function showToken(record: TokenRecord): Record<string, unknown> {
  return {
    id: record.id,
    kind: record.kind,
    name: record.name,
    scopes: record.scopes,
    org_id: record.orgId,
    workspace_id: record.workspaceId,
    allow: record.allow,
    created_at: record.createdAt.toISOString(),
    expires_at: record.expiresAt.toISOString(),
    revoked_at: record.revokedAt?.toISOString() ?? null,
    created_by: record.createdBy,
  };
}
