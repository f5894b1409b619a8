/** Two gateways as processes of their own seal one org: one at a time, one of them dies, nothing is lost. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadSigningKey } from '../../src/access/token.ts';
import { newSigner, type Signer, verifyAs } from '../support/evidence.ts';
import { type Replicas, startReplicas } from '../support/replicas.ts';
import { waitUntil } from '../support/wait.ts';

let replicas: Replicas;
let signer: Signer;
beforeAll(async () => {
  signer = await newSigner();
  replicas = await startReplicas({ env: { SALLYPORT_SIGNING_KEY: signer.pem } });
});
afterAll(() => replicas.stop());

const counts = async () =>
  (
    await replicas.sql(`select (select count(*)::int from audit_unsealed) as unsealed,
      (select count(*)::int from activity_logs where status = 'running') as running`)
  )[0];

it('what both write is sealed within 5 s, also after one was killed, and the chain is whole', async () => {
  const pace = { sealEveryMs: undefined, checkpointEveryMs: 500 };
  const [one, other] = [await replicas.start(pace), await replicas.start(pace)];
  const burst = (replica: typeof one) =>
    Promise.all(
      Array.from({ length: 12 }, (_, index) => replica.exec({ cmd: ['true'] }, { workspace: `ws-${(index % 3) + 1}` })),
    );
  await Promise.all([burst(one), burst(other)]);
  const allIsSealed = async () => {
    const { unsealed, running } = (await counts()) ?? {};
    return unsealed === 0 && running === 0;
  };
  await waitUntil('all is sealed', allIsSealed, 5_000);

  await Promise.all([burst(other), burst(one)]);
  // An answer may leave before its row is finished; what the other would then have to reconcile is another test's.
  await waitUntil('no row is running', async () => (await counts())?.running === 0);
  await one.kill();
  await waitUntil('all is sealed without the other', allIsSealed, 5_000);
  await burst(other);
  await waitUntil('and what came after', allIsSealed, 5_000);

  const key = await loadSigningKey(signer.pem);
  const checkpoints = async () =>
    (await verifyAs(replicas.databaseUrl, { ...signer, key }, { orgId: 'org-1' })).checkpoints;
  const [end] = await replicas.sql(`select max(position)::int as position from audit_seals where org_id = 'org-1'`);
  await waitUntil('the end is signed', async () => (await checkpoints()).last_position === end?.position, 20_000);
  const report = await verifyAs(replicas.databaseUrl, signer, { orgId: 'org-1' });
  expect(report).toMatchObject({ findings: [], not_checked: [], sealed: { from: 1, to: end?.position } });
  expect(report.entries_checked).toBeGreaterThanOrEqual(2 * 12 * 5);

  const { text } = await other.ask('/metrics');
  expect(text).toMatch(/^sallyport_audit_unsealed \d+$/m);
  expect(text).toMatch(/^sallyport_audit_unsealed_age_seconds 0$/m);
}, 90_000);

it('a gateway that stops seals and signs what it has written, and says so in its log', async () => {
  const one = await replicas.start();
  await one.exec({ cmd: ['true'] });
  one.child.kill('SIGTERM');
  await waitUntil('it has stopped', () => one.child.exitCode !== null, 15_000);
  const [end] = await replicas.sql(
    `select max(s.position)::int as position, max(c.position)::int as signed
     from audit_seals s left join audit_checkpoints c using (org_id, position) where s.org_id = 'org-1'`,
  );
  expect(end?.signed).toBe(end?.position);
  expect(one.log()).toMatch(new RegExp(`"org":"org-1","position":${end?.position},.*"msg":"audit checkpoint"`));
}, 60_000);
