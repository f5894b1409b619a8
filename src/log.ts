/** The log: one JSON line per event on standard error, so that standard output stays a verb's own. Secrets are cut out by name. */
import { type Logger, pino } from 'pino';

export function createLog(level: string): Logger {
  return pino(
    {
      level,
      redact: {
        paths: [
          'authorization',
          '*.authorization',
          'token',
          '*.token',
          'headers.authorization',
          'req.headers.authorization',
        ],
        censor: '[cut out]',
      },
    },
    pino.destination({ fd: 2, sync: false }),
  );
}
