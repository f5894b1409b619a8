/** A caller for tests: an org token with every scope, changed as the test says. */
import { type Caller, SCOPES } from '../../src/access/access.ts';

export function aCaller(change: Partial<Caller>): Caller {
  return {
    kind: 'org',
    orgId: 'acme',
    workspaceId: null,
    jti: '6b1c9f0e-7d0a-4c64-9d2e-3f5b8a1c2d3e',
    sub: 'ada',
    scopes: new Set(SCOPES),
    allow: null,
    expiresAt: 2_000_000_000,
    actor: 'org-token:6b1c9f0e',
    ...change,
  };
}

export const ADMIN: Caller = aCaller({
  kind: 'admin',
  orgId: null,
  jti: null,
  sub: 'admin',
  expiresAt: null,
  actor: 'admin-token',
});
