/**
 * What AWS answered → one of our named errors, by the error's name: the HTTP status decides only when the name says
 * nothing (the same denial comes as 400 or 403, the same overload as 400, 429 or 503).
 *
 * Messages carry the action and the resource, never the caller's own identity: they are shown to tenants.
 */
import { type ErrorCode, type ErrorDetails, SallyportError, type Step } from '../errors.ts';

export interface AwsAction {
  /** As IAM writes it, e.g. `ec2:DescribeInstances`. */
  action: string;
  region: string;
  step: Step;
  /** Server's clock minus ours, as far as known. */
  clockOffsetMs: number;
}

/** The parts of an SDK error that are looked at; every one may be missing. */
interface RawError {
  name: string;
  message: string;
  code: string | null;
  status: number | null;
}

const THROTTLED =
  /^(RequestLimitExceeded|Throttling|ThrottlingException|ThrottledException|RequestThrottled(Exception)?|EC2ThrottledException|TooManyRequestsException|SlowDown|BandwidthLimitExceeded|LimitExceededException|PriorRequestNotComplete)$/;
const CLOCK = /^(RequestExpired|RequestInTheFuture|RequestTimeTooSkewed)$/;
const CLOCK_TEXT = /signature (has )?expired|not yet current/i;
const NO_CREDENTIALS = /^(CredentialsProviderError|TokenProviderError|ProviderError)$/;
const BAD_CREDENTIALS =
  /^(ExpiredToken(Exception)?|UnrecognizedClientException|InvalidClientTokenId|InvalidSignatureException|SignatureDoesNotMatch|IncompleteSignature(Exception)?|MissingAuthenticationToken(Exception)?|InvalidAccessKeyId|AuthFailure|OptInRequired)$/;
const DENIED = /^(AccessDenied(Exception)?|UnauthorizedOperation|AuthException|Blocked|Forbidden)$/;
const MISSING = /^(InvalidInstanceID\.(NotFound|Malformed)|EC2InstanceNotFoundException)$/;
const UNAVAILABLE =
  /^(EC2InstanceUnavailableException|ServiceException|InternalError|InternalFailure|InternalServerError|ServiceUnavailable(Exception)?|Unavailable|TimeoutError|RequestTimeout(Exception)?)$/;
const NETWORK = /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_|ERR_TLS|CERT_|UNABLE_TO_)/;

const THROTTLE_RETRY_S = 5;
/** The service's own advice for an unavailable instance is "wait a few minutes"; most pass sooner. */
const UNAVAILABLE_RETRY_S = 15;

export function nameAwsError(error: unknown, at: AwsAction): SallyportError {
  if (error instanceof SallyportError) return error;
  const raw = readError(error);
  const named = (code: ErrorCode, message: string, details: ErrorDetails) =>
    new SallyportError(code, message, { failedStep: at.step, ...details, cause: error });

  if (THROTTLED.test(raw.name) || (raw.status === 429 && !DENIED.test(raw.name))) {
    return named('aws_throttled', `AWS throttled ${at.action} in ${at.region}`, {
      retryable: true,
      retryAfterS: THROTTLE_RETRY_S,
      remedy:
        'AWS limits this call per account and region: try again in a few seconds, or open fewer connections at once',
    });
  }
  if (CLOCK.test(raw.name) || CLOCK_TEXT.test(raw.message)) {
    return named('aws_denied', `AWS refused the date of ${at.action}: ${clockText(at.clockOffsetMs)}`, {
      remedy: "synchronise the gateway's clock (NTP, chrony)",
    });
  }
  if (NO_CREDENTIALS.test(raw.name)) {
    return named('aws_denied', `no AWS credentials to call ${at.action} with`, {
      remedy: 'give the gateway AWS credentials: a role, AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
    });
  }
  if (BAD_CREDENTIALS.test(raw.name)) {
    return named('aws_denied', `AWS does not accept the gateway's credentials for ${at.action} (${raw.name})`, {
      remedy: 'renew or correct the AWS credentials of the gateway',
    });
  }
  if (DENIED.test(raw.name)) return nameDenial(raw, at, error);
  if (MISSING.test(raw.name)) {
    return named('host_unreachable', `no such instance in ${at.region} (${at.action}: ${raw.name})`, {
      failedStep: 'instance',
      remedy: 'check the instance id and the region of the workspace',
    });
  }
  if (raw.name === 'EC2InstanceStateInvalidException') {
    return named('instance_not_running', 'the instance is not running, EC2 Instance Connect took no key for it', {
      failedStep: 'instance',
      retryable: true,
      remedy: 'start the instance',
    });
  }
  if (raw.name === 'InvalidArgsException') {
    return named(
      'login_refused',
      'EC2 Instance Connect refused the key request: the user name cannot be a login name',
      {
        remedy: 'check os_user of the workspace',
      },
    );
  }
  if (UNAVAILABLE.test(raw.name) || NETWORK.test(raw.code ?? '') || (raw.status ?? 0) >= 500) {
    return named(
      'aws_unavailable',
      `${at.action} in ${at.region} is not answering properly (${raw.code ?? raw.name})`,
      {
        retryable: true,
        retryAfterS: UNAVAILABLE_RETRY_S,
        remedy: 'try again in a minute; if it stays, check the AWS health page and the way from the gateway to AWS',
      },
    );
  }
  return named('aws_denied', `AWS refused ${at.action} in ${at.region} (${raw.name})`, {
    remedy: "the gateway's log has AWS's own words",
  });
}

/** Whether another attempt of the same call may succeed; what is told while the SDK retries. */
export function isPassing(error: SallyportError): boolean {
  return error.code === 'aws_throttled' || error.code === 'aws_unavailable';
}

/** Says action and resource where AWS does, and how to allow it. */
export function nameDenial(
  said: { name: string; message: string },
  at: Pick<AwsAction, 'action' | 'step'>,
  cause?: unknown,
): SallyportError {
  const action = /not authorized to perform:? ([\w-]+:\w+)/.exec(said.message)?.[1] ?? at.action;
  const resource = /on resource:? (arn:[^\s"']+)/.exec(said.message)?.[1];
  const what = resource === undefined ? action : `${action} on ${resource}`;
  return new SallyportError('aws_denied', `AWS denied ${what} (${said.name})`, {
    failedStep: at.step,
    remedy: `allow ${what} in the IAM policy of the gateway's role, also under the conditions of that policy`,
    cause,
  });
}

function clockText(offsetMs: number): string {
  const seconds = Math.round(Math.abs(offsetMs) / 1000);
  if (seconds < 2) return "the gateway's clock is not that of AWS";
  return `the gateway's clock is ${seconds} s ${offsetMs > 0 ? 'slow' : 'fast'}`;
}

function readError(error: unknown): RawError {
  if (!(error instanceof Error)) return { name: 'unknown', message: String(error), code: null, status: null };
  const { $metadata, code } = error as { $metadata?: { httpStatusCode?: unknown }; code?: unknown };
  const status = $metadata?.httpStatusCode;
  return {
    name: error.name,
    message: error.message,
    code: typeof code === 'string' ? code : null,
    status: typeof status === 'number' ? status : null,
  };
}
