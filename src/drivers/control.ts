/**
 * The kill script over the channels of one connection that are kept for control.
 *
 * A connection carries eight execs and has room for two channels more, so eight kills at once share a script: who asks
 * while both channels are busy is joined to the next run. No kill waits longer than one run before its own.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { KILL_BUDGET_MS } from '../limits.ts';
import type { ProcessMarker, Survivors } from '../sessions/session.ts';
import { type Carrier, type Channel, ChannelRefused, type Host } from './channel.ts';
import { runKillScript } from './program.ts';

export type ControlMode = 'kill' | 'look';

/** Null: could not look. Never rejects. */
export type Control = (mode: ControlMode, marker: ProcessMarker) => Promise<Survivors>;

interface Request {
  marker: ProcessMarker;
  answer(survivors: Survivors): void;
}

/** OpenSSH MaxSessions is 10: beside eight execs. */
const CHANNELS = 2;
/** Together 0.4 s, so that TERM still goes out in time over another connection where this one has no room. */
const REFUSED_TRIES = 8;
const REFUSED_PAUSE_MS = 50;

/** `failed`: told why no channel could be had. */
export function createControl(host: Host & Pick<Carrier, 'open'>, failed: (error: unknown) => void): Control {
  const asked: Record<ControlMode, Request[]> = { kill: [], look: [] };
  let busy = 0;

  const runNext = (): void => {
    const mode: ControlMode = asked.kill.length > 0 ? 'kill' : 'look';
    const requests = asked[mode];
    if (requests.length === 0 || busy >= CHANNELS) return;
    asked[mode] = [];
    busy += 1;
    void runBatch(mode, requests).finally(() => {
      busy -= 1;
      runNext();
    });
  };

  const runBatch = async (mode: ControlMode, requests: readonly Request[]): Promise<void> => {
    const signal = AbortSignal.timeout(KILL_BUDGET_MS);
    let survivors = new Map<string, Survivors>();
    try {
      const markers = requests.map(({ marker }) => marker);
      survivors = await runKillScript(await openPatiently(host, signal), mode, { markers, signal, host });
    } catch (error) {
      failed(error); // Without a channel nobody could look.
    }
    for (const { marker, answer } of requests) answer(survivors.get(marker.execId) ?? null);
  };

  return (mode, marker) =>
    new Promise((resolve) => {
      asked[mode].push({ marker, answer: resolve });
      // Those who ask in the same turn, at a shared deadline say, go together.
      setImmediate(runNext);
    });
}

/** A channel that was just let go may still count on the host: a refusal is asked about again for a moment. */
async function openPatiently(host: Pick<Carrier, 'open'>, signal: AbortSignal): Promise<Channel> {
  for (let triesLeft = REFUSED_TRIES; ; triesLeft -= 1) {
    try {
      return await host.open(signal);
    } catch (error) {
      if (!(error instanceof ChannelRefused) || triesLeft === 0) throw error;
      await sleep(REFUSED_PAUSE_MS);
    }
  }
}
