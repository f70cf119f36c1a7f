/** Where the service's own pages are. */
import { PageConfig } from '@jupyterlab/coreutils';

/** The address of the sessions page; null in a Lab that bkai did not start. */
export function pages(): string | null {
  const path = PageConfig.getOption('bkaiPages');
  return path ? `${PageConfig.getOption('hubHost')}${path}` : null;
}
