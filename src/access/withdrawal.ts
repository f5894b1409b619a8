/** Whether what runs may go on running. The one place that decides; asked again as long as it runs. */
import { isDeepStrictEqual } from 'node:util';
import type { Target } from '../workspace.ts';
import type { Standing } from './access.ts';
import { mayLogIn } from './tier.ts';

/** What an exec needed when it began, and needs until it has ended. */
export interface NeededRights {
  /** Null: asked for with a credential that has no row. */
  jti: string | null;
  /** The host it runs on; absent: any that the workspace has. */
  target?: Target;
  /** False: it does not log in, and may go on whatever the tier. */
  logsIn?: boolean;
}

/**
 * Null: nothing was withdrawn. Otherwise what was, as it may be shown to the caller. A token that has expired meanwhile
 * still stands: expiry ends no running exec (contract, section 2).
 */
export function withdrawnRight(standing: Standing, needs: NeededRights): string | null {
  const { token, org, workspace } = standing;
  if (needs.jti !== null && token !== 'active') return 'the token was revoked';
  if (org === null || org.frozen) return 'the org was frozen';
  if (standing.personFrozen) return 'the person was frozen';
  // One answer for both, as for any workspace that cannot be seen.
  if (workspace === null) return 'the workspace was deleted or moved';
  if (needs.logsIn !== false && !mayLogIn(workspace)) return 'the tier of the workspace was lowered';
  if (needs.target !== undefined && !isSameHost(needs.target, workspace.target))
    return 'the workspace was given another host';
  return null;
}

/** By which route an instance is reached says nothing about which one it is. */
function isSameHost(before: Target, now: Target): boolean {
  const host = (target: Target) => (target.driver === 'ec2' ? { ...target, route: null } : target);
  return isDeepStrictEqual(host(before), host(now));
}
