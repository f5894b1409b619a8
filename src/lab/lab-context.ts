/** What the stages of the lab share. Made once by the front door. */
import type { Counters } from './counters.ts';
import type { Faults } from './faults.ts';
import type { PushedKeys } from './pushed-keys.ts';
import type { World } from './world.ts';

export interface Log {
  info(obj: object, msg: string): void;
  warn(obj: object, msg: string): void;
  error(obj: object, msg: string): void;
}

export interface LabContext {
  world: World;
  faults: Faults;
  counters: Counters;
  keys: PushedKeys;
  /** By instance id; missing entries have none. */
  tags: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** What an instance has written on its console since its boot, by instance id. */
  consoles: Map<string, string>;
  sessionToken: string | null;
  nowMs(): number;
  log: Log;
}

/** The clock of the AWS services. */
export function serviceNowMs(context: LabContext): number {
  return context.nowMs() + (context.faults.peek('clock_skew_s', null)?.value ?? 0) * 1000;
}
