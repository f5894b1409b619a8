/** What tests ask of the lab over HTTP: faults, cuts, counters, and which instances there are. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Counters } from './counters.ts';
import { type Faults, parseFault, UnknownFaultError } from './faults.ts';
import type { PushedKeys } from './pushed-keys.ts';

export interface ControlDeps {
  faults: Faults;
  counters: Counters;
  keys: PushedKeys;
  instances(): { id: string; os_user: string; private_ip: string; ssh: string }[];
  /** Brings the gauges that others hold up to date. */
  refreshCounters(): void;
  cutConnections(): void;
  /** Appends to what the instance has written on its console; latin1. */
  writeConsole(instanceId: string, text: string): void;
  /** A machine that stops drops its connections. */
  cutInstance(instanceId: string | null): void;
}

/** False: not a path of this file. */
export function answerControl(
  request: IncomingMessage,
  response: ServerResponse,
  body: Buffer,
  deps: ControlDeps,
): boolean {
  const path = request.url ?? '';
  if (request.method === 'GET' && path.startsWith('/keys/')) {
    sendKeys(path, response, deps);
    return true;
  }
  const route = routes(deps, body)[`${request.method} ${path}`];
  if (route === undefined) return false;
  const [status, answer] = run(route);
  send(response, status, answer);
  return true;
}

type Route = () => object;

function routes(deps: ControlDeps, body: Buffer): Record<string, Route | undefined> {
  return {
    'GET /faults': () => ({ faults: listFaults(deps.faults) }),
    'POST /faults': () => setFault(deps, body),
    'DELETE /faults': () => {
      deps.faults.clear();
      return { faults: [] };
    },
    'POST /console': () => writeConsole(deps, body),
    'DELETE /connections': () => {
      deps.cutConnections();
      return {};
    },
    'GET /counters': () => {
      deps.refreshCounters();
      return deps.counters;
    },
    'DELETE /counters': () => {
      deps.counters.reset();
      return {};
    },
    'GET /instances': () => ({ instances: deps.instances() }),
  };
}

function run(route: Route): [status: number, answer: object] {
  try {
    return [200, route()];
  } catch (error) {
    if (error instanceof UnknownFaultError) return [400, { error: error.message }];
    throw error;
  }
}

function setFault(deps: ControlDeps, body: Buffer): object {
  const fault = parseFault(
    parseJson(body),
    deps.instances().map(({ id }) => id),
  );
  deps.faults.set(fault);
  if (fault.name === 'instance_stopped' || fault.name === 'instance_missing') deps.cutInstance(fault.instanceId);
  return { faults: listFaults(deps.faults) };
}

function writeConsole(deps: ControlDeps, body: Buffer): object {
  const { instance_id: id, text } = Object(parseJson(body)) as Record<string, unknown>;
  if (typeof id !== 'string' || !deps.instances().some((instance) => instance.id === id) || typeof text !== 'string')
    throw new UnknownFaultError('expected {"instance_id": an instance of this lab, "text": what it writes}');
  deps.writeConsole(id, text);
  return {};
}

function listFaults(faults: Faults): object[] {
  return faults.list().map(({ name, instanceId, timesLeft, value }) => ({
    fault: name,
    instance_id: instanceId,
    times: timesLeft,
    value,
  }));
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw new UnknownFaultError('the body is not JSON');
  }
}

/** For the AuthorizedKeysCommand of a real sshd: /keys/<instance>/<user>. */
function sendKeys(path: string, response: ServerResponse, { keys, faults }: ControlDeps): void {
  const [, , instanceId = '', rawUser = ''] = path.split('/');
  const osUser = decodeURIComponent(rawUser);
  const refused = faults.take('login_refused', instanceId) !== null;
  const lines = refused ? [] : keys.lines({ instanceId, osUser });
  response.writeHead(200, { 'content-type': 'text/plain', connection: 'close' });
  response.end(lines.map((line) => `${line}\n`).join(''));
}

function send(response: ServerResponse, status: number, answer: object): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(answer)}\n`);
}
