import { describe, expect, it } from 'vitest';
import { createBudget, type Place } from '../../src/sessions/budget.ts';

const place = (orgId: string, additional = false): Place => ({ resource: 'eice-1', orgId, additional });
const never = new AbortController().signal;

/** Reserves and notes in which order places were handed out. */
function setup(limit: number) {
  const pressed: string[] = [];
  const order: string[] = [];
  const budget = createBudget({ limit, pressed: (resource) => pressed.push(resource) });
  const reserve = async (name: string, where: Place): Promise<() => void> => {
    const giveBack = await budget.reserve(where, never);
    order.push(name);
    return giveBack;
  };
  return { budget, reserve, order, pressed };
}

describe('budget', () => {
  it('hands out so many places and no more', async () => {
    const { reserve, order, budget, pressed } = setup(2);
    const first = await reserve('a', place('one'));
    await reserve('b', place('one'));
    const third = reserve('c', place('one'));
    await Promise.resolve();
    expect(order).toEqual(['a', 'b']);
    expect(budget.waiting('eice-1')).toBe(1);
    expect(pressed).toEqual(['eice-1']);
    first();
    await third;
    expect(order).toEqual(['a', 'b', 'c']);
  });

  it('the org that holds fewest is next, whoever came first', async () => {
    const { reserve, order } = setup(2);
    const held = await reserve('greedy-1', place('greedy'));
    await reserve('greedy-2', place('greedy'));
    const waiting = [reserve('greedy-3', place('greedy')), reserve('modest-1', place('modest'))];
    held();
    await Promise.race(waiting);
    expect(order.at(-1)).toBe('modest-1');
  });

  it('a host without a session comes before one that wants another', async () => {
    const { reserve, order } = setup(1);
    const held = await reserve('a', place('one'));
    const waiting = [reserve('second of a', place('one', true)), reserve('first of b', place('one'))];
    held();
    await Promise.race(waiting);
    expect(order.at(-1)).toBe('first of b');
  });

  it('who gives up waits no more', async () => {
    const { budget, reserve } = setup(1);
    await reserve('a', place('one'));
    const abort = new AbortController();
    const waiting = budget.reserve(place('one'), abort.signal);
    abort.abort(new Error('no longer'));
    await expect(waiting).rejects.toThrow('no longer');
    expect(budget.waiting('eice-1')).toBe(0);
  });

  it('resources do not share places', async () => {
    const { reserve, order } = setup(1);
    await reserve('a', place('one'));
    await reserve('b', { ...place('one'), resource: 'eice-2' });
    expect(order).toEqual(['a', 'b']);
  });

  it('a place is given back once', async () => {
    const { reserve } = setup(1);
    const giveBack = await reserve('a', place('one'));
    giveBack();
    expect(giveBack).toThrow('bug: a place is given back once');
  });
});
