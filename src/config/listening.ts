/** Where the gateway listens, and by what it is protected there. */
import { isIP, isIPv4 } from 'node:net';
import { createSecureContext } from 'node:tls';
import { showValue } from '../access/mask.ts';
import type { Config } from './config.ts';
import { type Kind, oneOf, PORT } from './kinds.ts';
import type { Settings } from './settings.ts';

const HOST: Kind<string> = {
  expected: 'an address without brackets, or a host name',
  parse: (text) => (isIP(text) !== 0 || /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(text) ? text : null),
};

export const TRUST_PROXY: Kind<string | boolean> = {
  expected: 'true, false, a number of proxies, or addresses and networks such as "loopback, 10.0.0.0/8"',
  parse(text) {
    if (text === 'true' || text === 'false') return text === 'true';
    return /^\d{1,2}$/.test(text) || text.split(',').every((part) => isNetwork(part.trim())) ? text : null;
  },
};

export function readListening(settings: Settings): Pick<Config, 'host' | 'port' | 'tls'> {
  const host = settings.read('SALLYPORT_HOST', HOST) ?? '127.0.0.1';
  const port = settings.read('SALLYPORT_PORT', PORT) ?? 8080;
  const plaintext = settings.read('SALLYPORT_PLAINTEXT', oneOf(['behind-proxy']));
  const wantsTls = settings.isSet('SALLYPORT_TLS_CERT') || settings.isSet('SALLYPORT_TLS_KEY');
  const tls = wantsTls ? readTls(settings) : null;
  if (!wantsTls && plaintext === null && !isLoopback(host)) {
    settings.problems.push(
      `SALLYPORT_HOST ${showValue(host)} can be reached from other machines: set SALLYPORT_TLS_CERT and SALLYPORT_TLS_KEY, ` +
        'or SALLYPORT_PLAINTEXT=behind-proxy where a proxy in front speaks TLS.',
    );
  }
  return { host, port, tls };
}

function readTls(settings: Settings): Config['tls'] {
  const missing = ['SALLYPORT_TLS_CERT', 'SALLYPORT_TLS_KEY'].find((name) => !settings.isSet(name));
  if (missing !== undefined) settings.problems.push(`${missing} is missing: certificate and key are set together.`);
  const cert = settings.readFile('SALLYPORT_TLS_CERT');
  const key = settings.readFile('SALLYPORT_TLS_KEY');
  if (cert === null || key === null) return null;
  try {
    createSecureContext({ cert, key });
    return { cert, key };
  } catch {
    // OpenSSL's own words help nobody and may quote the file.
    settings.problems.push('SALLYPORT_TLS_CERT and SALLYPORT_TLS_KEY must be a PEM certificate and its private key.');
    return null;
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

function isNetwork(text: string): boolean {
  if (['loopback', 'linklocal', 'uniquelocal'].includes(text)) return true;
  const [address = '', bits, ...rest] = text.split('/');
  if (isIP(address) === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (isIPv4(address) ? 32 : 128));
}
