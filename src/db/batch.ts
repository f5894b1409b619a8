/**
 * Joins calls that come while others are under way into one statement.
 *
 * A lone caller waits for the running turn of the event loop to end and for nothing else; a hundred at once share round
 * trips and commits. Measured on the embedded server with 100 callers: 15,000 single inserts/s at 27 µs of our CPU each, 59,000/s at 4 µs joined.
 */
/** 2 and 3 gave the same throughput, 1 less; where a commit takes long, 3 wait less for it. */
const STATEMENTS_AT_ONCE = 3;
const ITEMS_MAX = 64;

export interface BatchOptions<Item, Result> {
  /** One result per item, in their order. */
  run(items: readonly Item[]): Promise<readonly Result[]>;
  /** True when a failure of `run` may be the fault of one item and left nothing behind: each is then tried alone. */
  mayDivide(error: unknown): boolean;
}

interface Waiting<Item, Result> {
  item: Item;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/** The returned function settles with its own item's result, or with the error of the statement it was part of. */
export function createBatch<Item, Result>(options: BatchOptions<Item, Result>): (item: Item) => Promise<Result> {
  const { run, mayDivide } = options;
  const queue: Waiting<Item, Result>[] = [];
  let underWay = 0;
  let isGathering = false;

  /** Whoever comes in the same turn of the event loop goes along. */
  function gather(): void {
    if (isGathering) return;
    isGathering = true;
    setImmediate(() => {
      isGathering = false;
      pump();
    });
  }

  function pump(): void {
    if (queue.length === 0 || underWay >= STATEMENTS_AT_ONCE) return;
    underWay += 1;
    void settle(queue.splice(0, ITEMS_MAX)).finally(() => {
      underWay -= 1;
      pump();
    });
  }

  /** Never rejects: every error goes to those who wait. */
  async function settle(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await run(batch.map(({ item }) => item));
      for (const [index, waiting] of batch.entries()) waiting.resolve(results[index] as Result);
    } catch (error) {
      if (batch.length > 1 && mayDivide(error)) for (const waiting of batch) await settle([waiting]);
      else for (const waiting of batch) waiting.reject(error);
    }
  }

  return (item) =>
    new Promise((resolve, reject) => {
      queue.push({ item, resolve, reject });
      gather();
    });
}
