/** The command that gives this session more time. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ITranslator } from '@jupyterlab/translation';

import { extendSession } from '../extend.js';
import type { Feed } from '../feed.js';
import { Commands, IFeed } from '../tokens.js';
import { knownIn } from '../view.js';
import { DOMAIN } from '../words.js';

export const extendPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyterhub-bkai:extend',
  description: 'The command that gives this session more time.',
  autoStart: true,
  requires: [IFeed, ITranslator],
  optional: [ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    feed: Feed,
    translator: ITranslator,
    palette: ICommandPalette | null
  ): void => {
    const trans = translator.load(DOMAIN);
    const session = () => knownIn(feed.view)?.session;
    app.commands.addCommand(Commands.extend, {
      label: trans.__('More Time for This Session…'),
      isEnabled: () => session()?.state === 'RUNNING' && !!session()?.deadline,
      execute: () => extendSession(feed, trans)
    });
    feed.changed.connect(() => app.commands.notifyCommandChanged(Commands.extend));
    palette?.addItem({ command: Commands.extend, category: trans.__('Session') });
  }
};
