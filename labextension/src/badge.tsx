/** A session's state as a small coloured word. */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';

import type { State } from './nouns.js';
import { stateWord } from './words.js';

/** The colour is never the only difference: the word is always there. */
export function StateBadge({
  state,
  trans
}: {
  state: State;
  trans: TranslationBundle;
}): ReactElement {
  return (
    <span className={`bkai-state bkai-state-${state.toLowerCase()}`}>
      {stateWord(state, trans)}
    </span>
  );
}
