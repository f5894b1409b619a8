/** The tier gate and the instance gate: what a workspace must be before anything logs in to its host. */
import { SallyportError } from '../errors.ts';
import { EXEC_TIER, type Workspace } from '../workspace.ts';

/** Whether anything may log in to the host. The one place that decides. */
export function mayLogIn(workspace: Workspace): boolean {
  return workspace.tier >= EXEC_TIER;
}

/**
 * Throws `exec_tier_forbidden` below EXEC_TIER, for everything that logs in to a host.
 * `what` begins the message: `exec`, `the terminal`, …
 */
export function requireTier(workspace: Workspace, what: string): void {
  if (mayLogIn(workspace)) return;
  throw new SallyportError(
    'exec_tier_forbidden',
    `${what} needs a workspace of tier ${EXEC_TIER} or higher, this one has tier ${workspace.tier}`,
  );
}

/** Throws `no_instance` for a workspace of driver `ec2` that names no instance yet. */
export function requireInstance(workspace: Workspace): void {
  if (workspace.target.driver !== 'ec2' || workspace.target.instanceId !== null) return;
  throw new SallyportError('no_instance', 'this workspace has driver "ec2" but no instance id yet');
}
