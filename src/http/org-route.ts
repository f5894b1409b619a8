/** Orgs, for the admin token: name, freeze, unfreeze, the same for one person in them. A process that serves one org shows and changes no other. */
import type { RequestHandler, Response } from 'express';
import { z } from 'zod';
import { showValue } from '../access/mask.ts';
import { isSub } from '../access/person.ts';
import { notFound } from '../access/tenant.ts';
import { SallyportError } from '../errors.ts';
import { SUB_MAX_CHARS } from '../limits.ts';
import { ID_PATTERN, type Org } from '../workspace.ts';
import { knownCall } from './call.ts';
import { recordChange } from './change.ts';
import type { HttpDeps } from './deps.ts';
import { listQuery, type Page, sendList } from './lists.ts';
import { textSchema, validate } from './validate.ts';

export const orgBody = z.strictObject({ name: textSchema(1, 200) });
const ORG_COLUMNS = ['id', 'name', 'frozen'];
const PERSON_COLUMNS = ['org_id', 'sub', 'frozen', 'frozen_at'];

export interface OrgRoutes {
  list: RequestHandler;
  get: RequestHandler;
  put: RequestHandler;
  freeze: RequestHandler;
  unfreeze: RequestHandler;
  listPeople: RequestHandler;
  freezePerson: RequestHandler;
  unfreezePerson: RequestHandler;
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

  const setPersonFrozen =
    (frozen: boolean): RequestHandler =>
    async (req, res) => {
      const { id: orgId } = await find(res, String(req.params.id));
      const sub = requireSub(String(req.params.sub));
      const summary = `${frozen ? 'freeze' : 'unfreeze'} person ${sub} in org ${orgId}`;
      await recordChange(deps, req, res, { orgId, workspaceId: null, targetId: sub, summary });
      await registry.freezePerson({ orgId, sub }, frozen);
      res.json({ org_id: orgId, sub, frozen });
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

    async listPeople(req, res) {
      const query = validate(listQuery, req.query);
      const { id: orgId } = await find(res, String(req.params.id));
      const page = await registry.listFrozenPeople({ orgId, ...query });
      const items = page.items.map(({ sub, frozenAt }) => {
        return { org_id: orgId, sub, frozen: true, frozen_at: frozenAt.toISOString() };
      });
      sendList(req, res, { items, next: page.next, columns: PERSON_COLUMNS });
    },

    freezePerson: setPersonFrozen(true),
    unfreezePerson: setPersonFrozen(false),
  };
}

function requireSub(raw: string): string {
  if (isSub(raw)) return raw;
  const expected = `expected 1 to ${SUB_MAX_CHARS} visible ASCII characters, as the issuer writes them`;
  throw new SallyportError('invalid_request', `sub: ${expected}, got ${showValue(raw)}`);
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
