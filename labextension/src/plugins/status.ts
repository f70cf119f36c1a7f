/** Puts the slice into the status bar, unless the user's settings say otherwise. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';

import type { Feed } from '../feed.js';
import { StatusItem } from '../status.js';
import { Commands, IFeed } from '../tokens.js';
import { knownIn } from '../view.js';
import { DOMAIN } from '../words.js';

export const statusPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyterhub-bkai:status',
  description: 'The slice in the status bar.',
  autoStart: true,
  requires: [IFeed, ITranslator],
  optional: [IStatusBar, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    feed: Feed,
    translator: ITranslator,
    bar: IStatusBar | null,
    settings: ISettingRegistry | null
  ): void => {
    if (!bar) {
      return;
    }
    const trans = translator.load(DOMAIN);
    let wanted = true;
    const turned = new Signal<Feed, void>(feed);
    feed.changed.connect(() => turned.emit());
    const item = new StatusItem(feed, () => void app.commands.execute(Commands.show), trans);
    bar.registerStatusItem('jupyterhub-bkai:status', {
      item,
      align: 'left',
      rank: 4,
      isActive: () => wanted && knownIn(feed.view) !== null,
      activeStateChanged: turned
    });
    settings
      ?.load('jupyterhub-bkai:status')
      .then(loaded => {
        const read = () => {
          wanted = loaded.get('show').composite !== false;
          turned.emit();
        };
        loaded.changed.connect(read);
        read();
      })
      .catch((reason: unknown) => console.error('bkai: settings cannot be read', reason));
  }
};
