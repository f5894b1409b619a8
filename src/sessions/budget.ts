/**
 * Connections that share a scarce way to many hosts: at most so many at once, handed out fairly.
 *
 * An EC2 Instance Connect Endpoint carries 20 tunnels, not adjustable. Who waits is served by org first (the one that
 * holds fewest), then hosts without any session, then in order of arrival. While somebody waits, `pressed` is told, so
 * that the pool gives up what it holds only for speed.
 */
import { SallyportError } from '../errors.ts';

export interface Place {
  /** What is scarce, e.g. an endpoint's id. */
  resource: string;
  orgId: string;
  /** The host has a session already; this one would only add to it. */
  additional: boolean;
}

export interface Budget {
  /** Resolves with the function that gives the place back, to be called once. Rejects with the signal's reason. */
  reserve(place: Place, signal: AbortSignal): Promise<() => void>;
  /** Places taken now, of all resources. */
  held(): number;
  /** Waits for a place of this resource. */
  waiting(resource: string): number;
  /** How long somebody who asks now may have to wait, in seconds, from how long places were held lately. At least 1. */
  expectedWaitS(resource: string): number;
}

interface Waiter {
  place: Place;
  grant(): void;
}

interface Resource {
  /** Places held, by org. */
  held: Map<string, number>;
  total: number;
  waiters: Set<Waiter>;
  /** Moving average. */
  holdMs: number;
}

export function createBudget(options: { limit: number; pressed(resource: string): void }): Budget {
  const { limit, pressed } = options;
  const resources = new Map<string, Resource>();

  const resourceOf = (name: string): Resource => {
    const known = resources.get(name);
    if (known !== undefined) return known;
    const resource: Resource = { held: new Map(), total: 0, waiters: new Set(), holdMs: 1000 };
    resources.set(name, resource);
    return resource;
  };

  const take = (resource: Resource, { orgId }: Place): (() => void) => {
    const fromMs = performance.now();
    resource.total += 1;
    resource.held.set(orgId, (resource.held.get(orgId) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) throw new Error('bug: a place is given back once');
      held = false;
      resource.total -= 1;
      const left = (resource.held.get(orgId) ?? 1) - 1;
      if (left === 0) resource.held.delete(orgId);
      else resource.held.set(orgId, left);
      resource.holdMs += 0.2 * (performance.now() - fromMs - resource.holdMs);
      serve(resource);
    };
  };

  const serve = (resource: Resource): void => {
    while (resource.total < limit && resource.waiters.size > 0) {
      const [next] = [...resource.waiters].sort((one, other) => compare(resource, one.place, other.place));
      if (next === undefined) return;
      resource.waiters.delete(next);
      next.grant();
    }
  };

  return {
    reserve(place, signal) {
      const resource = resourceOf(place.resource);
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const onAbort = (): void => {
          resource.waiters.delete(waiter);
          reject(signal.reason);
        };
        const waiter: Waiter = {
          place,
          grant() {
            signal.removeEventListener('abort', onAbort);
            resolve(take(resource, place));
          },
        };
        signal.addEventListener('abort', onAbort, { once: true });
        resource.waiters.add(waiter);
        serve(resource);
        if (resource.waiters.has(waiter)) pressed(place.resource);
      });
    },
    held: () => [...resources.values()].reduce((sum, { total }) => sum + total, 0),
    waiting: (name) => resources.get(name)?.waiters.size ?? 0,
    expectedWaitS(name) {
      const resource = resources.get(name);
      if (resource === undefined) return 1;
      return Math.max(1, Math.ceil((resource.holdMs * (resource.waiters.size / limit)) / 1000));
    },
  };
}

/** A stable sort keeps the order of arrival among equals. */
function compare({ held }: Resource, one: Place, other: Place): number {
  const share = (held.get(one.orgId) ?? 0) - (held.get(other.orgId) ?? 0);
  return share !== 0 ? share : Number(one.additional) - Number(other.additional);
}

/** What a caller is told whose connect budget ended while it waited for a place. */
export function noPlace(resource: string, limit: number, retryAfterS: number): SallyportError {
  return new SallyportError('capacity', `all ${limit} connections through ${resource} are in use`, {
    failedStep: 'tunnel',
    outcome: 'unreachable',
    retryable: true,
    retryAfterS,
    remedy: 'Places are given back as execs end: try again, or allow more time with connect_timeout_s.',
  });
}
