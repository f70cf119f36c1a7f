/**
 * The owner's other sessions, and the way to all of them.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';

import { image } from './format.js';
import { type Session, title } from './nouns.js';
import { StateBadge } from './badge.js';
import { amount } from './words.js';

interface Props {
  others: readonly Session[];
  /** where the sessions page is; null where that is not known */
  pages: string | null;
  trans: TranslationBundle;
}

/** A list, and a link below it. */
export function Others({ others, pages, trans }: Props): ReactElement {
  return (
    <section aria-labelledby="bkai-others">
      <h3 id="bkai-others">{trans.__('My other sessions')}</h3>
      {others.length ? (
        <ul className="bkai-others">
          {others.map(session => (
            <Other key={session.id} session={session} trans={trans} />
          ))}
        </ul>
      ) : (
        <p className="bkai-quiet">{trans.__('None.')}</p>
      )}
      {pages && (
        <a className="bkai-pages" href={pages} target="_blank" rel="noopener">
          {trans.__('All sessions and new ones')}
        </a>
      )}
    </section>
  );
}

function Other({ session, trans }: { session: Session; trans: TranslationBundle }): ReactElement {
  const name = title(session) || trans.__('Default session');
  return (
    <li>
      <div className="bkai-row">
        <span className="bkai-name">{name}</span>
        <StateBadge state={session.state} trans={trans} />
      </div>
      <div className="bkai-row bkai-quiet">
        <span title={session.accelerator}>
          {trans.__('%1, %2', image(session.image), amount(session, trans))}
        </span>
        {session.state === 'RUNNING' && (
          <a
            href={session.url}
            target="_blank"
            rel="noopener"
            aria-label={trans.__('Open the session %1', name)}
          >
            {trans.__('Open')}
          </a>
        )}
      </div>
      <Waiting session={session} trans={trans} />
    </li>
  );
}

/** Why it does not run yet. */
function Waiting({
  session,
  trans
}: {
  session: Session;
  trans: TranslationBundle;
}): ReactElement | null {
  const progress = session.progress?.message;
  if (session.state === 'PENDING') {
    const place = session.position ? trans.__('Number %1 in the queue.', session.position) : null;
    return <p className="bkai-quiet">{[place, session.why].filter(Boolean).join(' ')}</p>;
  }
  return session.state !== 'RUNNING' && progress ? <p className="bkai-quiet">{progress}</p> : null;
}
