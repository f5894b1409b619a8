/**
 * Host-key trust for EC2 instances: console output → pins; a host must show a pinned key or is refused.
 *
 * A pin belongs to (region, instance id), never to an address or a name: the tunnel goes to an IP read a moment earlier,
 * and only the pin ties it to the instance that the key was pushed to.
 */
export interface HostKeyPin {
  /** SSH key type, e.g. `ssh-ed25519`. */
  type: string;
  /** Canonical base64 of the SSH wire key. */
  blob: string;
}

export interface PinStore {
  get(region: string, instanceId: string): Promise<HostKeyPin[]>;
  /** Replaces the set. `source`: how the keys were verified. */
  put(
    region: string,
    instanceId: string,
    pins: readonly HostKeyPin[],
    source: 'console' | 'first-use' | 'admin',
  ): Promise<void>;
}
