import assert from 'node:assert/strict';
import { test } from 'node:test';

import { knownIn, next } from '../lib/view.js';

const session = (id, state = 'RUNNING', more = {}) => ({ id, user: 'alice', state, ...more });
const mine = session('a');
const answered = (...sessions) => ({ kind: 'answered', session: mine, sessions, skew: 5, at: 1 });
const ids = view => knownIn(view).others.map(other => other.id);
const known = (...others) => next({ kind: 'loading' }, answered(mine, ...others));

test('others: not this one, not those that are over, running ones first', () => {
  const view = known(
    session('c', 'PENDING'),
    session('d'),
    session('b', 'PENDING'),
    session('e', 'ERROR')
  );
  assert.deepEqual(ids(view), ['d', 'b', 'c']);
});

test('a change of this session', () => {
  const view = next(known(), {
    kind: 'changed',
    session: session('a', 'TERMINATING'),
    at: 2
  });
  assert.equal(view.session.state, 'TERMINATING');
  assert.equal(view.skew, 5);
  assert.equal(view.at, 2);
});

test('others come, change and go', () => {
  let view = next(known(), { kind: 'changed', session: session('b', 'PENDING') });
  assert.deepEqual(ids(view), ['b']);
  view = next(view, { kind: 'changed', session: session('b', 'RUNNING') });
  assert.equal(view.others[0].state, 'RUNNING');
  view = next(view, { kind: 'changed', session: session('b', 'TERMINATED') });
  assert.deepEqual(ids(view), []);
});

test("another person's session, which an administrator hears of, is none of the others", () => {
  const view = next(known(), {
    kind: 'changed',
    session: session('b', 'RUNNING', { user: 'bob' })
  });
  assert.deepEqual(ids(view), []);
});

test('silence keeps what was known, an answer ends it', () => {
  let view = next(known(session('b')), { kind: 'failed', message: null });
  assert.equal(view.kind, 'silent');
  assert.deepEqual(ids(view), ['b']);
  view = next(view, { kind: 'failed', message: 'x' });
  assert.equal(view.message, 'x');
  view = next(view, answered(mine));
  assert.equal(view.kind, 'known');
});

test('silence from the start, and outside', () => {
  const silent = next({ kind: 'loading' }, { kind: 'failed', message: null });
  assert.equal(knownIn(silent), null);
  assert.equal(next(silent, { kind: 'changed', session: mine }), silent);
  assert.deepEqual(next(silent, { kind: 'outside' }), { kind: 'outside' });
});
