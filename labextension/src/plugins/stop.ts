/** The commands that stop this session and lead to the sessions page. */
import {
  ILabStatus,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ITranslator } from '@jupyterlab/translation';

import type { Feed } from '../feed.js';
import { pages } from '../pages.js';
import { stopSession } from '../stop.js';
import { Commands, IFeed } from '../tokens.js';
import { knownIn } from '../view.js';
import { DOMAIN } from '../words.js';

export const stopPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyterhub-bkai:stop',
  description: 'Commands to stop this session and to go to the sessions page.',
  autoStart: true,
  requires: [IFeed, ILabStatus, ITranslator],
  optional: [ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    feed: Feed,
    status: ILabStatus,
    translator: ITranslator,
    palette: ICommandPalette | null
  ): void => {
    const trans = translator.load(DOMAIN);
    const { commands, serviceManager } = app;
    commands.addCommand(Commands.stop, {
      label: trans.__('Stop This Session…'),
      isEnabled: () => knownIn(feed.view)?.session.state === 'RUNNING',
      execute: () =>
        stopSession({
          feed,
          trans,
          atWork: () => ({
            kernels: [...serviceManager.sessions.running()].length,
            terminals: [...serviceManager.terminals.running()].length,
            unsaved: status.isDirty
          }),
          saveAll: async () => {
            await commands.execute('docmanager:save-all');
          },
          leave: () => {
            const there = pages();
            if (there) {
              window.location.assign(there);
            }
          }
        })
    });
    commands.addCommand(Commands.sessions, {
      label: trans.__('All My Sessions'),
      isVisible: () => pages() !== null,
      execute: () => {
        window.open(pages() ?? '', '_blank', 'noopener');
      }
    });
    feed.changed.connect(() => commands.notifyCommandChanged(Commands.stop));
    for (const command of [Commands.stop, Commands.sessions]) {
      palette?.addItem({ command, category: trans.__('Session') });
    }
  }
};
