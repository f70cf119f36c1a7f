/**
 * The slice in the status bar; a click opens the panel.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import type { ReactElement } from 'react';

import { useNow } from './clock.js';
import type { Feed } from './feed.js';
import { sliceIcon } from './icons.js';
import { knownIn, type View } from './view.js';
import { amount, farewell, silence, span } from './words.js';

/** From here on the status bar shows the time left, too. */
const NEAR_MS = 60 * 60_000;

/** The item as a widget. */
export class StatusItem extends ReactWidget {
  constructor(
    private readonly _feed: Feed,
    private readonly _open: () => void,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.addClass('bkai-status');
  }

  protected override render(): ReactElement {
    return (
      <UseSignal signal={this._feed.changed} initialArgs={this._feed.view}>
        {(_, view) => <Item view={view ?? this._feed.view} open={this._open} trans={this._trans} />}
      </UseSignal>
    );
  }
}

function Item(props: {
  view: View;
  open: () => void;
  trans: TranslationBundle;
}): ReactElement | null {
  const { view, open, trans } = props;
  const known = knownIn(view);
  const now = useNow(known?.skew ?? 0);
  if (!known) {
    return null;
  }
  const { session } = known;
  const left = session.deadline ? Date.parse(session.deadline) - now : Infinity;
  if (view.kind === 'ended') {
    const [first] = farewell(session, trans);
    return (
      <button type="button" className="bkai-warn" onClick={open} title={first}>
        <sliceIcon.react tag="span" aria-hidden="true" />
        {trans.__('session ended')}
      </button>
    );
  }
  const slice = amount(session, trans);
  const text = left < NEAR_MS ? trans.__('%1, %2 left', slice, span(left, trans)) : slice;
  const silent = view.kind === 'silent' ? silence(view.message, trans) : null;
  return (
    <button
      type="button"
      className={left < NEAR_MS / 6 ? 'bkai-warn' : undefined}
      onClick={open}
      title={silent ?? trans.__('%1; %2', session.accelerator, session.enforcement)}
    >
      <sliceIcon.react tag="span" aria-hidden="true" />
      {silent ? trans.__('%1 (?)', text) : text}
    </button>
  );
}
