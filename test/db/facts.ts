/** Facts for rows: whole by default, with what a test is about put over them. */
import { randomUUID } from 'node:crypto';
import type { TokenRecord } from '../../src/access/access.ts';
import type { ExecRequestFacts, ExecResultFacts, RefusalFacts } from '../../src/audit.ts';
import type { Database } from '../../src/db/database.ts';
import type { Workspace } from '../../src/workspace.ts';

export function execOf(facts: Partial<ExecRequestFacts> = {}): ExecRequestFacts {
  return {
    execId: randomUUID(),
    orgId: 'acme',
    workspaceId: 'ws-1',
    actor: 'org-token:abc',
    requestId: randomUUID(),
    argv: ['true'],
    cwd: null,
    envNames: [],
    stdinBytes: 0,
    timeoutS: 30,
    driver: 'ec2',
    ...facts,
  };
}

export function exited(facts: Partial<ExecResultFacts> = {}): ExecResultFacts {
  return {
    outcome: 'exited',
    exitCode: 0,
    signal: null,
    durationMs: 12,
    stdoutBytes: 3,
    stderrBytes: 0,
    errorDetail: null,
    ...facts,
  };
}

export function refusalOf(facts: Partial<RefusalFacts> = {}): RefusalFacts {
  return {
    orgId: 'acme',
    workspaceId: 'ws-1',
    actor: 'org-token:abc',
    requestId: randomUUID(),
    method: 'POST /workspaces/:id/exec',
    code: 'exec_tier_forbidden',
    message: 'this workspace has tier 1, 3 is needed',
    activityType: 'workspace_exec',
    ...facts,
  };
}

export function workspaceOf(workspace: Partial<Workspace> = {}): Workspace {
  const id = workspace.id ?? 'ws-1';
  return {
    id,
    orgId: 'acme',
    name: `Workspace ${id}`,
    tier: 3,
    labels: { role: 'web' },
    target: { driver: 'ec2', instanceId: `i-${id}`, region: 'eu-west-1', osUser: 'ec2-user', route: null },
    ...workspace,
  };
}

export function tokenOf(token: Partial<TokenRecord> = {}): TokenRecord {
  return {
    id: randomUUID(),
    orgId: 'acme',
    workspaceId: null,
    kind: 'org',
    name: 'ci',
    scopes: ['exec', 'files:read'],
    allow: null,
    createdAt: new Date('2026-01-02T03:04:05.678Z'),
    expiresAt: new Date('2026-02-02T03:04:05.678Z'),
    revokedAt: null,
    createdBy: 'admin-token',
    ...token,
  };
}

/** Two orgs; ws-1 and ws-2 in acme, ws-other in rival. */
export async function seed({ registry }: Database): Promise<void> {
  await registry.putOrg({ id: 'acme', name: 'Acme' });
  await registry.putOrg({ id: 'rival', name: 'Rival' });
  for (const id of ['ws-1', 'ws-2']) await registry.putWorkspace(workspaceOf({ id }));
  await registry.putWorkspace(workspaceOf({ id: 'ws-other', orgId: 'rival' }));
}
