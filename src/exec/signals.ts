import { constants } from 'node:os';

const NUMBERS: Readonly<Record<string, number>> = constants.signals;

/** As a shell says it: 128 + number. An unknown name gives 128, which is nobody's own exit code. */
export function exitCodeOfSignal(name: string): number {
  return 128 + (NUMBERS[`SIG${name}`] ?? 0);
}
