/** Asked every few seconds by machines: their log lines and spans would drown the rest. */
const PROBES: ReadonlySet<string> = new Set(['/healthz', '/readyz', '/metrics']);

export function isProbe(path: string): boolean {
  return PROBES.has(path);
}
