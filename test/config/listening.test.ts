import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';
import { selfSigned } from '../client/self-signed.ts';
import { problems, withFolder } from './settings.ts';

const { folder, file } = withFolder();
const { cert, key } = selfSigned();
const CERT_FILE = file('cert.pem', cert);
const KEY_FILE = file('key.pem', key);
const OTHER_KEY_FILE = file('other-key.pem', selfSigned().key);

describe('listening', () => {
  test.each(['127.0.0.1', '127.8.9.10', '::1', 'localhost'])('on %s needs nothing more', (host) => {
    expect(readConfig({ SALLYPORT_HOST: host }).host).toBe(host);
  });

  test.each(['0.0.0.0', '::', '10.0.0.1', 'gateway.example', 'localhost.example', '127.example', '::ffff:127.0.0.1'])(
    'on %s needs TLS or a proxy',
    (host) => {
      expect(problems({ SALLYPORT_HOST: host })).toEqual([expect.stringContaining('SALLYPORT_PLAINTEXT=behind-proxy')]);
      expect(problems({ SALLYPORT_HOST: host, SALLYPORT_PLAINTEXT: 'behind-proxy' })).toEqual([]);
      expect(problems({ SALLYPORT_HOST: host, SALLYPORT_TLS_CERT: CERT_FILE, SALLYPORT_TLS_KEY: KEY_FILE })).toEqual(
        [],
      );
    },
  );

  test('for metrics takes another port than for everything else', () => {
    expect(problems({ SALLYPORT_PORT: '9000', SALLYPORT_METRICS_PORT: '9000' })).toEqual([
      expect.stringContaining('SALLYPORT_METRICS_PORT must be another port'),
    ]);
    expect(problems({ SALLYPORT_METRICS_PORT: '8080' })).toHaveLength(1);
    expect(problems({ SALLYPORT_PORT: '0', SALLYPORT_METRICS_PORT: '0' })).toEqual([]);
  });

  test('with TLS works on loopback too', () => {
    const env = { SALLYPORT_TLS_CERT: CERT_FILE, SALLYPORT_TLS_KEY: KEY_FILE };
    expect(readConfig(env).tls).toEqual({ cert, key });
  });

  test.each<[string, NodeJS.ProcessEnv, string]>([
    ['a certificate without a key', { SALLYPORT_TLS_CERT: CERT_FILE }, 'SALLYPORT_TLS_KEY is missing'],
    ['a key without a certificate', { SALLYPORT_TLS_KEY: KEY_FILE }, 'SALLYPORT_TLS_CERT is missing'],
    [
      'a key of another certificate',
      { SALLYPORT_TLS_CERT: CERT_FILE, SALLYPORT_TLS_KEY: OTHER_KEY_FILE },
      'SALLYPORT_TLS_CERT and SALLYPORT_TLS_KEY must be',
    ],
    [
      'a file that is missing',
      { SALLYPORT_TLS_CERT: join(folder, 'missing'), SALLYPORT_TLS_KEY: KEY_FILE },
      'SALLYPORT_TLS_CERT must name a file that can be read',
    ],
  ])('with %s is refused, and only for that', (_what, env, text) => {
    expect(problems({ ...env, SALLYPORT_HOST: '0.0.0.0' })).toEqual([expect.stringContaining(text)]);
  });
});

describe('trusting a proxy', () => {
  test.each<[string, string | boolean]>([
    ['true', true],
    ['false', false],
    ['1', '1'],
    ['uniquelocal', 'uniquelocal'],
    ['10.1.2.3,fd00::/8', '10.1.2.3,fd00::/8'],
  ])('%s', (text, value) => {
    expect(readConfig({ SALLYPORT_TRUST_PROXY: text }).trustProxy).toBe(value);
  });
});
