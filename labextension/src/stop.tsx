/**
 * Stopping this session: says what is lost before, and leaves for the sessions page after.
 */
import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';

import { Refused } from './api.js';
import type { Feed } from './feed.js';
import { knownIn } from './view.js';
import { amount } from './words.js';

/** What is at work in this session. */
export interface AtWork {
  kernels: number;
  terminals: number;
  unsaved: boolean;
}

/** What stopping needs from around it. */
export interface Stopping {
  feed: Feed;
  atWork: () => AtWork;
  saveAll: () => Promise<void>;
  /** called when the session is about to end */
  leave: () => void;
  trans: TranslationBundle;
}

/** Ask, and stop when that is confirmed. */
export async function stopSession(around: Stopping): Promise<void> {
  const { trans, feed } = around;
  const atWork = around.atWork();
  const answer = await showDialog({
    title: trans.__('Stop this session?'),
    body: <Losses atWork={atWork} feed={feed} trans={trans} />,
    checkbox: atWork.unsaved
      ? { label: trans.__('Save all open files first'), checked: true, caption: '' }
      : null,
    buttons: [
      Dialog.cancelButton({ label: trans.__('Keep working') }),
      Dialog.warnButton({ label: trans.__('Stop session') })
    ],
    defaultButton: 0
  });
  if (!answer.button.accept) {
    return;
  }
  try {
    if (answer.isChecked) {
      await around.saveAll();
    }
    await feed.stop();
  } catch (error) {
    const reason = error instanceof Refused ? error.sentence : String(error);
    Notification.error(
      reason
        ? trans.__('The session goes on: %1', reason)
        : trans.__(
            'The session goes on: the session service does not answer; try again in a moment.'
          ),
      {
        autoClose: false
      }
    );
    return;
  }
  around.leave();
}

function Losses(props: { atWork: AtWork; feed: Feed; trans: TranslationBundle }): ReactElement {
  const { atWork, feed, trans } = props;
  const { kernels, terminals } = atWork;
  const session = knownIn(feed.view)?.session;
  return (
    <ul className="bkai-losses">
      <li>
        {kernels + terminals
          ? trans.__(
              '%1 and %2 end now, and so does every program started from them. What they hold in memory is lost.',
              trans._n('%1 kernel', '%1 kernels', kernels, kernels),
              trans._n('%1 terminal', '%1 terminals', terminals, terminals)
            )
          : trans.__('Every program of this session ends now. What it holds in memory is lost.')}
      </li>
      <li>{trans.__('Files in your home folder stay.')}</li>
      {session && session.slices.length > 0 && (
        <li>{trans.__('Your slice (%1) goes to whoever waits for it.', amount(session, trans))}</li>
      )}
    </ul>
  );
}
