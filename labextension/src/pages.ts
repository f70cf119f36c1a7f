/** Where the service's own pages are. */
import { PageConfig, URLExt } from '@jupyterlab/coreutils';

/** The address of the sessions page; null in a Lab that bkai did not start. */
export function pages(): string | null {
  const path = PageConfig.getOption('bkaiPages');
  return path ? `${PageConfig.getOption('hubHost')}${path}` : null;
}

/** The hub's form that starts this session's server again; null where there is no hub. */
export function startAgain(): string | null {
  const [hub, user] = [PageConfig.getOption('hubPrefix'), PageConfig.getOption('hubUser')];
  if (!hub || !user) {
    return null;
  }
  const server = PageConfig.getOption('hubServerName');
  const path = URLExt.join(hub, 'spawn', encodeURIComponent(user), encodeURIComponent(server));
  return `${PageConfig.getOption('hubHost')}${path}`;
}
