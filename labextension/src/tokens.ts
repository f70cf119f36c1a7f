/**
 * Names by which the plugins know each other. No side effects.
 */
import { Token } from '@lumino/coreutils';

import type { Feed } from './feed.js';

/** The live view of this session, for other plugins. */
export const IFeed = new Token<Feed>(
  'jupyterhub-bkai:IFeed',
  "What is known of this session and of its owner's others, live."
);

/** Commands of this extension. */
export const Commands = {
  show: 'bkai:show-session',
  stop: 'bkai:stop-session',
  extend: 'bkai:extend-session',
  sessions: 'bkai:open-sessions'
} as const;

/** The panel's id in the shell. */
export const PANEL = 'bkai-session-panel';
