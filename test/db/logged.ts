/** A logger that keeps what it was told. */
import type { Log } from '../../src/db/log.ts';

export interface Logged extends Log {
  lines: { level: 'info' | 'warn' | 'error'; facts: object; message: string }[];
  messages(): string[];
}

export function createLogged(): Logged {
  const lines: Logged['lines'] = [];
  const at = (level: 'info' | 'warn' | 'error') => (facts: object, message: string) => {
    lines.push({ level, facts, message });
  };
  return { lines, info: at('info'), warn: at('warn'), error: at('error'), messages: () => lines.map((l) => l.message) };
}
