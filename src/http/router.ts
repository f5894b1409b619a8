/** Every route with its gates in order. What a gate asks stands in gates.ts; what a route does, in its own file. */
import type { Express } from 'express';
import { createActivityRoute, createRunningRoute } from './activity-route.ts';
import type { HttpDeps } from './deps.ts';
import { createConsoleRoute, createDiagnoseRoute } from './diagnose-route.ts';
import { answerDryRun, createCancelRoute, createExecRoute } from './exec-route.ts';
import { createGates } from './gates.ts';
import { createHealthRoutes, createMetricsRoute } from './health-route.ts';
import { createHostKeyRoutes } from './host-keys-route.ts';
import { createDocumentation } from './openapi.ts';
import { createOrgRoutes } from './org-route.ts';
import { createRescueRoutes } from './rescue-route.ts';
import { createTokenRoutes } from './token-route.ts';
import { createWorkspaceRoutes } from './workspace-route.ts';

export function addRoutes(app: Express, deps: HttpDeps, { heartbeatMs }: { heartbeatMs: number }): void {
  const {
    caller,
    standing,
    workspace,
    workspaceOrNew,
    thawed,
    admin,
    scope,
    body,
    command,
    tier,
    instance,
    rules,
    room,
  } = createGates(deps);
  const [exec, cancel, activity, running] = [
    createExecRoute(deps, heartbeatMs),
    createCancelRoute(deps),
    createActivityRoute(deps),
    createRunningRoute(deps),
  ];
  const workspaces = createWorkspaceRoutes(deps);
  const tokens = createTokenRoutes(deps);
  const orgs = createOrgRoutes(deps);
  const health = createHealthRoutes(deps);
  const hostKeys = createHostKeyRoutes(deps);
  const rescue = createRescueRoutes(deps);
  const documentation = createDocumentation(app, deps);

  app.get('/healthz', health.live);
  app.get('/readyz', health.ready);
  if (deps.servesMetrics) app.get('/metrics', createMetricsRoute(deps));
  app.get('/openapi.json', documentation.document);
  app.get('/docs', documentation.page);

  app.post(
    '/workspaces/:id/exec',
    caller('workspace_exec'),
    workspace,
    thawed,
    scope('exec'),
    body,
    command,
    tier('exec'),
    instance,
    rules,
    answerDryRun,
    room,
    exec,
  );
  app.get('/workspaces/:id/execs', caller('exec_list'), workspace, scope('activity:read'), running);
  app.delete('/workspaces/:id/execs/:execId', caller('exec_cancel'), workspace, scope('exec'), cancel);
  app.get(
    '/workspaces/:id/diagnose',
    caller('workspace_diagnose'),
    workspace,
    thawed,
    scope('diagnose'),
    room,
    createDiagnoseRoute(deps),
  );
  app.get(
    '/workspaces/:id/console',
    caller('workspace_console'),
    workspace,
    scope('diagnose'),
    instance,
    createConsoleRoute(deps),
  );
  app.post(
    '/workspaces/:id/rescue',
    caller('workspace_rescue'),
    workspace,
    thawed,
    scope('diagnose'),
    tier('rescue'),
    instance,
    room,
    rescue.collect,
  );
  app.get('/workspaces/:id/rescue', caller('rescue_get'), workspace, scope('diagnose'), rescue.latest);
  app.get('/workspaces/:id/activity', caller('activity_list'), workspace, scope('activity:read'), activity);
  app.get('/activity', caller('activity_list'), standing, scope('activity:read'), activity);

  app.get('/workspaces', caller('workspace_list'), standing, scope('workspaces:read'), workspaces.list);
  app.get('/workspaces/:id', caller('workspace_get'), workspace, scope('workspaces:read'), workspaces.get);
  app.put('/workspaces/:id', caller('workspace_put'), workspaceOrNew, scope('workspaces:write'), body, workspaces.put);
  app.patch('/workspaces/:id', caller('workspace_patch'), workspace, scope('workspaces:write'), body, workspaces.patch);
  app.delete('/workspaces/:id', caller('workspace_delete'), workspace, scope('workspaces:write'), workspaces.remove);

  app.get(
    '/workspaces/:id/host-keys',
    caller('host_keys_get'),
    workspace,
    scope('workspaces:read'),
    instance,
    hostKeys.get,
  );
  app.put(
    '/workspaces/:id/host-keys',
    caller('host_keys_put'),
    workspace,
    scope('workspaces:write'),
    body,
    instance,
    hostKeys.put,
  );

  app.get('/tokens', caller('token_list'), standing, scope('tokens:write'), tokens.list);
  app.post('/tokens', caller('token_create'), standing, scope('tokens:write'), body, tokens.create);
  app.delete('/tokens/:id', caller('token_revoke'), standing, scope('tokens:write'), tokens.revoke);

  app.get('/orgs', caller('org_list'), admin, orgs.list);
  app.get('/orgs/:id', caller('org_get'), admin, orgs.get);
  app.put('/orgs/:id', caller('org_put'), admin, body, orgs.put);
  app.post('/orgs/:id/freeze', caller('org_freeze'), admin, orgs.freeze);
  app.post('/orgs/:id/unfreeze', caller('org_unfreeze'), admin, orgs.unfreeze);
  app.get('/orgs/:id/people', caller('person_list'), admin, orgs.listPeople);
  app.post('/orgs/:id/people/:sub/freeze', caller('person_freeze'), admin, orgs.freezePerson);
  app.post('/orgs/:id/people/:sub/unfreeze', caller('person_unfreeze'), admin, orgs.unfreezePerson);
}
