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

test('an end: the session says so, the hub says so, or nothing answers after its end began', () => {
  const over = next(known(session('b')), { kind: 'changed', session: session('a', 'TERMINATED') });
  assert.equal(over.kind, 'ended');
  const gone = next(known(session('b')), { kind: 'gone' });
  assert.equal(gone.kind, 'ended');
  assert.equal(knownIn(gone).session.state, 'TERMINATED');
  const forgotten = next(known(), { kind: 'outside' });
  assert.equal(forgotten.kind, 'ended');
  const ending = next(known(), { kind: 'changed', session: session('a', 'TERMINATING') });
  assert.equal(ending.kind, 'known');
  assert.equal(next(ending, { kind: 'failed', message: null }).kind, 'ended');
});

test('an end stays one until an answer says that it was started again', () => {
  const gone = next({ kind: 'loading' }, { kind: 'gone' });
  assert.equal(gone.kind, 'ended');
  assert.equal(next(gone, { kind: 'failed', message: null }).kind, 'ended');
  assert.equal(next(gone, { kind: 'changed', session: mine, at: 1 }).kind, 'ended');
  assert.equal(next(gone, answered(mine)).kind, 'known');
});
