/**
 * More time for this session: asks for how long, as far as others who wait leave it.
 */
import { InputDialog, Notification, showDialog, Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';

import { Refused } from './api.js';
import type { Feed } from './feed.js';
import { steps } from './format.js';
import { span } from './words.js';

/** Ask for how much longer, and extend. */
export async function extendSession(feed: Feed, trans: TranslationBundle): Promise<void> {
  try {
    const room = await feed.room();
    const choices = steps(room.seconds);
    if (!choices.length) {
      await showDialog({
        title: trans.__('This session cannot go on for longer'),
        body: sentence(room.why),
        buttons: [Dialog.okButton()]
      });
      return;
    }
    const items = choices.map(seconds => span(seconds * 1000, trans));
    const answer = await InputDialog.getItem({
      title: trans.__('More time for this session'),
      label:
        room.seconds < 86_400 * 7
          ? trans.__('At most %1: %2', items.at(-1), sentence(room.why))
          : trans.__('How much longer it goes on'),
      items,
      current: Math.max(0, choices.filter(seconds => seconds <= 3600).length - 1),
      okLabel: trans.__('Extend')
    });
    const chosen = choices[items.indexOf(answer.value ?? '')];
    if (!answer.button.accept || chosen === undefined) {
      return;
    }
    const longer = await feed.extend(`${chosen}s`);
    const ends = longer.deadline && new Date(longer.deadline).toLocaleString();
    Notification.success(trans.__('This session goes on until %1.', ends ?? ''), {
      autoClose: 8000
    });
  } catch (error) {
    const reason = error instanceof Refused ? error.sentence : String(error);
    Notification.error(
      reason
        ? trans.__('No more time: %1', reason)
        : trans.__('No more time: the session service does not answer; try again in a moment.'),
      { autoClose: false }
    );
  }
}

/** A clause of the service's, as a sentence of its own. */
function sentence(clause: string): string {
  return `${clause.charAt(0).toUpperCase()}${clause.slice(1)}.`;
}
