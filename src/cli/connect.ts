/** From options and environment to a client. The token never stands on a command line, where every user can read it. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { type Client, createClient } from '../client/client.ts';
import { SallyportError } from '../errors.ts';
import type { Io } from './io.ts';

export interface ConnectOptions {
  url?: string;
  tokenFile?: string;
  org?: string;
}

export function addConnectOptions(command: Command): Command {
  return command
    .option('--url <url>', 'address of the gateway (default: SALLYPORT_URL)')
    .option('--token-file <file>', 'file that holds the token (default: SALLYPORT_TOKEN)');
}

/** Throws `invalid_request` with what to set. */
export function connect(options: ConnectOptions, env: Io['env']): Client {
  const url = options.url ?? env.SALLYPORT_URL ?? '';
  if (url === '') throw unset('SALLYPORT_URL', 'the address of the gateway, or pass --url');
  const token = options.tokenFile === undefined ? (env.SALLYPORT_TOKEN ?? '').trim() : readTokenFile(options.tokenFile);
  if (token === '') throw unset('SALLYPORT_TOKEN', 'a token, or pass --token-file');
  return createClient({ url, token, orgId: options.org });
}

function unset(name: string, what: string): SallyportError {
  return new SallyportError('invalid_request', `${name} is not set: set it to ${what}`);
}

function readTokenFile(path: string): string {
  const token = readText(path).trim();
  if (token === '') throw new SallyportError('invalid_request', `the token file ${path} is empty`);
  return token;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SallyportError('invalid_request', `the token file cannot be read: ${reason}`, { cause: error });
  }
}
