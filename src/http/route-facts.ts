/**
 * What a handler means for whoever calls its route, fastened to the handler itself: the document reads the same chain of
 * gates that Express runs, so it cannot name a scope or a refusal that is not there, or leave one out.
 */
import type { RequestHandler } from 'express';
import type { Scope } from '../access/access.ts';
import type { ErrorCode } from '../errors.ts';

export interface HandlerFacts {
  /** Refusals that may come from it. */
  codes: readonly ErrorCode[];
  scope?: Scope;
  /** To everybody but the admin token the route does not exist. */
  adminOnly?: boolean;
}

const FACTS = Symbol('what the document says of a handler');

export function withFacts(facts: HandlerFacts, handler: RequestHandler): RequestHandler {
  return Object.assign(handler, { [FACTS]: facts });
}

export function factsOf(handler: unknown): HandlerFacts | null {
  return (handler as { [FACTS]?: HandlerFacts })[FACTS] ?? null;
}
