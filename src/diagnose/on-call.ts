/** What whoever is on call may ask of a host, as one port for the HTTP edge. */
import { maskText } from '../access/mask.ts';
import { SallyportError } from '../errors.ts';
import type { Pool } from '../sessions/pool.ts';
import type { Driver } from '../sessions/session.ts';
import type { DriverName, Workspace } from '../workspace.ts';
import { createDiagnose, type Diagnose } from './diagnose.ts';
import { type Redact, safeText } from './redact.ts';
import { createRescue, type RescueStore, type RunRescue } from './rescue.ts';

export interface OnCall {
  diagnose: Diagnose;
  /** The console as it may be shown; null: nothing was posted. Rejects `invalid_request` where the host has none. */
  readConsole: ReadConsole;
  rescue: RunRescue;
  rescues: Pick<RescueStore, 'latest'>;
}

type ReadConsole = (workspace: Workspace, signal: AbortSignal) => Promise<{ instanceId: string; text: string | null }>;

export function createOnCall(deps: {
  drivers: ReadonlyMap<DriverName, Driver>;
  pool: Pool;
  rescues: RescueStore;
  redact?: Redact;
}): OnCall {
  const { drivers, pool, rescues, redact = maskText } = deps;

  const readConsole: ReadConsole = async (workspace, signal) => {
    const { driver: name } = workspace.target;
    const driver = drivers.get(name);
    if (driver === undefined)
      throw new SallyportError('invalid_request', `the driver "${name}" is not enabled on this gateway`);
    const { instanceId, output } = await driver.readConsole(workspace, signal);
    return { instanceId, text: output === null ? null : safeText(output, { cutBefore: true, redact }) };
  };

  const diagnose = createDiagnose({ drivers, pool, redact });
  return {
    diagnose,
    readConsole,
    rescue: createRescue({ pool, diagnose, readConsole, store: rescues, redact }),
    rescues,
  };
}
