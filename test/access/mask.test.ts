import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { maskArgv, maskText, showValue } from '../../src/access/mask.ts';

const PEM = '-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkt\nAAAAB3Nz\n-----END OPENSSH PRIVATE KEY-----';
const JWT = 'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl';
/** In pieces, so that no scanner takes this file for a leak. */
const mark = (prefix: string, rest: string) => `${prefix}${rest}`;

describe('in text', () => {
  test.each([
    // by name
    ['--password=hunter2', '--password=***'],
    ['mysql --password=hunter2 -h db', 'mysql --password=*** -h db'],
    ['mysql --password hunter2 -h db', 'mysql --password *** -h db'],
    ['java -token hunter2', 'java -token ***'],
    ['PGPASSWORD=hunter2 psql app', 'PGPASSWORD=*** psql app'],
    ['export DB_PASS="two words"; run', 'export DB_PASS="***"; run'],
    ["API_KEY='a b' run", "API_KEY='***' run"],
    ['SECRET=a"b c"\'d e\'\\ f run', 'SECRET=*** run'],
    ['PASSWORD="never closed', 'PASSWORD="***"'],
    ['kubectl create secret generic x --from-literal=password=hunter2', /--from-literal=password=\*\*\*$/],
    ['docker run --env=DB_PASSWORD=hunter2 app', 'docker run --env=DB_PASSWORD=*** app'],
    ['https://host/x?token=abc&page=2', 'https://host/x?token=***&page=2'],
    ['password = hunter2', 'password = ***'],
    ['AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI', 'AWS_SECRET_ACCESS_KEY=***'],
    ['clientSecret=abc dbPassword2=x accessToken=y', 'clientSecret=*** dbPassword2=*** accessToken=***'],
    ['openssl rsa -passin pass:hunter2', 'openssl rsa -passin ***'],
    ['spring.datasource.password=hunter2', 'spring.datasource.password=***'],
    // fields
    ['{"user":"ada","password":"hunter2","n":1}', '{"user":"ada","password":"***","n":1}'],
    ['{"password": "a\\"b", "n": 1}', '{"password": "***", "n": 1}'],
    ['"{\\"apiKey\\":\\"abc\\",\\"n\\":1}"', '"{\\"apiKey\\":\\"***\\",\\"n\\":1}"'],
    ["curl -H 'X-Api-Key: abc' -d 'token=abc' -H 'foo: bar'", "curl -H 'X-Api-Key: ***' -d 'token=***' -H 'foo: bar'"],
    ['users:\n  - password: hunter2\n    shell: /bin/sh', 'users:\n  - password: ***\n    shell: /bin/sh'],
    // by form
    ['Authorization: Bearer abc.def', 'Authorization: ***'],
    ['authorization: basic dXNlcjpwYXNz', 'authorization: ***'],
    ['Authorization: abc', 'Authorization: ***'],
    ['--header=Proxy-Authorization: Digest abc', '--header=Proxy-Authorization: ***'],
    ['Authorization: Own scheme="a b", c', /^Authorization: \*\*\*"a b", c$/],
    ['{"Authorization":"Bearer abc"}', '{"Authorization":"***"}'],
    ['sent Bearer abcdef123 to it', 'sent Bearer *** to it'],
    ['sent Basic dXNlcjpwYXNz to it', 'sent Basic *** to it'],
    [`a ${PEM} b`, 'a *** b'],
    [PEM.replaceAll('\n', '\\n'), '***'],
    [PEM.slice(0, 60), '***'],
    ['-----BEGIN PGP PRIVATE KEY BLOCK-----\nx\n-----END PGP PRIVATE KEY BLOCK-----!', '***!'],
    ['postgres://ada:hunter2@db/app', 'postgres://ada:***@db/app'],
    ['https://:hunter2@host/', 'https://:***@host/'],
    ['redis://ada:p@ss@host', 'redis://ada:***@host'],
    [`x=${JWT};`, 'x=***;'],
    // by prefix
    [mark('AKIA', 'IOSFODNN7EXAMPLE'), '***'],
    [mark('ASIA', 'IOSFODNN7EXAMPLE'), '***'],
    [mark('ghp_', 'abcdefghij0123456789'), '***'],
    [mark('gho_', 'abcdefghij0123456789'), '***'],
    [mark('github_pat_', 'abcdefghij_0123456789'), '***'],
    [mark('glpat-', 'abcdefghij0123456789'), '***'],
    [mark('xoxb-', '1234567890-abcdef'), '***'],
    [mark('sk-', 'proj-abcdefghij0123456789'), '***'],
    [mark('sk_live_', 'abcdefghij0123456789'), '***'],
    [mark('npm_', 'abcdefghij0123456789abcdefghij012345'), '***'],
    [mark('AIza', 'abcdefghij0123456789abcdefghij01234'), '***'],
    [mark('hvs.', 'abcdefghij0123456789'), '***'],
    [mark('AGE-SECRET-KEY-1', 'ABCDEFGHIJ0123456789'), '***'],
  ])('%s', (text, masked) => {
    expect(maskText(text)).toEqual(typeof masked === 'string' ? masked : expect.stringMatching(masked));
  });

  test.each([
    'df -h / && echo X',
    '--password-file=/run/secrets/db',
    '--password-file /run/secrets/db --verbose',
    '--token-ttl=1h --max-tokens=100 --secret-name=db',
    'docker login --password-stdin registry',
    'PWD=/home/ada OLDPWD=/ PATH=/bin HOME=/root',
    'bypass=1 compass=north passenger=ada tokenizer=fast --passive=yes author=ada',
    'if [ "$password" == "x" ]; then',
    'PASSWORD= run',
    'error at 12:30: token: expired',
    'basic understanding and bearer token and Basic setup',
    'git config credential.helper store',
    'the password is wrong',
    'disk-image-of-the-old-server task-runner-for-the-build',
    'http://host:8080/a@b ssh://git@github.com/x.git',
    'scp ada@host:/etc/passwd .',
    'cat /etc/ssl/private-keys/README /var/lib/token',
    '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
    'eyJ is how they begin',
    '6b1c9f0e-7d0a-4c64-9d2e-3f5b8a1c2d3e da39a3ee5e6b4b0d3255bfef95601890afd80709',
    'imagePullSecrets:\n- name: registry\nsecretKeyRef:\n  key: password',
  ])('stays: %s', (text) => {
    expect(maskText(text)).toBe(text);
  });
});

describe('in argv', () => {
  test.each<[string[], string[]]>([
    [
      ['mysql', '--password', 'two words', '-h', 'db'],
      ['mysql', '--password', '***', '-h', 'db'],
    ],
    [
      ['mysql', '--password=two words; and more'],
      ['mysql', '--password=***'],
    ],
    [
      ['env', 'DB_TOKEN=two words', 'run'],
      ['env', 'DB_TOKEN=***', 'run'],
    ],
    [
      ['run', '--token', '-starts-with-a-dash'],
      ['run', '--token', '***'],
    ],
    [
      ['mysql', '--password', '--host', 'db'],
      ['mysql', '--password', '--host', 'db'],
    ],
    [
      ['sh', '-c', 'PGPASSWORD=x pg_dump app'],
      ['sh', '-c', 'PGPASSWORD=*** pg_dump app'],
    ],
    [
      ['bash', '-lc', 'TOKEN=x run'],
      ['bash', '-lc', 'TOKEN=*** run'],
    ],
    [
      ['psql', '-c', '--password=x y'],
      ['psql', '-c', '--password=***'],
    ],
    [
      ['curl', '-H', 'Authorization: Bearer abc', 'https://h'],
      ['curl', '-H', 'Authorization: ***', 'https://h'],
    ],
    [
      ['curl', 'https://ada:x@h/'],
      ['curl', 'https://ada:***@h/'],
    ],
    [
      ['tee', 'key.pem', PEM],
      ['tee', 'key.pem', '***'],
    ],
    [
      ['kubectl', 'get', 'secret', 'db'],
      ['kubectl', 'get', 'secret', 'db'],
    ],
    [
      ['passwd', 'ada'],
      ['passwd', 'ada'],
    ],
    [
      ['gpg', '--passphrase-file', '/x', '-p', 'y'],
      ['gpg', '--passphrase-file', '/x', '-p', 'y'],
    ],
    [
      ['run', '--token'],
      ['run', '--token'],
    ],
    [[''], ['']],
  ])('%j', (argv, masked) => {
    expect(maskArgv(argv)).toEqual(masked);
  });
});

/** What the rules look for, in pieces that can be put together in every order. */
const PIECES = [
  ...[
    'password',
    'API_KEY',
    'name',
    '--token',
    '-x',
    '=',
    ': ',
    ' = ',
    ' ',
    '"',
    "'",
    '\\"',
    '\\',
    '\n',
    '***',
    '&',
    ';',
  ],
  ...[
    'a',
    'hunter2',
    'Bearer ',
    'Basic ',
    'dXNlcjpwYXNz',
    'Authorization: ',
    'http://',
    'u:p@h',
    '@',
    ':',
    '{',
    ',',
    'é',
  ],
  ...[
    '-----BEGIN RSA PRIVATE KEY-----',
    '-----END RSA PRIVATE KEY-----',
    JWT,
    'sk-',
    'abcdefghijklmnopqrst',
    '.',
    '-',
    '_',
  ],
];
const texts = fc.array(fc.constantFrom(...PIECES), { maxLength: 12 }).map((pieces) => pieces.join(''));

describe('always', () => {
  test('masking twice changes nothing', () => {
    fc.assert(
      fc.property(texts, (text) => {
        expect(maskText(maskText(text))).toBe(maskText(text));
      }),
      { numRuns: 5000 },
    );
    fc.assert(
      fc.property(fc.array(texts, { maxLength: 4 }), (argv) => {
        expect(maskArgv(maskArgv(argv))).toEqual(maskArgv(argv));
      }),
      { numRuns: 2000 },
    );
  });

  test('128 KiB of any pattern take linear time', () => {
    const size = 128 * 1024;
    const starts = ['', ...PIECES];
    let slowestMs = 0;
    for (const start of starts) {
      for (const piece of PIECES) {
        const text = start + piece.repeat(Math.ceil(size / piece.length));
        const beganMs = performance.now();
        maskText(text);
        slowestMs = Math.max(slowestMs, performance.now() - beganMs);
      }
    }
    // Measured: 45 ms at worst. One quadratic pattern takes minutes.
    expect(slowestMs).toBeLessThan(1500);
  });
});

describe('showValue', () => {
  test.each<[unknown, string]>([
    [undefined, 'nothing'],
    [null, 'null'],
    [1.5, '1.5'],
    [Number.NaN, 'NaN'],
    [true, 'true'],
    [[1, 2], 'an array of 2'],
    [{ a: 1 }, 'an object'],
    ['a "b"', '"a \\"b\\""'],
    ['a\u0000\u001b[31m\n', '"a\\u0000\\u001b[31m\\n"'],
    ['\u007f\u009b\u202e\u2028\ufeff', '"\\u{7f}\\u{9b}\\u{202e}\\u{2028}\\u{feff}"'],
    ['\ud800', '"\\ud800"'],
    ['--password=hunter2', '"--password=***"'],
    ['x'.repeat(81), `"${'x'.repeat(80)}…"`],
  ])('%j is shown as %s', (value, shown) => {
    expect(showValue(value)).toBe(shown);
  });

  test('a secret at the cut is not shown by half', () => {
    expect(showValue(`${'x '.repeat(35)}password=hunter2hunter2`)).not.toContain('hunter');
  });

  test('a character at the cut is not shown by half', () => {
    expect(showValue(`${'x'.repeat(79)}😀😀`)).toBe(`"${'x'.repeat(79)}…"`);
  });
});
