import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EventParser } from '../lib/sse.js';

const TEXT = 'event: session\ndata: {"a":\ndata: 1}\n\n: hb\n\ndata: plain\r\n\r\nid: 7\n\n';
const EVENTS = [
  { kind: 'session', data: '{"a":\n1}' },
  { kind: 'message', data: 'plain' }
];

test('a whole text', () => {
  assert.deepEqual(new EventParser().feed(TEXT), EVENTS);
});

test('cut at every place', () => {
  for (let cut = 0; cut <= TEXT.length; cut++) {
    const parser = new EventParser();
    const events = [...parser.feed(TEXT.slice(0, cut)), ...parser.feed(TEXT.slice(cut))];
    assert.deepEqual(events, EVENTS, `cut at ${cut}`);
  }
});

test('an unfinished event is not one', () => {
  assert.deepEqual(new EventParser().feed('event: session\ndata: 1\n'), []);
});
