/** What whoever is on call may ask of a host, as one port for the HTTP edge. */
import { SallyportError } from '../errors.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Driver } from '../sessions/session.ts';
import type { DriverName, Workspace } from '../workspace.ts';
import { createDiagnose, type Diagnose } from './diagnose.ts';
import { safeText } from './redact.ts';

export interface OnCall {
  diagnose: Diagnose;
  /** The console as it may be shown; null: nothing was posted. Rejects `invalid_request` where the host has none. */
  readConsole(workspace: Workspace, signal: AbortSignal): Promise<{ instanceId: string; text: string | null }>;
}

export function createOnCall(deps: { drivers: ReadonlyMap<DriverName, Driver>; pool: Pool }): OnCall {
  return {
    diagnose: createDiagnose(deps),

    async readConsole(workspace, signal) {
      const { driver: name } = workspace.target;
      const driver = deps.drivers.get(name);
      if (driver === undefined)
        throw new SallyportError('invalid_request', `the driver "${name}" is not enabled on this gateway`);
      const { instanceId, output } = await driver.readConsole(workspace, signal);
      return { instanceId, text: output === null ? null : safeText(output, { cutBefore: true }) };
    },
  };
}
