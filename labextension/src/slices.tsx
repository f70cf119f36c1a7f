/**
 * The slice: how much, of which card, and how it is enforced.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { ReactElement } from 'react';

import { exactMemory, fraction, memory, percent } from './format.js';
import type { Session, Slice } from './nouns.js';
import { amount, BOOKED } from './words.js';

interface Props {
  session: Session;
  trans: TranslationBundle;
}

/** What this session holds. */
export function Slices({ session, trans }: Props): ReactElement {
  return (
    <section className="bkai-card" aria-label={trans.__('Slice')}>
      <p className="bkai-amount" title={session.accelerator}>
        {session.slices.length ? amount(session, trans) : trans.__('No accelerator')}
      </p>
      {session.slices.length ? (
        session.slices.map(slice => (
          <OneSlice key={`${slice.device} ${slice.mig?.start ?? ''}`} slice={slice} trans={trans} />
        ))
      ) : (
        <p className="bkai-quiet">{trans.__('This session uses the processor only.')}</p>
      )}
      {session.slices.length > 0 && <Enforcement text={session.enforcement} trans={trans} />}
    </section>
  );
}

function OneSlice({ slice, trans }: { slice: Slice; trans: TranslationBundle }): ReactElement {
  const share = fraction(slice.share);
  const shown = Number.isFinite(share) ? Math.min(1, share) * 100 : 0;
  const text =
    share === 1
      ? trans.__('One whole %1', slice.model)
      : trans.__('%1 % of one %2', percent(slice.share), slice.model);
  return (
    <div className="bkai-slice">
      <div
        className="bkai-meter"
        role="meter"
        aria-label={trans.__('Share of the card')}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(shown)}
        aria-valuetext={text}
      >
        <span style={{ width: `${shown}%` }} />
      </div>
      <p>{text}</p>
      <p className="bkai-quiet" title={exactMemory(slice.memory_mib)}>
        {slice.mig
          ? trans.__(
              '%1 of its memory, MIG profile %2',
              memory(slice.memory_mib),
              slice.mig.profile
            )
          : trans.__('%1 of its memory', memory(slice.memory_mib))}
      </p>
    </div>
  );
}

function Enforcement({ text, trans }: { text: string; trans: TranslationBundle }): ReactElement {
  if (text !== BOOKED) {
    return <p className="bkai-enforcement">{text}</p>;
  }
  return (
    <details className="bkai-enforcement">
      <summary>{trans.__('Booked, not enforced')}</summary>
      <p>
        {trans.__(
          'The books keep this part of the card for you alone. Nothing stops a program from taking more than its part, neither yours nor somebody else’s.'
        )}
      </p>
    </details>
  );
}
