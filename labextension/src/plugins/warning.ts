/** Says in time that the session's time is running out, as often as the service warns of it. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { ITranslator } from '@jupyterlab/translation';

import type { Feed } from '../feed.js';
import { Commands, IFeed } from '../tokens.js';
import { knownIn } from '../view.js';
import { DOMAIN, span } from '../words.js';

const LOOK_MS = 5000;

export const warningPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyterhub-bkai:warning',
  description: 'Warns before this session reaches its deadline.',
  autoStart: true,
  requires: [IFeed, ITranslator],
  activate: (app: JupyterFrontEnd, feed: Feed, translator: ITranslator): void => {
    const trans = translator.load(DOMAIN);
    let warned = '';
    let shown = { id: '', message: '' };
    const look = () => {
      const known = knownIn(feed.view);
      const session = known?.session;
      const warning = session?.warning;
      if (!known || !session?.deadline || !warning || feed.view.kind === 'ended') {
        if (shown.id && known && (!warning || feed.view.kind === 'ended')) {
          Notification.dismiss(shown.id);
          shown = { id: '', message: '' };
        }
        return;
      }
      const left = Math.max(0, Date.parse(session.deadline) - Date.now() - known.skew);
      const message = trans.__(
        'This session ends in %1. Save your work; kernels end with it.',
        span(left, trans)
      );
      if (warning.id !== warned) {
        warned = warning.id;
        Notification.dismiss(shown.id);
        const actions = [
          {
            label: trans.__('More time…'),
            caption: trans.__('Have this session go on for longer'),
            displayType: 'accent' as const,
            // the notification stays until there is more time
            callback: (event: MouseEvent) => {
              event.preventDefault();
              void app.commands.execute(Commands.extend);
            }
          }
        ];
        shown = { id: Notification.warning(message, { autoClose: false, actions }), message };
      } else if (message !== shown.message && Notification.manager.has(shown.id)) {
        shown = { ...shown, message };
        Notification.update({ id: shown.id, message, autoClose: false });
      }
    };
    feed.changed.connect(look);
    window.setInterval(look, LOOK_MS);
  }
};
