/**
 * Who may do this: the words and ports of access decisions. Pure; no Express, no SQL.
 *
 * A credential is verified (token.ts) before anything is looked up; what it may see is found by one query on
 * (org, id) through `Directory`, the same for a foreign, an unknown and a deleted workspace.
 */
import type { Org, Workspace } from '../workspace.ts';

export const SCOPES = [
  'exec',
  'files:read',
  'files:write',
  'terminal',
  'diagnose',
  'activity:read',
  'fleet:run',
  'workspaces:read',
  'workspaces:write',
  'tokens:write',
] as const;
export type Scope = (typeof SCOPES)[number];

/** One argv pattern: `*` stands for one argument, `**` (last only) for the rest. */
export type CommandRule = readonly string[];

export type CallerKind = 'admin' | 'org' | 'workspace' | 'session';

/** A verified credential: signature, issuer, audience, life. Whether its row still stands is the Directory's answer. */
export interface Caller {
  kind: CallerKind;
  /** null only for the admin token, which acts in the org of the workspace it names. */
  orgId: string | null;
  /** Set for workspace tokens: the only workspace they see. */
  workspaceId: string | null;
  /** Row in `tokens`; null for the admin token and for sessions of people. */
  jti: string | null;
  sub: string;
  scopes: ReadonlySet<Scope>;
  /** null: no command rules. */
  allow: readonly CommandRule[] | null;
  /** Seconds since 1970; null: does not expire (admin token). */
  expiresAt: number | null;
  /** As audit rows name it: `org-token:<jti prefix>`, `session:<sub>`, `admin-token`, `workspace:<id>`. */
  actor: string;
}

/** Whom to ask the Directory about; null for the admin token, which is nobody. */
export function personOf({ kind, sub }: Caller): string | null {
  return kind === 'admin' ? null : sub;
}

/** What the database says about a caller and the workspace it asked for, read in one query. */
export interface Standing {
  /** `none`: the caller has no token row (admin, session). */
  token: 'active' | 'revoked' | 'unknown' | 'none';
  org: Org | null;
  /** Whether the `sub` may do nothing in this org: the person, and every token that the person has made. */
  personFrozen: boolean;
  /** Null: unknown, deleted, or of another org: nobody can tell which. */
  workspace: Workspace | null;
}

export interface StandingQuery {
  orgId: string | null;
  jti: string | null;
  sub: string | null;
  workspaceId: string | null;
}

export interface Directory {
  /**
   * One query. `orgId` null (admin): the workspace is found by id alone and `org` is its org.
   * With `workspaceId` null only token, person and org are answered. `sub` null: asked for nobody (admin).
   */
  standing(query: StandingQuery): Promise<Standing>;
}

export interface TokenRecord {
  id: string;
  orgId: string;
  workspaceId: string | null;
  kind: 'org' | 'workspace';
  name: string;
  scopes: Scope[];
  allow: CommandRule[] | null;
  createdAt: Date;
  expiresAt: Date;
  revokedAt: Date | null;
  createdBy: string;
}

export interface TokenStore {
  /** Stores the row; the token itself never reaches the database. */
  add(record: TokenRecord): Promise<void>;
  /** Newest first. */
  list(query: { orgId: string; limit: number; after?: string }): Promise<{ items: TokenRecord[]; next: string | null }>;
  get(orgId: string | null, id: string): Promise<TokenRecord | null>;
  /** False when there is no such token in this org. Revoking twice keeps the first time. */
  revoke(orgId: string | null, id: string): Promise<boolean>;
}

export interface FrozenPerson {
  sub: string;
  frozenAt: Date;
}

export interface Registry {
  /** `orgId` null: every org (admin only). Ordered by id. */
  listWorkspaces(query: {
    orgId: string | null;
    limit: number;
    after?: string;
  }): Promise<{ items: Workspace[]; next: string | null }>;
  /** Inserts or replaces. Rejects `invalid_request` when (region, instance id) belongs to another workspace of any org. */
  putWorkspace(workspace: Workspace): Promise<'created' | 'replaced'>;
  /** Updates name and labels only, found by (org, id). Null: no such workspace in this org. */
  patchWorkspace(
    orgId: string | null,
    id: string,
    change: { name?: string; labels?: Record<string, string> },
  ): Promise<Workspace | null>;
  /** Marks deleted; the id becomes free for the same org only. False: no such workspace in this org. */
  deleteWorkspace(orgId: string | null, id: string): Promise<boolean>;
  getOrg(id: string): Promise<Org | null>;
  listOrgs(query: { limit: number; after?: string }): Promise<{ items: Org[]; next: string | null }>;
  putOrg(org: { id: string; name: string }): Promise<'created' | 'replaced'>;
  /** Null: no such org. */
  freezeOrg(id: string, frozen: boolean): Promise<Org | null>;
  /** Rejects `not_found` when there is no such org. Nobody keeps a list of people: a `sub` may be frozen before it comes. */
  freezePerson(person: { orgId: string; sub: string }, frozen: boolean): Promise<void>;
  /** Frozen ones, ordered by `sub`. */
  listFrozenPeople(query: {
    orgId: string;
    limit: number;
    after?: string;
  }): Promise<{ items: FrozenPerson[]; next: string | null }>;
}

/** Requests of one minute, counted over all replicas. The minute begins with the first of them. */
export interface RateCounter {
  readonly perMin: number;
  /** Counts one. Rejects `audit_unavailable` when nobody can say how many there were. */
  take(key: string): Promise<{ isOver: boolean; left: number; resetMs: number }>;
}
