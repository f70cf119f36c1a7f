import assert from 'node:assert/strict';
import { test } from 'node:test';

import { duration, exactMemory, fraction, image, memory, percent, steps } from '../lib/format.js';

const units = {
  days: count => `${count} d`,
  hours: count => `${count} h`,
  minutes: count => `${count} min`,
  seconds: count => `${count} s`
};

for (const [seconds, text] of [
  [-5, '0 s'],
  [0, '0 s'],
  [59.9, '59 s'],
  [60, '1 min'],
  [3599, '59 min'],
  [3600, '1 h'],
  [4320, '1 h 12 min'],
  [86400, '1 d'],
  [90000, '1 d 1 h'],
  [90060, '1 d 1 h']
]) {
  test(`${seconds} seconds are ${text}`, () => {
    assert.equal(duration(seconds * 1000, units), text);
  });
}

test('fractions', () => {
  assert.equal(fraction('1/4'), 0.25);
  assert.equal(fraction('2'), 2);
  for (const text of ['', 'x', '1/0', '-1', '1/2/3', 'NaN']) {
    assert.ok(Number.isNaN(fraction(text)), text);
  }
});

test('per cent', () => {
  assert.equal(percent('1/4'), '25');
  assert.equal(percent('1/3'), '33.3');
  assert.equal(percent('nothing'), '?');
});

test('memory', () => {
  assert.equal(memory(512), '512 MiB');
  assert.equal(memory(2048), '2 GiB');
  assert.equal(memory(36096), '35.3 GiB');
  assert.equal(memory(143771), '140 GiB');
  assert.equal(exactMemory(36096), '36,096 MiB');
});

test('image versions', () => {
  assert.equal(image('sklearn/1.7'), 'sklearn 1.7');
});

test('amounts of time to choose from', () => {
  assert.deepEqual(steps(59), []);
  assert.deepEqual(steps(60), [60]);
  assert.deepEqual(steps(2750), [900, 1800, 2700]);
  assert.deepEqual(steps(3600), [900, 1800, 3600]);
  assert.deepEqual(steps(400 * 86400), [900, 1800, 3600, 7200, 14400, 28800, 86400]);
});
