/**
 * The faults of the lab: what it does wrong on request, for one instance or for all, a counted number of times or until
 * cleared. This file only keeps the list and counts; each stage asks for its own faults at the moment it would bite.
 */

export const FAULTS = {
  instance_stopped: null,
  instance_missing: null,
  endpoint_missing: null,
  push_denied: null,
  push_unavailable: null,
  push_throttled: null,
  tunnel_refused: null,
  tunnel_denied: null,
  target_down: null,
  banner_hang: null,
  host_key_changed: null,
  /** AWS's check of the instance's system fails. */
  status_impaired: null,
  console_empty: null,
  console_partial: null,
  console_conflict: null,
  login_refused: null,
  no_shell: null,
  signal_ignored: null,
  /** The tunnel's TCP connection is destroyed this long after it opened. */
  tunnel_cut_after_ms: { min: 0 },
  /** The added round trip: half on the way in, half on the way out. */
  latency_ms: { min: 0 },
  /** Kilobits a second, for each tunnel and direction. */
  bandwidth_kbps: { min: 1 },
  /** Open sessions per SSH connection. */
  max_sessions: { min: 0 },
  /** How far the clock of the AWS services is ahead of this machine's. */
  clock_skew_s: { min: Number.NEGATIVE_INFINITY },
} as const satisfies Record<string, { min: number } | null>;

export type FaultName = keyof typeof FAULTS;

export interface Fault {
  name: FaultName;
  /** Null: every instance. */
  instanceId: string | null;
  /** Null: until cleared. */
  timesLeft: number | null;
  /** 0 for faults without a value. */
  value: number;
}

/** A fault that cannot be set; the message says what was expected and what came. */
export class UnknownFaultError extends Error {}

export class Faults {
  #active: Fault[] = [];

  /** Replaces a fault of the same name and instance. */
  set(fault: Fault): void {
    this.#active = this.#active.filter((other) => other.name !== fault.name || other.instanceId !== fault.instanceId);
    this.#active.push({ ...fault });
  }

  clear(): void {
    this.#active = [];
  }

  list(): Fault[] {
    return this.#active.map((fault) => ({ ...fault }));
  }

  /** The fault that would bite now; one set for this instance goes before one set for all. Counts nothing. */
  peek(name: FaultName, instanceId: string | null): Readonly<Fault> | null {
    const matching = this.#active.filter((fault) => fault.name === name);
    return (
      matching.find((fault) => fault.instanceId !== null && fault.instanceId === instanceId) ??
      matching.find((fault) => fault.instanceId === null) ??
      null
    );
  }

  /** As `peek`, and counts one bite. */
  take(name: FaultName, instanceId: string | null): Readonly<Fault> | null {
    const fault = this.peek(name, instanceId);
    if (fault === null || fault.timesLeft === null) return fault;
    const left = fault.timesLeft - 1;
    this.#active = this.#active.flatMap((other) => {
      if (other !== fault) return [other];
      return left > 0 ? [{ ...other, timesLeft: left }] : [];
    });
    return fault;
  }
}

/** Reads the body of POST /faults. Throws UnknownFaultError. */
export function parseFault(raw: unknown, instanceIds: readonly string[]): Fault {
  if (typeof raw !== 'object' || raw === null) throw new UnknownFaultError('expected a JSON object with "fault"');
  const {
    fault: rawName,
    instance_id: rawId = null,
    times: rawTimes = null,
    value: rawValue,
  } = raw as Record<string, unknown>;
  const name = parseName(rawName);
  if (rawId !== null && (typeof rawId !== 'string' || !instanceIds.includes(rawId))) {
    throw new UnknownFaultError(`no instance ${JSON.stringify(rawId)} here; known: ${instanceIds.join(', ')}`);
  }
  if (rawTimes !== null && !(Number.isInteger(rawTimes) && (rawTimes as number) >= 1)) {
    throw new UnknownFaultError(`"times" must be a whole number from 1, not ${JSON.stringify(rawTimes)}`);
  }
  return {
    name,
    instanceId: rawId as string | null,
    timesLeft: rawTimes as number | null,
    value: parseValue(name, rawValue),
  };
}

function parseName(raw: unknown): FaultName {
  if (typeof raw === 'string' && Object.hasOwn(FAULTS, raw)) return raw as FaultName;
  throw new UnknownFaultError(`unknown fault ${JSON.stringify(raw)}; known: ${Object.keys(FAULTS).join(', ')}`);
}

function parseValue(name: FaultName, raw: unknown): number {
  const range = FAULTS[name];
  if (range === null) return 0;
  if (typeof raw === 'number' && Number.isFinite(raw) && raw >= range.min) return raw;
  throw new UnknownFaultError(
    `${name} needs a numeric "value"${range.min > -1 ? ` from ${range.min}` : ''}, not ${JSON.stringify(raw)}`,
  );
}
