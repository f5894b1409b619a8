/** For load balancers: whether the process lives, and whether it should get requests, with the reasons why not. */
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
