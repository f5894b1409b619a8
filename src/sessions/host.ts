/**
 * The life of the sessions to one host: waiting, opening, sharing, retiring.
 *
 * The host opens for itself: an opening has its own deadline and serves whoever waits, so a caller that hangs up spoils
 * nothing for the others; only when nobody waits any more is it given up. A dead session leaves when its `closed`
 * settles, never by what an error text says. No failure is remembered: the next caller dials again.
 */
import { SallyportError } from '../errors.ts';
import { EXECS_PER_SESSION, OPENINGS_PER_HOST, SESSION_HOLD_MIN_MS, SESSION_OPEN_MAX_MS } from '../limits.ts';
import type { Target, Workspace } from '../workspace.ts';
import { type Budget, noPlace } from './budget.ts';
import type { Lease, Opening as OpenCall, Session } from './session.ts';
import { ConnectTrace } from './trace.ts';

interface Shared {
  session: Session;
  leases: number;
  /** Takes no new leases: dead, too old, or closing. */
  retired: boolean;
  openedAtMs: number;
  lastUsedMs: number;
  idle: NodeJS.Timeout | undefined;
  /** The scarce way it goes, or null. */
  resource: string | null;
  /** Takes no new leases while others wait for its place. */
  yielding: boolean;
}

interface Opening {
  trace: ConnectTrace;
  controller: AbortController;
  /** Callers that joined it; it may come to serve others. */
  waiters: Set<Waiter>;
  resource: string | null;
  /** Began with a trust that holds no more: what it opens serves nobody. */
  stale: boolean;
  /** Gives the place on the scarce way back; does nothing when none is held. */
  giveBack(): void;
}

/** How long somebody waits for a lease. */
export interface Waiting {
  signal: AbortSignal;
  timeoutMs: number;
  /** Told of each opening that is waited for, also one that had begun for others; its steps go on being written. */
  joined?: (trace: ConnectTrace) => void;
}

interface Waiter {
  workspace: Workspace;
  joined: Waiting['joined'];
  opening: Opening | null;
  serve(lease: Lease): void;
  fail(error: unknown): void;
}

interface HostOptions {
  target: Target;
  open(workspace: Workspace, call: OpenCall): Promise<Session>;
  budget: Budget;
  tunnelsMax: number;
  idleMs: number;
  maxAgeMs: number;
  /** Nothing is open, opening or waiting any more. */
  onEmpty(): void;
}

export class Host {
  readonly #options: HostOptions;
  readonly #sessions = new Set<Shared>();
  readonly #openings = new Set<Opening>();
  /** In order of arrival. */
  readonly #waiters = new Set<Waiter>();

  constructor(options: HostOptions) {
    this.#options = options;
  }

  get target(): Target {
    return this.#options.target;
  }

  leaseOpen(): Lease | null {
    const shared = this.#freest();
    if (shared !== null) return this.#grant(shared);
    this.#reportEmpty();
    return null;
  }

  lease(workspace: Workspace, { signal, timeoutMs, joined }: Waiting): Promise<Lease> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        finish();
      };
      const waiter: Waiter = {
        workspace,
        joined,
        opening: null,
        serve: (lease) => settle(() => resolve(lease)),
        fail: (error) => settle(() => reject(error)),
      };
      const giveUp = (error: unknown): void => {
        this.#leave(waiter);
        waiter.fail(error);
      };
      const onAbort = (): void => giveUp(signal.reason);
      const timer = setTimeout(() => giveUp(timeoutError(waiter.opening, timeoutMs)), timeoutMs);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiters.add(waiter);
      this.#serve();
    });
  }

  /**
   * Others wait for the way that this host's sessions go: an idle session is closed; one that has had its time takes no
   * new execs while they wait, and closes with its last. True when one will close.
   */
  yieldPlace(resource: string): boolean {
    const held = [...this.#sessions].filter((shared) => shared.resource === resource);
    const idle = held.find(({ leases }) => leases === 0);
    if (idle !== undefined) {
      this.#retire(idle);
      return true;
    }
    const served = held.find(
      ({ yielding, openedAtMs }) => !yielding && performance.now() - openedAtMs > SESSION_HOLD_MIN_MS,
    );
    if (served !== undefined) served.yielding = true;
    return served !== undefined;
  }

  /** Sessions that will give their place back with their last exec. */
  yielding(resource: string): number {
    return [...this.#sessions].filter((shared) => shared.yielding && shared.resource === resource).length;
  }

  /** What the host was trusted by has changed: no session opened before, or being opened, takes anybody from now on. */
  retireAll(): void {
    for (const opening of this.#openings) opening.stale = true;
    for (const shared of [...this.#sessions]) this.#retire(shared);
  }

  close(): void {
    const draining = new SallyportError('draining', 'the gateway is stopping', { retryable: true, retryAfterS: 5 });
    for (const waiter of [...this.#waiters]) {
      this.#leave(waiter);
      waiter.fail(draining);
    }
    for (const opening of this.#openings) opening.controller.abort(draining);
    for (const shared of [...this.#sessions]) {
      this.#retire(shared);
      shared.session.close();
    }
  }

  stats(): { sessions: number; leases: number; openings: number; waiting: number } {
    const leases = [...this.#sessions].reduce((sum, shared) => sum + shared.leases, 0);
    return { sessions: this.#sessions.size, leases, openings: this.#openings.size, waiting: this.#waiters.size };
  }

  /** Gives free places to waiters in order, then dials for those who are left. */
  #serve(): void {
    for (const waiter of this.#waiters) {
      const shared = this.#freest();
      if (shared === null) break;
      const lease = this.#grant(shared);
      this.#leave(waiter);
      waiter.serve(lease);
    }
    for (const waiter of this.#waiters) if (waiter.opening === null) this.#join(waiter);
  }

  /** Waits for an opening with room, or for a new one; while all are busy, for whatever becomes free. */
  #join(waiter: Waiter): void {
    let opening = [...this.#openings].find(
      ({ controller, waiters, stale }) => !stale && !controller.signal.aborted && waiters.size < EXECS_PER_SESSION,
    );
    if (opening === undefined && this.#openings.size < OPENINGS_PER_HOST) opening = this.#dial(waiter.workspace);
    if (opening === undefined) return;
    opening.waiters.add(waiter);
    waiter.opening = opening;
    waiter.joined?.(opening.trace);
  }

  /** The most recently used session with a free place: rotating over many cost a fifth of the speed. */
  #freest(): Shared | null {
    let best: Shared | null = null;
    for (const shared of this.#sessions) {
      if (performance.now() - shared.openedAtMs > this.#options.maxAgeMs) this.#retire(shared);
      else if (shared.yielding && this.#othersWait(shared)) continue;
      else if (shared.leases < shared.session.capacity && (best === null || shared.lastUsedMs > best.lastUsedMs))
        best = shared;
    }
    return best;
  }

  #othersWait({ resource }: Shared): boolean {
    return resource !== null && this.#options.budget.waiting(resource) > 0;
  }

  #grant(shared: Shared): Lease {
    clearTimeout(shared.idle);
    shared.leases += 1;
    shared.lastUsedMs = performance.now();
    let released = false;
    return {
      session: shared.session,
      release: () => {
        if (released) throw new Error('bug: a lease is released once');
        released = true;
        shared.leases -= 1;
        this.#afterRelease(shared);
      },
    };
  }

  #afterRelease(shared: Shared): void {
    if (shared.retired) {
      if (shared.leases === 0) shared.session.close();
      return;
    }
    this.#serve();
    if (shared.leases > 0) return;
    if (this.#othersWait(shared)) {
      this.#retire(shared);
      return;
    }
    shared.idle = setTimeout(() => this.#retire(shared), this.#options.idleMs);
    shared.idle.unref();
  }

  /** Takes no new leases from now on; closes when the last one is released. */
  #retire(shared: Shared): void {
    if (shared.retired) return;
    shared.retired = true;
    this.#sessions.delete(shared);
    clearTimeout(shared.idle);
    if (shared.leases === 0) shared.session.close();
    this.#reportEmpty();
  }

  #leave(waiter: Waiter): void {
    const { opening } = waiter;
    this.#waiters.delete(waiter);
    waiter.opening = null;
    opening?.waiters.delete(waiter);
    if (opening !== null && opening.waiters.size === 0 && this.#waiters.size === 0)
      opening.controller.abort(abandoned());
    this.#reportEmpty();
  }

  #dial(workspace: Workspace): Opening {
    const opening: Opening = {
      trace: new ConnectTrace(),
      controller: new AbortController(),
      waiters: new Set(),
      resource: null,
      stale: false,
      giveBack: () => undefined,
    };
    this.#openings.add(opening);
    void this.#open(workspace, opening);
    return opening;
  }

  /** Never rejects. */
  async #open(workspace: Workspace, opening: Opening): Promise<void> {
    const { controller, trace } = opening;
    const { signal } = controller;
    const deadline = setTimeout(
      () => controller.abort(timeoutError(opening, SESSION_OPEN_MAX_MS)),
      SESSION_OPEN_MAX_MS,
    );
    try {
      const reserve = (resource: string): Promise<void> => this.#reserve(workspace, opening, resource);
      const session = await this.#options.open(workspace, { signal, trace, reserve });
      void session.closed.then(opening.giveBack);
      this.#openings.delete(opening);
      if (signal.aborted || opening.stale) session.close();
      else this.#admit(session, opening.resource);
    } catch (error) {
      opening.giveBack();
      this.#openings.delete(opening);
      const told = opening.stale ? [] : [...opening.waiters];
      for (const waiter of told) {
        this.#leave(waiter);
        waiter.fail(error);
      }
    } finally {
      clearTimeout(deadline);
      for (const waiter of opening.waiters) waiter.opening = null;
      this.#serve();
      this.#reportEmpty();
    }
  }

  /** While it waits, whoever runs out of time is told that there was no place. */
  async #reserve(workspace: Workspace, opening: Opening, resource: string): Promise<void> {
    if (opening.resource !== null) throw new Error('bug: an opening takes one place');
    const { budget, tunnelsMax } = this.#options;
    opening.resource = resource;
    opening.trace.retried = noPlace(resource, tunnelsMax, budget.expectedWaitS(resource));
    const place = { resource, orgId: workspace.orgId, additional: this.#sessions.size > 0 };
    const giveBack = await budget.reserve(place, opening.controller.signal);
    opening.trace.retried = null;
    let held = true;
    opening.giveBack = () => {
      if (held) giveBack();
      held = false;
    };
  }

  #admit(session: Session, resource: string | null): void {
    const now = performance.now();
    const shared: Shared = {
      session,
      leases: 0,
      retired: false,
      openedAtMs: now,
      lastUsedMs: now,
      idle: undefined,
      resource,
      yielding: false,
    };
    this.#sessions.add(shared);
    void session.closed.then(() => {
      this.#retire(shared);
      this.#serve();
    });
    shared.idle = setTimeout(() => this.#retire(shared), this.#options.idleMs);
    shared.idle.unref();
  }

  #reportEmpty(): void {
    if (this.#sessions.size + this.#openings.size + this.#waiters.size === 0) this.#options.onEmpty();
  }
}

function abandoned(): SallyportError {
  return new SallyportError('exec_cancelled', 'nobody waits for this connection any more');
}

/** The named error that was being retried, else which step hung. */
function timeoutError(opening: Opening | null, timeoutMs: number): SallyportError {
  if (opening?.trace.retried) return opening.trace.retried;
  const timeoutS = Math.round(timeoutMs / 100) / 10;
  const within = `within ${timeoutS} s`;
  if (opening === null)
    return new SallyportError('capacity', `no connection to the host became free ${within}`, {
      failedStep: 'channel',
      outcome: 'unreachable',
      retryable: true,
      retryAfterS: 1,
    });
  const step = opening.trace.current();
  return new SallyportError(
    'connect_timeout',
    `the host could not be reached ${within}: the step "${step}" did not finish`,
    {
      failedStep: step,
      outcome: 'unreachable',
      retryable: true,
      timeoutS,
    },
  );
}
