/**
 * The host keys by which a host is known. Everybody of the org may compare them; only the admin token says which are
 * right, because whoever pins a key decides whom the gateway takes for the host.
 *
 * A replacement holds for every connection that is opened after it; sessions that were opened by the old keys take no new
 * execs, here when the answer is sent, on other replicas a moment later (exec/host-keys.ts).
 */
import type { Request, RequestHandler, Response } from 'express';
import { z } from 'zod';
import { fingerprintOf, type HostKeyPin, type PinPlace, parseKeyLine, pinPlaceOf } from '../drivers/host-keys.ts';
import { SallyportError } from '../errors.ts';
import type { Workspace } from '../workspace.ts';
import { workspaceCall } from './call.ts';
import { recordChange } from './change.ts';
import type { HttpDeps } from './deps.ts';
import { textSchema, validate } from './validate.ts';

/** A host has one key of a type; more than a handful is a mistake. */
const KEYS_MAX = 16;
const LINE_MAX_CHARS = 4_096;

export const hostKeysBody = z.strictObject({ keys: z.array(textSchema(1, LINE_MAX_CHARS)).min(1).max(KEYS_MAX) });

export interface HostKeyRoutes {
  get: RequestHandler;
  put: RequestHandler;
}

export function createHostKeyRoutes(deps: HttpDeps): HostKeyRoutes {
  const { pins, look } = deps.hostKeys;

  async function show(res: Response, workspace: Workspace): Promise<void> {
    const { region, instanceId } = requirePlace(workspace);
    const stored = await pins.get(region, instanceId);
    const keys = stored.map((pin) => ({ type: pin.type, fingerprint: fingerprintOf(pin), source: pin.source }));
    res.json({ workspace_id: workspace.id, keys });
  }

  return {
    async get(_req: Request, res: Response) {
      await show(res, workspaceCall(res).workspace);
    },

    async put(req: Request, res: Response) {
      const { workspace, caller, body } = workspaceCall(res);
      if (caller.kind !== 'admin')
        throw new SallyportError('scope_missing', 'host keys are set by the admin token only');
      const { region, instanceId } = requirePlace(workspace);
      const keys = parseKeys(validate(hostKeysBody, body).keys);
      const { id, orgId } = workspace;
      const names = keys.map((key) => `${key.type} ${fingerprintOf(key)}`).join(', ');
      await recordChange(deps, req, res, {
        orgId,
        workspaceId: id,
        targetId: id,
        summary: `host keys of ${id}: ${names}`,
      });
      await pins.put(region, instanceId, keys, 'admin');
      await look();
      await show(res, workspace);
    },
  };
}

function requirePlace({ target }: Workspace): PinPlace {
  const place = pinPlaceOf(target);
  if (place !== null) return place;
  throw new SallyportError('invalid_request', `a workspace of driver "${target.driver}" has no host keys`);
}

/** Each key once. Messages name the place, not the text: what was pasted by mistake may be a private key. */
function parseKeys(lines: readonly string[]): HostKeyPin[] {
  const keys = lines.map((line, index) => {
    const key = parseKeyLine(line);
    if (key !== null) return key;
    throw new SallyportError(
      'invalid_request',
      `keys.${index}: expected one complete public key such as "ssh-ed25519 AAAA…" (ed25519, rsa, ecdsa)`,
    );
  });
  return [...new Map(keys.map((key) => [`${key.type} ${key.blob}`, key])).values()];
}
