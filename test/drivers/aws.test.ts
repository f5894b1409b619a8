/** The AWS calls with the real SDK against a server that speaks the wire formats: what is sent, and what errors become. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Aws, type AwsCall, createAws } from '../../src/drivers/aws.ts';
import { nameAwsError } from '../../src/drivers/aws-errors.ts';
import { SallyportError, type Step } from '../../src/errors.ts';
import { failOnLeaks } from '../support/leaks.ts';
import { waitUntil, within } from '../support/wait.ts';

failOnLeaks();

const REGION = 'eu-west-1';
const ID = 'i-0123456789abcdef0';

interface Request {
  action: string;
  /** Of the EC2 query. */
  params: URLSearchParams;
  /** Of EC2 Instance Connect. */
  json: Record<string, unknown>;
  headers: IncomingMessage['headers'];
}
type Answer = (request: Request, response: ServerResponse) => void;

let server: Server;
let answer: Answer;
const requests: Request[] = [];
let aws: Aws;
const warned: object[] = [];

beforeAll(async () => {
  server = createServer((incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      const target = incoming.headers['x-amz-target'];
      const params = new URLSearchParams(target === undefined ? body : '');
      const request: Request = {
        action: params.get('Action') ?? String(target).replace(/^.*\./, ''),
        params,
        json: target === undefined ? {} : JSON.parse(body),
        headers: incoming.headers,
      };
      requests.push(request);
      answer(request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  process.env.AWS_ENDPOINT_URL = url;
  process.env.AWS_EC2_METADATA_DISABLED = 'true';
  process.env.AWS_CONFIG_FILE = '/nowhere/config';
  process.env.AWS_SHARED_CREDENTIALS_FILE = '/nowhere/credentials';
  await createAws({ log: { warn: () => {} } }).preload();
});

beforeEach(() => {
  process.env.AWS_ACCESS_KEY_ID = 'AKIAEXAMPLE';
  process.env.AWS_SECRET_ACCESS_KEY = 'secret';
  requests.length = 0;
  warned.length = 0;
  aws = createAws({ log: { warn: (fields) => warned.push(fields) } });
});

afterEach(() => aws.close());

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function callFor(step: Step = 'instance', signal = AbortSignal.timeout(15_000)): AwsCall & { told: SallyportError[] } {
  const told: SallyportError[] = [];
  return { step, signal, told, retried: (error) => told.push(error) };
}

const xml =
  (action: string, members: string): Answer =>
  (_, response) => {
    response.writeHead(200, { 'content-type': 'text/xml' });
    response.end(
      `<?xml version="1.0"?><${action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>${members}</${action}Response>`,
    );
  };

const ec2Error =
  (code: string, status: number, message = 'no'): Answer =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'text/xml' });
    response.end(
      `<?xml version="1.0"?><Response><Errors><Error><Code>${code}</Code><Message>${message}</Message></Error></Errors><RequestID>r</RequestID></Response>`,
    );
  };

const eicError =
  (type: string, status: number, message = 'no'): Answer =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' });
    response.end(JSON.stringify({ __type: type, Message: message }));
  };

const pushed: Answer = (_, response) => {
  response.writeHead(200, { 'content-type': 'application/x-amz-json-1.1' });
  response.end('{"RequestId":"r","Success":true}');
};

/** Answers in this order; the last one stays. */
function inOrder(...answers: Answer[]): Answer {
  return (request, response) => (answers.length > 1 ? answers.shift() : answers[0])?.(request, response);
}

const instanceXml = (id: string, extra = '') =>
  `<item><instanceId>${id}</instanceId><instanceState><code>16</code><name>running</name></instanceState>${extra}</item>`;
const reservations = (items: string) =>
  `<reservationSet><item><instancesSet>${items}</instancesSet></item></reservationSet>`;
const push = { instanceId: ID, osUser: 'ec2-user', publicKey: `ssh-ed25519 ${'A'.repeat(68)} x` };

async function refusal(call: Promise<unknown>): Promise<SallyportError> {
  const error = await call.then(
    () => new Error('it succeeded'),
    (caught: unknown) => caught,
  );
  if (error instanceof SallyportError) return error;
  throw error;
}

describe('what is asked and read', () => {
  it('an instance: by filter, with every field', async () => {
    answer = xml(
      'DescribeInstances',
      reservations(
        instanceXml(
          ID,
          `<privateIpAddress>10.0.1.23</privateIpAddress><ipAddress>203.0.113.5</ipAddress><ipv6Address>2600:1f10::1</ipv6Address>
           <vpcId>vpc-1</vpcId><subnetId>subnet-1</subnetId><placement><availabilityZone>eu-west-1a</availabilityZone></placement>
           <launchTime>2025-01-06T15:27:00.000Z</launchTime><instanceType>t4g.small</instanceType><imageId>ami-1</imageId>
           <metadataOptions><httpEndpoint>disabled</httpEndpoint></metadataOptions>
           <tagSet><item><key>Org</key><value>org-a</value></item></tagSet>`,
        ),
      ),
    );
    expect(await aws.describeInstance(REGION, ID, callFor())).toEqual({
      id: ID,
      state: 'running',
      privateIp: '10.0.1.23',
      publicIp: '203.0.113.5',
      ipv6: '2600:1f10::1',
      vpcId: 'vpc-1',
      subnetId: 'subnet-1',
      zone: 'eu-west-1a',
      launchedAt: new Date('2025-01-06T15:27:00Z'),
      instanceType: 't4g.small',
      imageId: 'ami-1',
      stateReason: null,
      securityGroupIds: [],
      metadataEnabled: false,
      tags: new Map([['Org', 'org-a']]),
    });
    const params = requests[0]?.params;
    expect(params?.get('Filter.1.Name')).toBe('instance-id');
    expect(params?.get('Filter.1.Value.1')).toBe(ID);
    expect([...(params?.keys() ?? [])].some((key) => key.startsWith('InstanceId'))).toBe(false);
    expect(requests[0]?.headers.authorization).toContain(`/${REGION}/ec2/aws4_request`);
  });

  it('no instance is null', async () => {
    answer = xml('DescribeInstances', '<reservationSet/>');
    expect(await aws.describeInstance(REGION, ID, callFor())).toBeNull();
  });

  it('instances that are asked for together go in calls of a hundred, each once', async () => {
    answer = (request, response) => {
      const ids = [...request.params].filter(([key]) => key.startsWith('Filter.1.Value')).map(([, value]) => value);
      xml('DescribeInstances', reservations(ids.map((id) => instanceXml(id)).join('')))(request, response);
    };
    const ids = Array.from({ length: 150 }, (_, index) => `i-${String(index).padStart(17, '0')}`);
    const twice = ids.flatMap((id) => [id, id]);
    const found = await Promise.all(twice.map((id) => aws.describeInstance(REGION, id, callFor())));
    expect(found.map((instance) => instance?.id)).toEqual(twice);
    expect(requests).toHaveLength(2);
    expect(await aws.describeInstance(REGION, ID, callFor())).toMatchObject({ id: ID });
    expect(requests).toHaveLength(3);
  });

  it('endpoints: usable ones, page by page, and who asks meanwhile gets the same answer', async () => {
    const item = (id: string, extra = '') =>
      `<item><instanceConnectEndpointId>${id}</instanceConnectEndpointId><state>create-complete</state><vpcId>vpc-1</vpcId>${extra}</item>`;
    answer = inOrder(
      xml(
        'DescribeInstanceConnectEndpoints',
        `<instanceConnectEndpointSet>${item('eice-1', '<dnsName>one.example</dnsName><fipsDnsName>fips.example</fipsDnsName><subnetId>subnet-1</subnetId><availabilityZone>eu-west-1a</availabilityZone><ipAddressType>ipv4</ipAddressType>')}</instanceConnectEndpointSet><nextToken>more</nextToken>`,
      ),
      xml(
        'DescribeInstanceConnectEndpoints',
        `<instanceConnectEndpointSet>${item('eice-2', '<dnsName></dnsName>')}</instanceConnectEndpointSet>`,
      ),
    );
    const [endpoints, same] = await Promise.all([
      aws.listEndpoints(REGION, callFor('endpoint')),
      aws.listEndpoints(REGION, callFor('endpoint')),
    ]);
    expect(endpoints).toEqual([
      {
        id: 'eice-1',
        dnsName: 'one.example',
        vpcId: 'vpc-1',
        subnetId: 'subnet-1',
        zone: 'eu-west-1a',
        ipAddressType: 'ipv4',
      },
      {
        id: 'eice-2',
        dnsName: null,
        vpcId: 'vpc-1',
        subnetId: null,
        zone: null,
        ipAddressType: 'dualstack',
      },
    ]);
    expect(same).toBe(endpoints);
    expect(requests.map(({ params }) => [params.get('MaxResults'), params.get('NextToken')])).toEqual([
      ['50', null],
      ['50', 'more'],
    ]);
    const states = [...(requests[0]?.params ?? [])].filter(([key]) => key.startsWith('Filter.1.Value'));
    expect(states.map(([, value]) => value)).toEqual([
      'create-complete',
      'update-in-progress',
      'update-failed',
      'update-complete',
    ]);
  });

  it('a push: id, user, key, and nothing more', async () => {
    answer = pushed;
    await aws.sendSshPublicKey(REGION, push, callFor('key_push'));
    expect(requests[0]?.json).toEqual({ InstanceId: ID, InstanceOSUser: 'ec2-user', SSHPublicKey: push.publicKey });
    expect(requests[0]?.headers.authorization).toContain('/ec2-instance-connect/aws4_request');
  });

  it('a push that is answered without success is no success', async () => {
    answer = (_, response) => response.end('{"RequestId":"r","Success":false}');
    expect(await refusal(aws.sendSshPublicKey(REGION, push, callFor('key_push')))).toMatchObject({
      code: 'aws_unavailable',
      details: { failedStep: 'key_push' },
    });
  });

  it('console output: the latest where the instance can, else what was posted', async () => {
    const output = xml('GetConsoleOutput', `<output>${Buffer.from('boot\r\n').toString('base64')}</output>`);
    answer = (request, response) =>
      request.params.get('Latest') === 'true'
        ? ec2Error('UnsupportedOperation', 400)(request, response)
        : output(request, response);
    const read = (latest: boolean) => aws.consoleOutput(REGION, ID, { latest }, callFor('host_key'));
    expect(String(await read(true))).toBe('boot\r\n');
    expect(requests.map(({ params }) => params.get('Latest'))).toEqual(['true', null]);
    expect(String(await read(false))).toBe('boot\r\n');
    expect(requests).toHaveLength(3);
    answer = xml('GetConsoleOutput', '');
    expect(await read(true)).toBeNull();
  });

  it('console output of an instance that is gone is not asked for twice', async () => {
    answer = ec2Error('InvalidInstanceID.NotFound', 400);
    expect((await refusal(aws.consoleOutput(REGION, ID, { latest: true }, callFor('host_key')))).code).toBe(
      'host_unreachable',
    );
    expect(requests).toHaveLength(1);
  });

  it('status checks, of instances in every state', async () => {
    answer = xml(
      'DescribeInstanceStatus',
      `<instanceStatusSet><item><instanceId>${ID}</instanceId><instanceState><name>running</name></instanceState>
       <instanceStatus><status>impaired</status></instanceStatus><systemStatus><status>ok</status></systemStatus>
       <eventsSet><item><code>system-reboot</code><description>soon</description><notBefore>2025-01-06T00:00:00.000Z</notBefore></item></eventsSet></item></instanceStatusSet>`,
    );
    expect(await aws.instanceStatus(REGION, ID, callFor('status'))).toEqual({
      state: 'running',
      instance: 'impaired',
      system: 'ok',
      events: [{ code: 'system-reboot', description: 'soon', notBefore: new Date('2025-01-06T00:00:00Z') }],
    });
    expect(requests[0]?.params.get('IncludeAllInstances')).toBe('true');
    answer = ec2Error('InvalidInstanceID.NotFound', 400);
    expect(await aws.instanceStatus(REGION, ID, callFor('status'))).toBeNull();
  });

  it("AWS's clock, from the date of its answers", async () => {
    expect(aws.clockOffsetMs(REGION)).toBe(0);
    answer = (request, response) => {
      response.setHeader('date', new Date(Date.now() + 90_000).toUTCString());
      xml('DescribeInstances', '<reservationSet/>')(request, response);
    };
    await aws.describeInstance(REGION, ID, callFor());
    expect(aws.clockOffsetMs(REGION)).toBeGreaterThan(88_000);
    expect(aws.clockOffsetMs(REGION)).toBeLessThanOrEqual(90_000);
    expect(aws.clockOffsetMs('us-east-1')).toBe(0);
  });

  it('credentials as the SDK finds them', async () => {
    expect(await aws.credentials(REGION, callFor('tunnel'))).toMatchObject({
      accessKeyId: 'AKIAEXAMPLE',
      secretAccessKey: 'secret',
    });
  });
});

describe('an error is named by its name, not by its status', () => {
  it.each<[string, Answer, string, Step]>([
    ['UnauthorizedOperation', ec2Error('UnauthorizedOperation', 403), 'aws_denied', 'status'],
    ['AuthFailure', ec2Error('AuthFailure', 401), 'aws_denied', 'status'],
    ['RequestExpired', ec2Error('RequestExpired', 400), 'aws_denied', 'status'],
    ['an unknown refusal', ec2Error('SomethingNew', 400), 'aws_denied', 'status'],
  ])('EC2: %s', async (_, given, code, failedStep) => {
    answer = given;
    expect(await refusal(aws.instanceStatus(REGION, ID, callFor('status')))).toMatchObject({
      code,
      details: { failedStep, remedy: expect.any(String) },
    });
    expect(requests).toHaveLength(1);
  });

  it.each<[string, number, string, Step, boolean]>([
    ['AuthException', 403, 'aws_denied', 'key_push', false],
    ['AccessDeniedException', 400, 'aws_denied', 'key_push', false],
    ['UnrecognizedClientException', 400, 'aws_denied', 'key_push', false],
    ['ExpiredTokenException', 400, 'aws_denied', 'key_push', false],
    ['InvalidArgsException', 400, 'login_refused', 'key_push', false],
    ['EC2InstanceNotFoundException', 404, 'host_unreachable', 'instance', false],
    ['EC2InstanceStateInvalidException', 400, 'instance_not_running', 'instance', true],
    ['EC2InstanceUnavailableException', 400, 'aws_unavailable', 'key_push', true],
  ])('EC2 Instance Connect: %s', async (name, status, code, failedStep, retryable) => {
    answer = eicError(name, status);
    const error = await refusal(aws.sendSshPublicKey(REGION, push, callFor('key_push')));
    expect(error).toMatchObject({ code, details: { failedStep, remedy: expect.any(String) } });
    expect(error.details.retryable ?? false).toBe(retryable);
    expect(requests).toHaveLength(1);
  });

  it.each<[string, number, string]>([
    ['ThrottlingException', 429, 'aws_throttled'],
    ['ThrottlingException', 400, 'aws_throttled'],
    ['TooManyRequestsException', 429, 'aws_throttled'],
    ['ServiceException', 500, 'aws_unavailable'],
    ['EC2InstanceUnavailableException', 503, 'aws_unavailable'],
  ])('%s as %d is tried again, and told each time', async (name, status, code) => {
    answer = inOrder(eicError(name, status), pushed);
    const call = callFor('key_push');
    await aws.sendSshPublicKey(REGION, push, call);
    expect(call.told.map((error) => error.code)).toEqual([code]);
    expect(call.told[0]?.details).toMatchObject({
      failedStep: 'key_push',
      retryable: true,
      retryAfterS: expect.any(Number),
    });
    expect(warned).toHaveLength(1);
  });

  it('RequestLimitExceeded of EC2 is throttling', async () => {
    answer = inOrder(ec2Error('RequestLimitExceeded', 503), xml('DescribeInstances', '<reservationSet/>'));
    const [one, two] = [callFor(), callFor()];
    await Promise.all([aws.describeInstance(REGION, ID, one), aws.describeInstance(REGION, 'i-0000000f', two)]);
    expect([...one.told, ...two.told].map((error) => error.code)).toEqual(['aws_throttled', 'aws_throttled']);
  });

  it('action and resource are told, and who was denied is not', async () => {
    answer = eicError(
      'AccessDeniedException',
      400,
      'User: arn:aws:iam::123456789012:role/gateway is not authorized to perform: ec2-instance-connect:SendSSHPublicKey on resource: arn:aws:ec2:eu-west-1:123456789012:instance/i-0123 because no policy allows it',
    );
    const error = await refusal(aws.sendSshPublicKey(REGION, push, callFor('key_push')));
    const what = 'ec2-instance-connect:SendSSHPublicKey on arn:aws:ec2:eu-west-1:123456789012:instance/i-0123';
    expect(error.message).toContain(what);
    expect(error.details.remedy).toContain(what);
    expect(`${error.message} ${error.details.remedy}`).not.toContain('role/gateway');
  });

  it('a wrong clock is named, with how wrong it is', () => {
    const at = { action: 'ec2:DescribeInstances', region: REGION, step: 'instance' as const, clockOffsetMs: 900_000 };
    const error = nameAwsError(Object.assign(new Error('x'), { name: 'RequestExpired' }), at);
    expect(error.message).toContain('900 s slow');
    const late = Object.assign(new Error('Signature expired: 1 is now earlier than 2'), {
      name: 'InvalidSignatureException',
    });
    expect(nameAwsError(late, { ...at, clockOffsetMs: -300_000 }).message).toContain('300 s fast');
    expect(error.details.remedy).toContain('clock');
  });

  it('missing credentials are aws_denied', async () => {
    process.env.AWS_ACCESS_KEY_ID = '';
    process.env.AWS_SECRET_ACCESS_KEY = '';
    const fresh = createAws({ log: { warn: () => {} } });
    const describing = () => fresh.describeInstance(REGION, ID, callFor());
    for (const call of [describing, () => fresh.credentials(REGION, callFor('tunnel'))]) {
      const error = await refusal(call());
      expect(error.code).toBe('aws_denied');
      expect(error.details.remedy).toContain('AWS_ACCESS_KEY_ID');
    }
    expect(requests).toHaveLength(0);
    fresh.close();
  });

  it('a cut connection is aws_unavailable, after tries', async () => {
    answer = (_, response) => response.socket?.destroy();
    expect(await refusal(aws.describeInstance(REGION, ID, callFor()))).toMatchObject({
      code: 'aws_unavailable',
      message: expect.stringContaining('ECONNRESET'),
    });
    expect(requests.length).toBeGreaterThan(2);
  });

  it('an error that is named already passes through', () => {
    const known = new SallyportError('capacity', 'x');
    const at = { action: 'a:b', region: REGION, step: 'tunnel' as const, clockOffsetMs: 0 };
    expect(nameAwsError(known, at)).toBe(known);
    expect(nameAwsError('text', at).code).toBe('aws_denied');
  });
});

describe('leaving', () => {
  it('rejects with the reason at once, also between two tries', async () => {
    answer = eicError('ThrottlingException', 429);
    const controller = new AbortController();
    const call = callFor('key_push', controller.signal);
    const pushing = aws.sendSshPublicKey(REGION, push, call);
    await waitUntil('it was throttled', () => call.told.length > 0);
    const reason = new Error('the caller left');
    controller.abort(reason);
    await expect(within('the push ends', pushing, 500)).rejects.toBe(reason);
  });

  it('ends the request when the last of those who share it leaves, and not before', async () => {
    let closed = 0;
    const held: ServerResponse[] = [];
    answer = (_, response) => {
      held.push(response);
      response.on('close', () => {
        closed += 1;
      });
    };
    const [first, second] = [new AbortController(), new AbortController()];
    const calls = [first, second].map(({ signal }) => aws.describeInstance(REGION, ID, callFor('instance', signal)));
    calls.forEach((call) => void call.catch(() => {}));
    await waitUntil('the request arrived', () => held.length > 0);
    first.abort(new Error('one left'));
    await expect(calls[0]).rejects.toThrow('one left');
    expect(closed).toBe(0);
    second.abort(new Error('two left'));
    await expect(calls[1]).rejects.toThrow('two left');
    await waitUntil('the request was ended', () => closed > 0);
    expect(held).toHaveLength(1);
  });

  it('who comes after everybody has left gets a request of its own', async () => {
    answer = (_, response) => void response;
    const controller = new AbortController();
    const left = aws.listEndpoints(REGION, callFor('endpoint', controller.signal));
    left.catch(() => {});
    await waitUntil('the request arrived', () => requests.length > 0);
    controller.abort(new Error('left'));
    answer = xml('DescribeInstanceConnectEndpoints', '');
    expect(await aws.listEndpoints(REGION, callFor('endpoint'))).toEqual([]);
  });

  it('asks nothing when the signal has aborted before', async () => {
    const reason = new Error('too late');
    await expect(aws.describeInstance(REGION, ID, callFor('instance', AbortSignal.abort(reason)))).rejects.toBe(reason);
    await expect(aws.sendSshPublicKey(REGION, push, callFor('key_push', AbortSignal.abort(reason)))).rejects.toBe(
      reason,
    );
    expect(requests).toHaveLength(0);
  });
});
