/**
 * What an endpoint answered instead of a tunnel → one of our named errors.
 *
 * AWS has published neither the statuses of a refused upgrade nor the close codes: the `ErrorCode` and the reason text
 * decide, the status only where they say nothing.
 */
import { type ErrorDetails, SallyportError } from '../errors.ts';
import { nameDenial } from './aws-errors.ts';

/** The network failed, not the far side's answer: one more try is worth it. */
export class TunnelLostError extends SallyportError {
  /** The target had answered already: trying again would not be the same connection made good. */
  readonly afterFirstByte: boolean;

  constructor(message: string, details: ErrorDetails & { afterFirstByte: boolean }) {
    const { afterFirstByte, ...rest } = details;
    super('host_unreachable', message, { failedStep: 'tunnel', retryable: true, ...rest });
    this.afterFirstByte = afterFirstByte;
  }
}

/** 20 connections per endpoint, not adjustable. Matched against code and text: the real answer is not public. */
const QUOTA = /quota|limit ?exceeded|too ?many|concurrent/i;
const THROTTLED = /throttl/i;
const DENIED = /access ?denied|unauthori[sz]ed|auth|forbidden/i;
const SIGNATURE = /signature|expired|token|credential|unrecognizedclient/i;
const TARGET_DOWN = /unable to connect to target/i;
const CERTIFICATE = /^(CERT_|ERR_TLS|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|HOSTNAME_)/;

const OPEN_TUNNEL = { action: 'ec2-instance-connect:OpenTunnel', step: 'tunnel' } as const;
const CAPACITY_RETRY_S = 10;
const UNAVAILABLE_RETRY_S = 15;

export function nameRefusedUpgrade(status: number, body: string): SallyportError {
  const { code, message } = parseRefusal(body);
  const said = code === '' ? `status ${status}` : code;
  if (SIGNATURE.test(code)) {
    return refused('aws_denied', `the endpoint does not accept the signature (${said})`, {
      remedy: "renew the gateway's AWS credentials and synchronise its clock; a signed tunnel URL lives 60 s",
    });
  }
  if (DENIED.test(code) || (code === '' && (status === 401 || status === 403)))
    return nameDenial({ name: said, message }, OPEN_TUNNEL);
  if (THROTTLED.test(code)) {
    return refused('aws_throttled', `AWS throttled the opening of the tunnel (${said})`, {
      retryable: true,
      retryAfterS: CAPACITY_RETRY_S,
    });
  }
  if (QUOTA.test(code) || QUOTA.test(message) || (code === '' && status === 429)) return full(said);
  if (status >= 500) {
    return refused('aws_unavailable', `the endpoint cannot open tunnels now (${said})`, {
      retryable: true,
      retryAfterS: UNAVAILABLE_RETRY_S,
    });
  }
  return refused(
    'host_unreachable',
    `the endpoint refused the tunnel (${said}${message === '' ? '' : `: ${message}`})`,
    {
      remedy: 'check that the endpoint and the instance are in one VPC and that the address types fit',
    },
  );
}

/** A close with any code but 1000. */
export function nameClosedTunnel(code: number, reason: string, afterFirstByte: boolean): SallyportError {
  if (TARGET_DOWN.test(reason)) {
    return refused('host_unreachable', 'the endpoint could not reach port 22 of the instance', {
      remedy:
        "the instance's security group must admit port 22 from the endpoint's security group; sshd must be running and listening; an instance that was started a moment ago may still be booting",
    });
  }
  if (QUOTA.test(reason)) return full(reason);
  if (code === 1006) return new TunnelLostError('the connection to the endpoint was cut', { afterFirstByte });
  return refused('host_unreachable', `the endpoint closed the tunnel (${code}${reason === '' ? '' : ` ${reason}`})`, {
    retryable: true,
  });
}

export function nameFailedHandshake(error: Error): SallyportError {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (CERTIFICATE.test(code)) {
    return refused('host_unreachable', `the endpoint's TLS certificate is not trusted (${code})`, {
      remedy: 'if a proxy opens TLS on the way, give its certificate in NODE_EXTRA_CA_CERTS',
      cause: error,
    });
  }
  return new TunnelLostError(`the endpoint cannot be reached (${code === '' ? 'no proper answer' : code})`, {
    afterFirstByte: false,
    remedy: "the gateway must resolve the endpoint's DNS name and reach it at port 443",
    cause: error,
  });
}

function full(said: string): SallyportError {
  return refused('capacity', `the endpoint has no free tunnel (${said})`, {
    retryable: true,
    retryAfterS: CAPACITY_RETRY_S,
    remedy: 'an endpoint carries 20 connections at once; they are freed as sessions fall idle',
  });
}

function refused(
  code: 'aws_denied' | 'aws_throttled' | 'aws_unavailable' | 'capacity' | 'host_unreachable',
  message: string,
  details: ErrorDetails,
): SallyportError {
  return new SallyportError(code, message, { failedStep: 'tunnel', ...details });
}

function parseRefusal(body: string): { code: string; message: string } {
  try {
    const raw: unknown = JSON.parse(body);
    if (typeof raw !== 'object' || raw === null) return { code: '', message: '' };
    const { ErrorCode, Message } = raw as { ErrorCode?: unknown; Message?: unknown };
    return {
      code: typeof ErrorCode === 'string' ? ErrorCode : '',
      message: typeof Message === 'string' ? Message : '',
    };
  } catch {
    // Not JSON: a proxy's page, or cut short. The status has to do.
    return { code: '', message: '' };
  }
}
