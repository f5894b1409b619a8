/** A lab for one test file: started in a folder of its own, stopped and removed by `stop`. Sets nothing global. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { InstanceCounts } from '../../src/lab/counters.ts';
import type { FaultName } from '../../src/lab/faults.ts';
import { type Lab, type LabOptions, startLab } from '../../src/lab/lab.ts';

export interface LabCounters {
  api: Record<string, number>;
  tunnels: { open: number; peak: number; opened: number; refused: number };
  instances: Record<string, InstanceCounts>;
}

export interface TestLab {
  lab: Lab;
  dataDir: string;
  /** Sets a fault for one instance, or for all. */
  fault(name: FaultName, how?: { instanceId?: string; times?: number; value?: number }): Promise<void>;
  clearFaults(): Promise<void>;
  counters(): Promise<LabCounters>;
  resetCounters(): Promise<void>;
  /** Cuts every tunnel and SSH connection. */
  cutConnections(): Promise<void>;
  stop(): Promise<void>;
}

/** `dataDir` given: it is used, and left in place by `stop`. */
export async function withLab(options: Omit<LabOptions, 'dataDir'> & { dataDir?: string } = {}): Promise<TestLab> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'lab-')));
  const lab = await startLab({ ...options, dataDir });
  const ask = async (method: string, path: string, body?: object): Promise<unknown> => {
    const response = await fetch(lab.url + path, { method, body: body === undefined ? null : JSON.stringify(body) });
    const answer = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer}`);
    return JSON.parse(answer);
  };
  return {
    lab,
    dataDir,
    fault: async (name, { instanceId, times, value } = {}) => {
      await ask('POST', '/faults', { fault: name, instance_id: instanceId, times, value });
    },
    clearFaults: async () => {
      await ask('DELETE', '/faults');
    },
    counters: async () => (await ask('GET', '/counters')) as LabCounters,
    resetCounters: async () => {
      await ask('DELETE', '/counters');
    },
    cutConnections: async () => {
      await ask('DELETE', '/connections');
    },
    stop: async () => {
      await lab.stop();
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
    },
  };
}
