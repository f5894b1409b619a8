/**
 * The AWS services of the lab on one HTTP port: EC2 (query protocol, XML) and EC2 Instance Connect (JSON 1.1). Decides
 * which service a request is for, checks its signature, counts it, delays it, and gives answers and errors their shape.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { EC2_ACTIONS } from './ec2-api.ts';
import { Ec2Error } from './ec2-params.ts';
import { EicError, parsePush, sendPublicKey } from './eic-api.ts';
import type { LabContext } from './lab-context.ts';
import { serviceNowMs } from './lab-context.ts';
import { SignatureError, type SignatureFault, verifyHeader } from './sigv4.ts';
import { element } from './xml.ts';

const EC2_VERSION = '2016-11-15';
const EIC_TARGET = 'AWSEC2InstanceConnectService.';

interface Answer {
  status: number;
  contentType: string;
  body: string;
}

/** Answers one POST to `/`. */
export async function answerAws(
  request: IncomingMessage,
  response: ServerResponse,
  body: Buffer,
  context: LabContext,
): Promise<void> {
  const requestId = randomUUID();
  const hangUp = new AbortController();
  response.once('close', () => hangUp.abort());
  const call: Call = { request, body, requestId, context, gone: hangUp.signal };
  const target = request.headers['x-amz-target'];
  const answer = typeof target === 'string' ? await answerEic({ ...call, operation: target }) : await answerEc2(call);
  response.writeHead(answer.status, {
    'content-type': answer.contentType,
    'x-amzn-requestid': requestId,
    // Clients set their clock by this header.
    date: new Date(serviceNowMs(context)).toUTCString(),
  });
  response.end(answer.body);
}

interface Call {
  request: IncomingMessage;
  body: Buffer;
  requestId: string;
  context: LabContext;
  /** The client hung up. */
  gone: AbortSignal;
}

async function answerEc2(call: Call): Promise<Answer> {
  const { requestId, context } = call;
  const contentType = 'text/xml;charset=UTF-8';
  try {
    verifyCall(call, 'ec2');
    const params = new URLSearchParams(call.body.toString('utf8'));
    const action = params.get('Action') ?? '';
    context.counters.apiCall(action);
    await delay(params.get('InstanceId') ?? params.get('InstanceId.1'), call);
    const run = Object.hasOwn(EC2_ACTIONS, action) ? EC2_ACTIONS[action] : undefined;
    if (run === undefined || params.get('Version') !== EC2_VERSION) {
      throw new Ec2Error('InvalidAction', `The action ${action} is not valid for this web service.`);
    }
    if (params.get('DryRun') === 'true')
      throw new Ec2Error('DryRunOperation', 'Request would have succeeded, but DryRun flag is set.', 412);
    const members = { requestId, ...run(params, context) };
    const body = element(`${action}Response`, members, ` xmlns="http://ec2.amazonaws.com/doc/${EC2_VERSION}/"`);
    return { status: 200, contentType, body: xmlText(body) };
  } catch (error) {
    const { code, message, status } = ec2Error(error);
    const body = `<Response><Errors>${element('Error', { Code: code, Message: message })}</Errors>${element('RequestID', requestId)}</Response>`;
    return { status, contentType, body: xmlText(body) };
  }
}

async function answerEic(call: Call & { operation: string }): Promise<Answer> {
  const { requestId, context } = call;
  const contentType = 'application/x-amz-json-1.1';
  try {
    verifyCall(call, 'ec2-instance-connect');
    const name = call.operation.startsWith(EIC_TARGET) ? call.operation.slice(EIC_TARGET.length) : call.operation;
    context.counters.apiCall(name);
    if (name !== 'SendSSHPublicKey')
      throw new EicError('UnknownOperationException', `Unknown operation ${call.operation}`);
    const push = parsePush(call.body);
    await delay(push.instanceId, call);
    sendPublicKey(push, context);
    return { status: 200, contentType, body: JSON.stringify({ RequestId: requestId, Success: true }) };
  } catch (error) {
    const { type, message, status } = eicError(error);
    return { status, contentType, body: JSON.stringify({ __type: type, Message: message }) };
  }
}

function verifyCall(call: Call, service: string): void {
  const { world, sessionToken } = call.context;
  verifyHeader(
    {
      method: call.request.method ?? '',
      target: call.request.url ?? '',
      rawHeaders: call.request.rawHeaders,
      body: call.body,
    },
    {
      accessKeyId: world.accessKeyId,
      secretAccessKey: world.secretAccessKey,
      sessionToken,
      service,
      region: world.region,
      nowMs: serviceNowMs(call.context),
    },
  );
}

/** The link's latency counts for API calls as one round trip. */
async function delay(instanceId: string | null, { context, gone }: Call): Promise<void> {
  const latency = context.faults.take('latency_ms', instanceId);
  if (latency !== null) await sleep(latency.value, undefined, { signal: gone });
}

const EC2_SIGNATURE_ERRORS: Record<SignatureFault, { code: string; status: number }> = {
  MissingAuthenticationToken: { code: 'MissingAuthenticationToken', status: 403 },
  IncompleteSignature: { code: 'IncompleteSignature', status: 400 },
  UnrecognizedClient: { code: 'AuthFailure', status: 401 },
  InvalidSignature: { code: 'SignatureDoesNotMatch', status: 403 },
  Expired: { code: 'RequestExpired', status: 400 },
};

const EIC_SIGNATURE_ERRORS: Record<SignatureFault, { type: string; status: number }> = {
  MissingAuthenticationToken: { type: 'MissingAuthenticationTokenException', status: 400 },
  IncompleteSignature: { type: 'IncompleteSignatureException', status: 400 },
  UnrecognizedClient: { type: 'UnrecognizedClientException', status: 400 },
  InvalidSignature: { type: 'InvalidSignatureException', status: 400 },
  Expired: { type: 'InvalidSignatureException', status: 400 },
};

function ec2Error(error: unknown): { code: string; message: string; status: number } {
  if (error instanceof Ec2Error) return error;
  if (error instanceof SignatureError) return { ...EC2_SIGNATURE_ERRORS[error.fault], message: error.message };
  throw error;
}

function eicError(error: unknown): { type: string; message: string; status: number } {
  if (error instanceof EicError) return error;
  if (error instanceof SignatureError) return { ...EIC_SIGNATURE_ERRORS[error.fault], message: error.message };
  throw error;
}

function xmlText(body: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n${body}`;
}
