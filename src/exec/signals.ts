import { constants } from 'node:os';

const NUMBERS: Readonly<Record<string, number>> = constants.signals;

/**
 * As a shell says it: 128 + number. A signal that has no name comes as its number; an unknown name gives 128, which is
 * nobody's own exit code.
 */
export function exitCodeOfSignal(name: string): number {
  return 128 + (NUMBERS[`SIG${name}`] ?? (/^\d{1,2}$/.test(name) ? Number(name) : 0));
}
