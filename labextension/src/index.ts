/**
 * The extension as Lab loads it: an array of small plugins.
 */
import { extendPlugin } from './plugins/extend.js';
import { feedPlugin } from './plugins/feed.js';
import { panelPlugin } from './plugins/panel.js';
import { statusPlugin } from './plugins/status.js';
import { stopPlugin } from './plugins/stop.js';
import { warningPlugin } from './plugins/warning.js';

export { IFeed } from './tokens.js';

export default [feedPlugin, stopPlugin, extendPlugin, panelPlugin, statusPlugin, warningPlugin];
