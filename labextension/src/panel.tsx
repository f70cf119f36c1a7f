/**
 * The "Session" panel: everything about this session on one narrow page.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import type { ReactElement } from 'react';

import { Facts } from './facts.js';
import type { Feed } from './feed.js';
import { image } from './format.js';
import { sliceIcon } from './icons.js';
import { type Session, title } from './nouns.js';
import { Others } from './others.js';
import { Slices } from './slices.js';
import { StateBadge } from './badge.js';
import { PANEL } from './tokens.js';
import { knownIn, type Known, type View } from './view.js';
import { farewell, silence } from './words.js';

/** What the panel needs from around it. */
export interface Around {
  feed: Feed;
  /** where the sessions page is; null where that is not known */
  pages: string | null;
  /** the form that starts this session's server again; null where there is none */
  startAgain: string | null;
  stop: () => void;
  extend: () => void;
  trans: TranslationBundle;
}

type Silent = Extract<View, { kind: 'silent' }>;
type Ended = Extract<View, { kind: 'ended' }>;

/** The panel as a widget of the shell. */
export class SessionPanel extends ReactWidget {
  constructor(private readonly _around: Around) {
    super();
    this.id = PANEL;
    this.addClass('bkai-panel');
    this.title.icon = sliceIcon;
    this.title.caption = _around.trans.__('Session');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _around.trans.__('Session'));
  }

  protected override render(): ReactElement {
    const { feed } = this._around;
    return (
      <UseSignal signal={feed.changed} initialArgs={feed.view}>
        {(_, view) => <Page view={view ?? feed.view} around={this._around} />}
      </UseSignal>
    );
  }
}

function Page({ view, around }: { view: View; around: Around }): ReactElement {
  const { trans, feed } = around;
  const known = knownIn(view);
  return (
    <div className="bkai-page" aria-busy={view.kind === 'loading'}>
      <h2 className="bkai-heading">{trans.__('Session')}</h2>
      <div role="status">
        {view.kind === 'loading' && (
          <p className="bkai-quiet">{trans.__('Asking the session service…')}</p>
        )}
        {view.kind === 'silent' && <Silence view={view} feed={feed} trans={trans} />}
        {view.kind === 'ended' && <Farewell view={view} around={around} />}
      </div>
      {view.kind === 'outside' && (
        <p className="bkai-note">
          {trans.__(
            'This JupyterLab was not started as a bkai session, so there is nothing to show here.'
          )}
        </p>
      )}
      {known && view.kind === 'ended' && <Heading session={known.session} trans={trans} />}
      {known && view.kind !== 'ended' && <KnownPage known={known} around={around} />}
    </div>
  );
}

function Silence(props: { view: Silent; feed: Feed; trans: TranslationBundle }): ReactElement {
  const { view, feed, trans } = props;
  const at = view.known && new Date(view.known.at).toLocaleTimeString();
  return (
    <div className="bkai-note bkai-note-warn">
      <p>{silence(view.message, trans)}</p>
      {at && <p>{trans.__('This is how things were at %1.', at)}</p>}
      <button type="button" className="bkai-link" onClick={() => feed.retry()}>
        {trans.__('Try now')}
      </button>
    </div>
  );
}

function Farewell({ view, around }: { view: Ended; around: Around }): ReactElement {
  const { trans, pages, startAgain } = around;
  return (
    <div className="bkai-note bkai-note-warn">
      {farewell(view.known?.session ?? null, trans).map(sentence => (
        <p key={sentence}>{sentence}</p>
      ))}
      <p className="bkai-ways">
        {startAgain && (
          <a href={startAgain} target="_blank" rel="noopener">
            {trans.__('Start it again')}
          </a>
        )}
        {pages && (
          <a href={pages} target="_blank" rel="noopener">
            {trans.__('All sessions and new ones')}
          </a>
        )}
      </p>
    </div>
  );
}

function Heading({ session, trans }: { session: Session; trans: TranslationBundle }): ReactElement {
  return (
    <header>
      <div className="bkai-row">
        <h3 className="bkai-name">{title(session) || trans.__('Default session')}</h3>
        <StateBadge state={session.state} trans={trans} />
      </div>
      <p className="bkai-quiet" title={trans.__('Image version')}>
        {image(session.image)}
      </p>
    </header>
  );
}

function KnownPage({ known, around }: { known: Known; around: Around }): ReactElement {
  const { session } = known;
  const { trans } = around;
  return (
    <>
      <Heading session={session} trans={trans} />
      {session.trouble && <p className="bkai-note bkai-note-warn">{session.trouble}</p>}
      {session.fake && session.slices.length > 0 && (
        <p className="bkai-note bkai-note-warn">
          {trans.__(
            'Fake device: this hub pretends to have the card, so programs will not find it.'
          )}
        </p>
      )}
      <Slices session={session} trans={trans} />
      <Facts session={session} skew={known.skew} trans={trans} />
      {session.deadline && session.state === 'RUNNING' && (
        <button
          type="button"
          className="bkai-extend"
          onClick={around.extend}
          aria-haspopup="dialog"
        >
          {trans.__('More time…')}
        </button>
      )}
      <Stop session={session} stop={around.stop} trans={trans} />
      <Others others={known.others} pages={around.pages} trans={trans} />
    </>
  );
}

function Stop(props: {
  session: Session;
  stop: () => void;
  trans: TranslationBundle;
}): ReactElement {
  const { session, stop, trans } = props;
  return (
    <button
      type="button"
      className="bkai-stop"
      onClick={stop}
      disabled={session.state !== 'RUNNING'}
      aria-haspopup="dialog"
    >
      {session.state === 'TERMINATING' ? trans.__('Terminating…') : trans.__('Stop this session…')}
    </button>
  );
}
