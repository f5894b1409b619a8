/** The environment of a gateway process on a test's database and lab, on any free port. */
import { generateSigningKey } from '../../src/access/token.ts';
import type { Lab } from '../../src/lab/lab.ts';

export async function gatewayEnv(parts: {
  databaseUrl: string;
  adminToken: string;
  dataDir: string;
  lab: Lab;
}): Promise<Record<string, string>> {
  const { databaseUrl, adminToken, dataDir, lab } = parts;
  return {
    DATABASE_URL: databaseUrl,
    SALLYPORT_SIGNING_KEY: await generateSigningKey(),
    SALLYPORT_ADMIN_TOKEN: adminToken,
    SALLYPORT_DATA_DIR: dataDir,
    SALLYPORT_PORT: '0',
    SALLYPORT_LAB_TUNNEL_URL: lab.tunnelUrl,
    AWS_REGION: lab.region,
    AWS_ACCESS_KEY_ID: lab.accessKeyId,
    AWS_SECRET_ACCESS_KEY: lab.secretAccessKey,
    AWS_ENDPOINT_URL_EC2: lab.url,
    AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT: lab.url,
    AWS_EC2_METADATA_DISABLED: 'true',
  };
}
