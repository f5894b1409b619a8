/** Host-key pins in memory, for drivers that are tested without a database. */
import type { HostKeyPin, PinStore, StoredPin } from '../../src/drivers/host-keys.ts';
import { wireKeyType } from '../../src/drivers/wire-key.ts';

export interface MemoryPins extends PinStore {
  /** Everything that is stored now. */
  all(): StoredPin[];
}

export function memoryPins(): MemoryPins {
  const stored = new Map<string, StoredPin[]>();
  return {
    get: async (region, instanceId) => stored.get(`${region} ${instanceId}`) ?? [],
    async put(region, instanceId, pins, source) {
      stored.set(
        `${region} ${instanceId}`,
        pins.map((pin) => ({ ...pin, source })),
      );
    },
    all: () => [...stored.values()].flat(),
  };
}

export function pinOf(wireKey: Buffer): HostKeyPin {
  return { type: wireKeyType(wireKey) ?? '', blob: wireKey.toString('base64') };
}
