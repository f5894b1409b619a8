/** What replicas tell each other through the database. A notice may be lost; who depends on one asks again. */

export type Notice =
  | { kind: 'token' | 'org' | 'workspace'; id: string }
  | { kind: 'person'; orgId: string; sub: string }
  /** It has come, or has gone and left nothing running. */
  | { kind: 'replica'; id: string }
  /** An admin has set those of the instance (region, id). */
  | { kind: 'host_keys'; id: string }
  | ({ kind: 'cancel' } & CancelOrder)
  /** The line was down, or is new: anything may have been missed. */
  | { kind: 'gap' };

export interface CancelOrder {
  orgId: string;
  workspaceId: string;
  execId: string;
  /** The actor who asked, as audit rows name it. */
  by: string;
}

export interface Notices {
  /** Calls `heard` from now on, with every notice that comes. */
  listen(heard: (notice: Notice) => void): { stop(): Promise<void> };
  /** Tells the others, whichever of them runs it. */
  askToCancel(order: CancelOrder): Promise<void>;
}
