/**
 * Sessions shared by execs: one connection per host, many channels, opened once for all who wait.
 *
 * This file finds the host of a workspace; host.ts holds the life of its sessions. Nothing here knows SSH.
 */
import { SallyportError } from '../errors.ts';
import { SESSION_HOLD_MIN_MS, SESSION_IDLE_MS, SESSION_MAX_AGE_MS, TUNNELS_PER_ENDPOINT } from '../limits.ts';
import type { DriverName, Target, Workspace } from '../workspace.ts';
import { createBudget, noPlace } from './budget.ts';
import { Host, type Waiting } from './host.ts';
import type { Driver, Lease, Opening, ProbeEnd, Session } from './session.ts';

export interface Pool {
  /** A place on a session that is open now, or null. Never dials, never waits. */
  leaseOpen(workspace: Workspace): Lease | null;
  /**
   * A place on a session, opened if need be. Rejects with the reason of `signal`, with the named error of the opening,
   * or after `timeoutMs` with the error that was being retried, else `connect_timeout` naming the step that hung.
   */
  lease(workspace: Workspace, wait: Waiting): Promise<Lease>;
  /**
   * A connection of its own for a diagnosis: shares no session with execs, but takes its place in the same budget. See
   * Driver.probe; the caller closes the session.
   */
  probe(workspace: Workspace, opening: Omit<Opening, 'reserve'>, until: ProbeEnd): Promise<Session | null>;
  /** What these hosts are trusted by has changed: their open sessions take nobody any more; what runs on them may end. */
  retire(isConcerned: (target: Target) => boolean): void;
  readonly closed: boolean;
  /** Closes every session at once, gives up every opening, refuses new leases. */
  close(): void;
  /** `tunnels`: places taken on scarce ways; an opening may have one. */
  stats(): { sessions: number; leases: number; openings: number; waiting: number; tunnels: number };
}

export function createPool(deps: {
  drivers: ReadonlyMap<DriverName, Driver>;
  /** Connections at once through one scarce way (an endpoint). */
  tunnelsMax?: number;
  idleMs?: number;
  maxAgeMs?: number;
}): Pool {
  const { drivers, tunnelsMax = TUNNELS_PER_ENDPOINT, idleMs = SESSION_IDLE_MS, maxAgeMs = SESSION_MAX_AGE_MS } = deps;
  const hosts = new Map<string, Host>();
  const closing = new AbortController();

  /** One place is asked back for each who waits, again and again until nobody waits. */
  const pressing = new Set<string>();
  const pressed = (resource: string): void => {
    if (pressing.has(resource)) return;
    pressing.add(resource);
    const ask = (): void => {
      const waiting = budget.waiting(resource);
      if (waiting === 0) {
        pressing.delete(resource);
        return;
      }
      let wanted = waiting;
      for (const host of hosts.values()) wanted -= host.yielding(resource);
      for (const host of [...hosts.values()]) if (wanted > 0 && host.yieldPlace(resource)) wanted -= 1;
      setTimeout(ask, SESSION_HOLD_MIN_MS / 4).unref();
    };
    ask();
  };
  const budget = createBudget({ limit: tunnelsMax, pressed });

  const driverOf = (workspace: Workspace): Driver => {
    closing.signal.throwIfAborted();
    const driver = drivers.get(workspace.target.driver);
    if (driver === undefined) throw notEnabled(workspace.target.driver);
    return driver;
  };

  const hostOf = (workspace: Workspace): Host => {
    const driver = driverOf(workspace);
    const key = `${driver.name} ${driver.key(workspace)}`;
    let host = hosts.get(key);
    if (host === undefined) {
      host = new Host({
        target: workspace.target,
        open: (who, opening) => driver.open(who, opening),
        budget,
        tunnelsMax,
        idleMs,
        maxAgeMs,
        onEmpty: () => hosts.delete(key),
      });
      hosts.set(key, host);
    }
    return host;
  };

  return {
    leaseOpen: (workspace) => hostOf(workspace).leaseOpen(),
    lease: async (workspace, wait) => hostOf(workspace).lease(workspace, wait),
    async probe(workspace, { trace, ...opening }, until) {
      const driver = driverOf(workspace);
      const signal = AbortSignal.any([opening.signal, closing.signal]);
      let giveBack = (): void => undefined;
      const reserve = async (resource: string): Promise<void> => {
        trace.retried = noPlace(resource, tunnelsMax, budget.expectedWaitS(resource));
        giveBack = await budget.reserve({ resource, orgId: workspace.orgId, additional: true }, signal);
        trace.retried = null;
      };
      let session: Session | null = null;
      try {
        session = await driver.probe(workspace, { signal, trace, reserve }, until);
        return session;
      } finally {
        if (session === null) giveBack();
        else void session.closed.then(giveBack);
      }
    },
    retire(isConcerned) {
      for (const host of [...hosts.values()]) if (isConcerned(host.target)) host.retireAll();
    },
    get closed() {
      return closing.signal.aborted;
    },
    close() {
      closing.abort(new SallyportError('draining', 'the gateway is stopping', { retryable: true, retryAfterS: 5 }));
      for (const host of [...hosts.values()]) host.close();
    },
    stats() {
      const sum = { sessions: 0, leases: 0, openings: 0, waiting: 0, tunnels: budget.held() };
      for (const host of hosts.values()) {
        const one = host.stats();
        sum.sessions += one.sessions;
        sum.leases += one.leases;
        sum.openings += one.openings;
        sum.waiting += one.waiting;
      }
      return sum;
    },
  };
}

function notEnabled(driver: DriverName): SallyportError {
  return new SallyportError('host_unreachable', `the driver "${driver}" is not enabled on this gateway`, {
    failedStep: 'endpoint',
    outcome: 'unreachable',
    remedy: 'Enable the driver in the configuration of the gateway, or give the workspace another driver.',
  });
}
