/** Orgs, for the admin token: name, freeze, unfreeze. A process that serves one org shows and changes no other. */
import type { RequestHandler, Response } from 'express';
import { z } from 'zod';
import { notFound } from '../access/tenant.ts';
import { SallyportError } from '../errors.ts';
import { ID_PATTERN, type Org } from '../workspace.ts';
import { knownCall } from './call.ts';
import { recordChange } from './change.ts';
import type { HttpDeps } from './deps.ts';
import { listQuery, type Page, sendList } from './lists.ts';
import { textSchema, validate } from './validate.ts';

export const orgBody = z.strictObject({ name: textSchema(1, 200) });
const ORG_COLUMNS = ['id', 'name', 'frozen'];

export interface OrgRoutes {
  list: RequestHandler;
  get: RequestHandler;
  put: RequestHandler;
  freeze: RequestHandler;
  unfreeze: RequestHandler;
}

export function createOrgRoutes(deps: HttpDeps): OrgRoutes {
  const { registry } = deps;

  async function find(res: Response, id: string): Promise<Org> {
    requireWithin(res, id);
    const org = ID_PATTERN.test(id) ? await registry.getOrg(id) : null;
    if (org === null) throw notFound();
    return org;
  }

  const setFrozen =
    (frozen: boolean): RequestHandler =>
    async (req, res) => {
      const { id } = await find(res, String(req.params.id));
      const summary = `${frozen ? 'freeze' : 'unfreeze'} org ${id}`;
      await recordChange(deps, req, res, { orgId: id, workspaceId: null, targetId: id, summary });
      const org = await registry.freezeOrg(id, frozen);
      if (org === null) throw notFound();
      res.json(show(org));
    };

  return {
    async list(req, res) {
      const query = validate(listQuery, req.query);
      const { orgId } = knownCall(res);
      const page = orgId === null ? await registry.listOrgs(query) : pageOf(await registry.getOrg(orgId));
      sendList(req, res, { items: page.items.map(show), next: page.next, columns: ORG_COLUMNS });
    },

    async get(req, res) {
      res.json(show(await find(res, String(req.params.id))));
    },

    async put(req, res) {
      const id = String(req.params.id);
      requireWithin(res, id);
      if (!ID_PATTERN.test(id)) throw new SallyportError('invalid_request', 'the id in the path is no org id');
      const { name } = validate(orgBody, knownCall(res).body);
      await recordChange(deps, req, res, { orgId: id, workspaceId: null, targetId: id, summary: `PUT org ${id}` });
      const result = await registry.putOrg({ id, name });
      if (result === 'created') res.status(201).location(`/orgs/${id}`);
      res.json(show((await registry.getOrg(id)) ?? { id, name, frozen: false }));
    },

    freeze: setFrozen(true),
    unfreeze: setFrozen(false),
  };
}

function requireWithin(res: Response, id: string): void {
  const { orgId } = knownCall(res);
  if (orgId !== null && orgId !== id) throw notFound();
}

function pageOf(org: Org | null): Page<Org> {
  return { items: org === null ? [] : [org], next: null };
}

function show({ id, name, frozen }: Org): Record<string, unknown> {
  return { id, name, frozen };
}
