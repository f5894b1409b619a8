/**
 * Lookups asked for together are made once: 200 cold hosts would empty the account's bucket of 100 calls.
 *
 * Instances asked for in the same turn of the event loop go in one call; who asks for endpoints while a listing of the
 * region runs gets its answer. Nothing is kept: an answer goes to those who waited for it.
 */
import type { AwsCall, Endpoint, Instance } from './aws.ts';
import { type Crowd, createCrowd } from './together.ts';

export interface Lookups {
  /** Null: there is none that these credentials can see. */
  describeInstance(region: string, instanceId: string, call: AwsCall): Promise<Instance | null>;
  /** All of the region that can carry a tunnel, in no order: a handful. */
  listEndpoints(region: string, call: AwsCall): Promise<Endpoint[]>;
}

export interface LookupCalls {
  describeAll(region: string, ids: string[], call: AwsCall): Promise<Map<string, Instance>>;
  listAll(region: string, call: AwsCall): Promise<Endpoint[]>;
}

/** A filter takes 200 values. */
const DESCRIBE_MAX_IDS = 100;

interface Flight<T> {
  crowd: Crowd;
  answer: Promise<T>;
}

interface Batch extends Flight<Map<string, Instance>> {
  ids: Set<string>;
}

export function shareLookups({ describeAll, listAll }: LookupCalls): Lookups {
  // By region and step: the step is part of what an error says.
  const batches = new Map<string, Batch>();
  const listings = new Map<string, Flight<Endpoint[]>>();

  function openBatch(key: string, region: string, { step }: AwsCall): Batch {
    const crowd = createCrowd();
    const ids = new Set<string>();
    const answer = new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      if (batches.get(key)?.ids === ids) batches.delete(key);
      return describeAll(region, [...ids], { ...crowd.waiter, step });
    });
    const batch = { ids, crowd, answer };
    batches.set(key, batch);
    return batch;
  }

  function openListing(key: string, region: string, { step }: AwsCall): Flight<Endpoint[]> {
    const crowd = createCrowd();
    const answer = listAll(region, { ...crowd.waiter, step }).finally(() => {
      if (listings.get(key)?.crowd === crowd) listings.delete(key);
    });
    const listing = { crowd, answer };
    listings.set(key, listing);
    return listing;
  }

  return {
    async describeInstance(region, instanceId, call) {
      const key = `${region} ${call.step}`;
      const open = batches.get(key);
      const fits = open !== undefined && open.ids.size < DESCRIBE_MAX_IDS && !open.crowd.waiter.signal.aborted;
      const batch = fits ? open : openBatch(key, region, call);
      batch.ids.add(instanceId);
      return (await batch.crowd.join(batch.answer, call)).get(instanceId) ?? null;
    },

    async listEndpoints(region, call) {
      const key = `${region} ${call.step}`;
      const running = listings.get(key);
      const shared = running !== undefined && !running.crowd.waiter.signal.aborted;
      const { crowd, answer } = shared ? running : openListing(key, region, call);
      return await crowd.join(answer, call);
    },
  };
}
