/** Says in time that the session's time is running out. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { ITranslator } from '@jupyterlab/translation';

import type { Feed } from '../feed.js';
import { IFeed } from '../tokens.js';
import { knownIn } from '../view.js';
import { DOMAIN, span } from '../words.js';

/** How long before the end, in minutes. */
const STEPS = [10, 2];
const LOOK_MS = 5000;

export const warningPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyterhub-bkai:warning',
  description: 'Warns before this session reaches its deadline.',
  autoStart: true,
  requires: [IFeed, ITranslator],
  activate: (_app: JupyterFrontEnd, feed: Feed, translator: ITranslator): void => {
    const trans = translator.load(DOMAIN);
    let said = '';
    const look = () => {
      const known = knownIn(feed.view);
      const deadline = known?.session.deadline;
      if (!known || !deadline || known.session.state !== 'RUNNING') {
        return;
      }
      const left = Date.parse(deadline) - Date.now() - known.skew;
      const step = STEPS.filter(minutes => left <= minutes * 60_000).at(-1);
      const saying = `${deadline} ${step}`;
      if (step === undefined || left <= 0 || saying === said) {
        return;
      }
      said = saying;
      Notification.warning(
        trans.__(
          'This session ends in %1. Save your work; kernels end with it.',
          span(left, trans)
        ),
        { autoClose: false }
      );
    };
    feed.changed.connect(look);
    window.setInterval(look, LOOK_MS);
  }
};
