/** Provides the live view of this session. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';

import { Api } from '../api.js';
import { Feed } from '../feed.js';
import { IFeed } from '../tokens.js';

export const feedPlugin: JupyterFrontEndPlugin<Feed> = {
  id: 'jupyterhub-bkai:feed',
  description: 'Keeps what is known of this session up to date.',
  autoStart: true,
  provides: IFeed,
  activate: (app: JupyterFrontEnd) => new Feed(new Api(app.serviceManager.serverSettings))
};
