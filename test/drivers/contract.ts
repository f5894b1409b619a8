/**
 * The one suite that every driver's sessions pass: what src/sessions/session.ts promises, held against real programs
 * and the real process table.
 *
 * A driver's test file calls it with a way to open a session to this machine.
 */
import { describe } from 'vitest';
import { bytesContract } from './contract/bytes.ts';
import { endingContract } from './contract/ending.ts';
import { createRig, type Open } from './contract/rig.ts';
import { startingContract } from './contract/starting.ts';

export function driverContract(name: string, open: Open): void {
  describe(`${name}: starting`, () => startingContract(createRig(open)));
  describe(`${name}: bytes`, () => bytesContract(createRig(open)));
  describe(`${name}: ending`, () => endingContract(createRig(open)));
}
