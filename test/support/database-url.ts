/** What the side that starts the test cluster and the side that uses it share. */
import type { Log } from '../../src/db/log.ts';

export const TEMPLATE = 'sallyport_template';

export function databaseUrl(clusterUrl: string, name: string): string {
  const url = new URL(clusterUrl);
  url.pathname = `/${name}`;
  return url.href;
}

export const silent: Log = { info() {}, warn() {}, error() {} };
