/** The extension's icon: a chip of which a part is taken. */
import { LabIcon } from '@jupyterlab/ui-components';

import svg from '../style/icons/slice.svg';

export const sliceIcon = new LabIcon({ name: 'bkai:slice', svgstr: svg });
