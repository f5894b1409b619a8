/**
 * Host keys as cloud-init prints them on the serial console, once per instance id.
 *
 * Several writers share that line, so text may be cut or mixed; and its own table of *user* keys names the same types.
 * Therefore a key counts only between complete markers, alone on its line, in canonical base64, and as a complete SSH
 * wire key that names the same type. Source: cloud-init tools/write-ssh-key-fingerprints, cc_keys_to_console.py.
 */
import type { HostKeyPin } from './host-keys.ts';
import { isWireKey } from './wire-key.ts';

/**
 * `none`: no block at all · `empty`: a block without a usable key · `partial`: a block that has not ended or not begun ·
 * `conflict`: two keys of one type, of which none is to be trusted.
 */
export type ConsoleKeys =
  | { state: 'ok'; keys: HostKeyPin[] }
  | { state: 'conflict'; keys: HostKeyPin[] }
  | { state: 'none' | 'empty' | 'partial' };

const BEGIN = '-----BEGIN SSH HOST KEY KEYS-----';
const END = '-----END SSH HOST KEY KEYS-----';

/** Colours, cursor movements, window titles. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are control characters.
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;
/** syslog priority, date (BSD or ISO) and host, seconds since boot, writer: each may be missing. */
const LOG_PREFIX =
  /^(?:<\d{1,3}>)?(?:(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)) (?:[\w.-]+ )?)?(?:\[ *\d+\.\d+\] )?(?:(?:cloud-init|ec2)(?:\[\d+\])?: )?/;
const KEY_LINE = /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]+={0,2})(?: [^\n]*)?$/;

export function parseConsoleKeys(output: Buffer): ConsoleKeys {
  const lines = output
    .toString('latin1')
    .replace(ANSI, '')
    .split(/\r\n|\n|\r/);
  const { blocks, broken } = findBlocks(lines);
  const keys = distinct(blocks.flat().flatMap(parseKeyLine));
  if (new Set(keys.map((key) => key.type)).size < keys.length) return { state: 'conflict', keys };
  if (keys.length > 0) return { state: 'ok', keys };
  if (broken) return { state: 'partial' };
  return { state: blocks.length > 0 ? 'empty' : 'none' };
}

/** The lines of each complete block; `broken`: there was a marker without its other half. */
function findBlocks(lines: readonly string[]): { blocks: string[][]; broken: boolean } {
  const blocks: string[][] = [];
  let open: string[] | null = null;
  let broken = false;
  for (const line of lines) {
    const text = line.replace(LOG_PREFIX, '').trimEnd();
    if (text === BEGIN) {
      broken ||= open !== null;
      open = [];
    } else if (text === END) {
      if (open === null) broken = true;
      else blocks.push(open);
      open = null;
    } else {
      open?.push(text);
    }
  }
  return { blocks, broken: broken || open !== null };
}

function parseKeyLine(text: string): HostKeyPin[] {
  const [, type, blob] = KEY_LINE.exec(text) ?? [];
  if (type === undefined || blob === undefined) return [];
  const wire = Buffer.from(blob, 'base64');
  return wire.toString('base64') === blob && isWireKey(wire, type) ? [{ type, blob }] : [];
}

/** Each key once: the same block may have been printed twice. */
function distinct(keys: readonly HostKeyPin[]): HostKeyPin[] {
  return [...new Map(keys.map((key) => [`${key.type} ${key.blob}`, key])).values()];
}
