import { describe, expect, it } from 'vitest';
import { type Expected, type RawRequest, verifyHeader, verifyQuery } from '../../src/lab/sigv4.ts';

/** What the AWS CLI's own functional test expects for openTunnel (tests/functional/ec2instanceconnect/test_opentunnel.py). */
const HOST = 'eice-123.ec2-instance-connect-endpoint.us-west-2.amazonaws.com';
const EXPECTED: Expected = {
  accessKeyId: 'access_key',
  secretAccessKey: 'secret_key',
  sessionToken: null,
  service: 'ec2-instance-connect',
  region: 'us-west-2',
  nowMs: Date.UTC(2020, 0, 1, 1, 1, 1),
};

const GOLDEN_SIGNATURE = '3a56740422a5b9aebd22d860b7a30c729e459a6f71a83bc0de3a2b44b7353f28';

function golden(change: (query: URLSearchParams) => void = () => undefined, host = HOST): RawRequest {
  const query = new URLSearchParams({
    instanceConnectEndpointId: 'eice-123',
    remotePort: '22',
    privateIpAddress: '10.0.0.0',
    maxTunnelDuration: '1',
    'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
    'X-Amz-Credential': 'access_key/20200101/us-west-2/ec2-instance-connect/aws4_request',
    'X-Amz-Date': '20200101T010101Z',
    'X-Amz-Expires': '60',
    'X-Amz-SignedHeaders': 'host',
    'X-Amz-Signature': GOLDEN_SIGNATURE,
  });
  change(query);
  return { method: 'GET', target: `/openTunnel?${query}`, rawHeaders: ['Host', host], body: Buffer.alloc(0) };
}

describe('a presigned URL', () => {
  it('signed by the AWS CLI is accepted, in any order of its parameters', () => {
    expect(() => verifyQuery(golden(), EXPECTED)).not.toThrow();
    const reversed = golden();
    const [path, query = ''] = reversed.target.split('?');
    expect(() =>
      verifyQuery({ ...reversed, target: `${path}?${query.split('&').reverse().join('&')}` }, EXPECTED),
    ).not.toThrow();
  });

  it('holds for as long as it says, and not before its time', () => {
    const at = (seconds: number) => () =>
      verifyQuery(golden(), { ...EXPECTED, nowMs: EXPECTED.nowMs + seconds * 1000 });
    expect(at(60)).not.toThrow();
    expect(at(61)).toThrow('Signature expired');
    expect(at(-300)).not.toThrow();
    expect(at(-301)).toThrow('Signature not yet current');
  });

  it.each([
    ['another address', (query: URLSearchParams) => query.set('privateIpAddress', '10.0.0.1')],
    ['one more parameter', (query: URLSearchParams) => query.set('extra', '1')],
    ['one parameter less', (query: URLSearchParams) => query.delete('maxTunnelDuration')],
    ['a longer life', (query: URLSearchParams) => query.set('X-Amz-Expires', '61')],
    ['a later date', (query: URLSearchParams) => query.set('X-Amz-Date', '20200101T010102Z')],
    ['another signature', (query: URLSearchParams) => query.set('X-Amz-Signature', '0'.repeat(64))],
  ])('%s breaks it', (_what, change) => {
    expect(() => verifyQuery(golden(change), EXPECTED)).toThrow('does not match');
  });

  it('for another host is refused', () => {
    expect(() => verifyQuery(golden(undefined, '127.0.0.1'), EXPECTED)).toThrow('does not match');
  });

  it.each([
    ['X-Amz-Expires', '0'],
    ['X-Amz-Expires', '604801'],
    ['X-Amz-Expires', 'soon'],
    ['X-Amz-SignedHeaders', 'x-other'],
    ['X-Amz-Algorithm', 'AWS4-HMAC-SHA1'],
    ['X-Amz-Date', 'yesterday'],
  ])('%s=%s makes it incomplete', (name, value) => {
    expect(() =>
      verifyQuery(
        golden((query) => query.set(name, value)),
        EXPECTED,
      ),
    ).toThrow(expect.objectContaining({ fault: 'IncompleteSignature' }));
  });

  it.each([
    [{ region: 'us-east-1' }, 'InvalidSignature'],
    [{ service: 'ec2' }, 'InvalidSignature'],
    [{ secretAccessKey: 'other' }, 'InvalidSignature'],
    [{ accessKeyId: 'other' }, 'UnrecognizedClient'],
    [{ sessionToken: 'other' }, 'UnrecognizedClient'],
  ])('where %j is expected it is refused', (other, fault) => {
    expect(() => verifyQuery(golden(), { ...EXPECTED, ...other })).toThrow(expect.objectContaining({ fault }));
  });
});

describe('an Authorization header', () => {
  /** From the AWS documentation: "Examples of the complete Signature Version 4 signing process" (IAM ListUsers). */
  const documented: RawRequest = {
    method: 'GET',
    target: '/?Action=ListUsers&Version=2010-05-08',
    rawHeaders: [
      'Host',
      'iam.amazonaws.com',
      'Content-Type',
      'application/x-www-form-urlencoded; charset=utf-8',
      'X-Amz-Date',
      '20150830T123600Z',
      'Authorization',
      'AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7',
    ],
    body: Buffer.alloc(0),
  };
  const expected: Expected = {
    accessKeyId: 'AKIDEXAMPLE',
    secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
    sessionToken: null,
    service: 'iam',
    region: 'us-east-1',
    nowMs: Date.UTC(2015, 7, 30, 12, 36, 0),
  };

  it('of the documented example is accepted within five minutes either way', () => {
    const at = (seconds: number) => () =>
      verifyHeader(documented, { ...expected, nowMs: expected.nowMs + seconds * 1000 });
    expect(at(0)).not.toThrow();
    expect(at(300)).not.toThrow();
    expect(at(301)).toThrow('Signature expired');
    expect(at(-301)).toThrow('Signature not yet current');
  });

  it('does not cover another body', () => {
    expect(() => verifyHeader({ ...documented, body: Buffer.from('x') }, expected)).toThrow('does not match');
  });

  it('does not cover another method, path, query or header', () => {
    expect(() => verifyHeader({ ...documented, method: 'POST' }, expected)).toThrow('does not match');
    expect(() => verifyHeader({ ...documented, target: '/x?Action=ListUsers&Version=2010-05-08' }, expected)).toThrow(
      'does not match',
    );
    expect(() => verifyHeader({ ...documented, target: '/?Action=ListRoles&Version=2010-05-08' }, expected)).toThrow(
      'does not match',
    );
    const rawHeaders = documented.rawHeaders.map((value) =>
      value === 'iam.amazonaws.com' ? 'iam.example.com' : value,
    );
    expect(() => verifyHeader({ ...documented, rawHeaders }, expected)).toThrow('does not match');
  });

  it('must cover every x-amz header, and the body hash that is claimed must be right', () => {
    const withHeader = (...more: string[]) => ({ ...documented, rawHeaders: [...documented.rawHeaders, ...more] });
    expect(() => verifyHeader(withHeader('X-Amz-Target', 'x'), expected)).toThrow('Not signed: x-amz-target');
    expect(() => verifyHeader(withHeader('X-Amz-Content-Sha256', 'x'), expected)).toThrow('x-amz-content-sha256');
  });
});
