/** For machines that watch: whether the process lives, whether it should get requests, with the reasons why not, and what it counts. */
import type { RequestHandler } from 'express';
import type { HttpDeps } from './deps.ts';

export function createHealthRoutes(deps: HttpDeps): { live: RequestHandler; ready: RequestHandler } {
  return {
    live(_req, res) {
      res.json({ ok: true });
    },

    async ready(_req, res) {
      const { ok, reasons } = await deps.ready();
      res.status(ok ? 200 : 503).json({ ok, reasons });
    },
  };
}

export function createMetricsRoute({ metrics }: HttpDeps): RequestHandler {
  return async (_req, res) => {
    const { type, text } = await metrics.read();
    res.setHeader('Content-Type', type);
    res.end(text);
  };
}
