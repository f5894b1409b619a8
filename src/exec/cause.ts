/** Why an exec is ended on purpose. It is the `reason` of the one AbortSignal that goes down; the first cause wins. */
import { SallyportError } from '../errors.ts';
import { OUTCOMES } from '../outcome.ts';

export class EndCause {
  readonly outcome: 'cancelled' | 'revoked' | 'drained' | 'timed_out' | 'interrupted';
  /** Safe to show. */
  readonly why: string;

  constructor(outcome: EndCause['outcome'], why: string) {
    this.outcome = outcome;
    this.why = why;
  }

  toError(timeoutS: number): SallyportError {
    const { code } = OUTCOMES[this.outcome];
    const limits = this.outcome === 'timed_out' ? { timeoutS } : {};
    return new SallyportError(code, this.why, { outcome: this.outcome, ...limits });
  }
}
