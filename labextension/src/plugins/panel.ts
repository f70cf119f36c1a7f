/** Puts the panel into the right area. */
import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ITranslator } from '@jupyterlab/translation';

import type { Feed } from '../feed.js';
import { sliceIcon } from '../icons.js';
import { pages, startAgain } from '../pages.js';
import { SessionPanel } from '../panel.js';
import { Commands, IFeed, PANEL } from '../tokens.js';
import { DOMAIN } from '../words.js';

export const panelPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyterhub-bkai:panel',
  description: 'The panel that shows this session.',
  autoStart: true,
  requires: [IFeed, ITranslator],
  optional: [ICommandPalette, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    feed: Feed,
    translator: ITranslator,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null
  ): void => {
    const trans = translator.load(DOMAIN);
    const { commands, shell } = app;
    const panel = new SessionPanel({
      feed,
      trans,
      pages: pages(),
      startAgain: startAgain(),
      extend: () => void commands.execute(Commands.extend),
      stop: () => void commands.execute(Commands.stop)
    });
    shell.add(panel, 'right', { rank: 50, type: 'Session' });
    restorer?.add(panel, PANEL);
    commands.addCommand(Commands.show, {
      label: trans.__('Show This Session'),
      icon: sliceIcon,
      execute: () => {
        shell.activateById(PANEL);
      }
    });
    palette?.addItem({ command: Commands.show, category: trans.__('Session') });
  }
};
