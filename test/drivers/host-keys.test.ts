/** Console logs to pins, and which host keys are believed. The logs and what they hold: test/vectors/console. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseConsoleKeys } from '../../src/drivers/console-keys.ts';
import {
  establishTrust,
  type HostKeyMode,
  type HostKeyPin,
  type PinSource,
  type PinStore,
  type StoredPin,
} from '../../src/drivers/host-keys.ts';
import { fingerprint, isWireKey, wireKeyType } from '../../src/drivers/wire-key.ts';

interface ConsoleCase {
  file: string;
  why: string;
  state: string;
  keys: HostKeyPin[];
}

const folder = new URL('../vectors/console/', import.meta.url);
const cases = JSON.parse(readFileSync(new URL('cases.json', folder), 'utf8')) as ConsoleCase[];
const log = (file: string) => readFileSync(new URL(file, folder));
const keysOf = (file: string) => cases.find((one) => one.file === file)?.keys ?? [];

const [ecdsa, ed25519, rsa] = keysOf('amazon-linux.txt') as [HostKeyPin, HostKeyPin, HostKeyPin];
const otherEd25519 = keysOf('two-in-one-block.txt')[1] as HostKeyPin;
const wire = (pin: HostKeyPin) => Buffer.from(pin.blob, 'base64');

describe('console output', () => {
  it.each(cases)('$file: $state ($why)', ({ file, state, keys }) => {
    const parsed = parseConsoleKeys(log(file));
    expect(parsed.state).toBe(state);
    expect('keys' in parsed ? parsed.keys : []).toEqual(keys);
  });

  it('is never read as more keys when it is cut anywhere', () => {
    const whole = log('lf-only.txt');
    const known = new Set(keysOf('lf-only.txt').map((key) => key.blob));
    for (let at = 0; at <= whole.length; at += 1) {
      const parsed = parseConsoleKeys(whole.subarray(0, at));
      expect(parsed.state).not.toBe('conflict');
      if (parsed.state === 'ok') expect(parsed.keys.every((key) => known.has(key.blob))).toBe(true);
    }
  });

  it('may hold any bytes', () => {
    const noise = Buffer.from(Array.from({ length: 4096 }, (_, index) => (index * 7919) % 256));
    expect(parseConsoleKeys(Buffer.concat([noise, Buffer.from('\n'), log('lf-only.txt')])).state).toBe('ok');
  });
});

describe('a wire key', () => {
  it('is complete, of its type, and nothing more', () => {
    for (const pin of [ecdsa, ed25519, rsa]) {
      expect(wireKeyType(wire(pin))).toBe(pin.type);
      expect(isWireKey(wire(pin), pin.type)).toBe(true);
      expect(isWireKey(wire(pin).subarray(0, -1), pin.type)).toBe(false);
      expect(isWireKey(Buffer.concat([wire(pin), Buffer.alloc(1)]), pin.type)).toBe(false);
    }
    expect(isWireKey(wire(ed25519), 'ssh-rsa')).toBe(false);
    expect(isWireKey(Buffer.alloc(0), 'ssh-ed25519')).toBe(false);
  });

  it('has the fingerprint that ssh-keygen shows', () => {
    expect(fingerprint(wire(ed25519))).toBe('SHA256:GJu9O6rT2HGlp0ZphzNlYJZjRx6JQh7RPlYV+XdvHto');
  });
});

/** A store in memory; `puts` tells what was stored and when. */
function createStore(stored: StoredPin[] = []): PinStore & { puts: { pins: HostKeyPin[]; source: PinSource }[] } {
  const puts: { pins: HostKeyPin[]; source: PinSource }[] = [];
  let current = stored;
  return {
    puts,
    get: async () => current,
    put: async (_region, _instanceId, pins, source) => {
      puts.push({ pins: [...pins], source });
      current = pins.map((pin) => ({ ...pin, source }));
    },
  };
}

function trustWith(
  mode: HostKeyMode,
  pins: PinStore,
  console: { latest?: string | null; boot?: string | null; launchedAt?: Date } = {},
) {
  const reads: boolean[] = [];
  const trust = establishTrust({
    mode,
    pins,
    region: 'eu-west-1',
    instanceId: 'i-0123456789abcdef0',
    launchedAt: console.launchedAt ?? null,
    readConsole: async ({ latest }) => {
      reads.push(latest);
      const file = latest ? console.latest : console.boot;
      return file === null || file === undefined ? null : log(file);
    },
  });
  return { trust, reads };
}

const mismatch = (text: string) =>
  expect.objectContaining({
    code: 'host_key_mismatch',
    message: expect.stringContaining(text),
    details: expect.objectContaining({ failedStep: 'host_key', remedy: expect.any(String) }),
  });

describe('mode console', () => {
  it('stores the keys of the console before anybody logs in, and offers their types only', async () => {
    const pins = createStore();
    const trust = await trustWith('console', pins, { latest: 'amazon-linux.txt' }).trust;
    expect(pins.puts).toEqual([{ pins: [ecdsa, ed25519, rsa], source: 'console' }]);
    expect(trust.types).toEqual(['ecdsa-sha2-nistp256', 'ssh-ed25519', 'ssh-rsa']);
    expect(await trust.verify(wire(ed25519))).toBeNull();
  });

  it('does not read the console when a pin is stored', async () => {
    const pins = createStore([{ ...ed25519, source: 'console' }]);
    const { trust, reads } = trustWith('console', pins, { latest: 'twice-different.txt' });
    expect((await trust).types).toEqual(['ssh-ed25519']);
    expect(reads).toEqual([]);
  });

  it('refuses a changed key and shows both fingerprints', async () => {
    const pins = createStore([
      { ...ed25519, source: 'console' },
      { ...rsa, source: 'console' },
    ]);
    const trust = await trustWith('console', pins).trust;
    const refusal = await trust.verify(wire(otherEd25519));
    expect(refusal).toEqual(mismatch(fingerprint(wire(ed25519))));
    expect(refusal?.message).toContain(fingerprint(wire(otherEd25519)));
    expect(refusal?.message).not.toContain(fingerprint(wire(rsa)));
    expect(await trust.verify(Buffer.from('no key'))).toEqual(mismatch('a broken key'));
  });

  it('looks at what was posted at boot when the latest buffer has lost the block', async () => {
    const { trust, reads } = trustWith('console', createStore(), { latest: 'none.txt', boot: 'amazon-linux.txt' });
    expect((await trust).types).toHaveLength(3);
    expect(reads).toEqual([true, false]);
  });

  it.each([
    ['conflict', 'twice-different.txt', null, 'in conflict'],
    ['conflict at boot', 'none.txt', 'twice-different.txt', 'in conflict'],
    ['partial', 'begin-only.txt', null, 'is partial'],
    ['empty block', 'empty-block.txt', 'none.txt', 'is empty'],
    ['none', 'none.txt', 'none.txt', 'has no block of host keys'],
    ['no output', null, null, 'the console output is empty'],
  ])('refuses with the reason: %s', async (_, latest, boot, text) => {
    const pins = createStore();
    await expect(trustWith('console', pins, { latest, boot }).trust).rejects.toEqual(mismatch(text));
    expect(pins.puts).toEqual([]);
  });

  it('says that a young instance may not have printed its keys yet', async () => {
    const { trust } = trustWith('console', createStore(), { latest: 'none.txt', launchedAt: new Date() });
    await expect(trust).rejects.toMatchObject({
      details: { retryable: true, remedy: expect.stringContaining('booted') },
    });
  });

  it('does not believe a pin that was taken on first use', async () => {
    const pins = createStore([{ ...otherEd25519, source: 'first-use' }]);
    const trust = await trustWith('console', pins, { latest: 'amazon-linux.txt' }).trust;
    expect(await trust.verify(wire(otherEd25519))).toEqual(mismatch('has changed'));
    expect(await trust.verify(wire(ed25519))).toBeNull();
  });
});

describe('mode pinned', () => {
  it('believes an admin and nobody else', async () => {
    const byAdmin = await trustWith('pinned', createStore([{ ...ed25519, source: 'admin' }])).trust;
    expect(await byAdmin.verify(wire(ed25519))).toBeNull();
    for (const source of ['console', 'first-use'] as const) {
      const { trust, reads } = trustWith('pinned', createStore([{ ...ed25519, source }]), {
        latest: 'amazon-linux.txt',
      });
      await expect(trust).rejects.toEqual(mismatch('stored by an admin'));
      expect(reads).toEqual([]);
    }
  });
});

describe('mode first-use', () => {
  it('pins what it saw after the login, not before', async () => {
    const pins = createStore();
    const trust = await trustWith('first-use', pins).trust;
    expect(trust.types).toBeNull();
    expect(await trust.verify(wire(ed25519))).toBeNull();
    expect(pins.puts).toEqual([]);
    await trust.confirm();
    expect(pins.puts).toEqual([{ pins: [ed25519], source: 'first-use' }]);
  });

  it('refuses another key afterwards', async () => {
    const pins = createStore([{ ...ed25519, source: 'first-use' }]);
    const trust = await trustWith('first-use', pins).trust;
    expect(await trust.verify(wire(otherEd25519))).toEqual(mismatch('has changed'));
  });

  it('lets the first of two first connections decide', async () => {
    const pins = createStore();
    const [one, two] = await Promise.all([trustWith('first-use', pins).trust, trustWith('first-use', pins).trust]);
    await one.verify(wire(ed25519));
    await two.verify(wire(otherEd25519));
    await one.confirm();
    await expect(two.confirm()).rejects.toEqual(mismatch('has changed'));
    expect(pins.puts).toHaveLength(1);
  });
});
