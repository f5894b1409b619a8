/** What happened in the lab, for tests that ask how often. */

export interface InstanceCounts {
  pushes: number;
  logins: number;
  login_failures: number;
  /** Channels on which something was asked to start since the last reset, as sshd logs them. */
  channels: number;
  connections_open: number;
}

export class Counters {
  #api: Record<string, number> = {};
  #instances = new Map<string, InstanceCounts>();
  readonly tunnels = { open: 0, peak: 0, opened: 0, refused: 0 };

  apiCall(action: string): void {
    this.#api[action] = (this.#api[action] ?? 0) + 1;
  }

  tunnelOpened(): void {
    this.tunnels.opened += 1;
    this.tunnels.open += 1;
    this.tunnels.peak = Math.max(this.tunnels.peak, this.tunnels.open);
  }

  instance(id: string): InstanceCounts {
    const known = this.#instances.get(id);
    if (known) return known;
    const fresh = { pushes: 0, logins: 0, login_failures: 0, channels: 0, connections_open: 0 };
    this.#instances.set(id, fresh);
    return fresh;
  }

  toJSON(): object {
    return { api: this.#api, tunnels: this.tunnels, instances: Object.fromEntries(this.#instances) };
  }

  /** Back to zero, except what counts things open now. */
  reset(): void {
    this.#api = {};
    Object.assign(this.tunnels, { peak: this.tunnels.open, opened: 0, refused: 0 });
    for (const counts of this.#instances.values()) {
      Object.assign(counts, { pushes: 0, logins: 0, login_failures: 0, channels: 0 });
    }
  }
}
