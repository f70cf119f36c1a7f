/**
 * Sentences and words that more than one face uses, through the translator.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import { duration, type Units } from './format.js';
import type { Session, State } from './nouns.js';

/** The domain of our translations. */
export const DOMAIN = 'jupyterhub_bkai';

/** The enforcement that is none. */
export const BOOKED = 'booked, not enforced';

/** The public name of a state: the same word on every face. */
export function stateWord(state: State, trans: TranslationBundle): string {
  const words: Record<State, string> = {
    PENDING: trans.__('PENDING'),
    PREPARING: trans.__('PREPARING'),
    PULLING: trans.__('PULLING'),
    RUNNING: trans.__('RUNNING'),
    TERMINATING: trans.__('TERMINATING'),
    TERMINATED: trans.__('TERMINATED'),
    CANCELLED: trans.__('CANCELLED'),
    ERROR: trans.__('ERROR')
  };
  return words[state] ?? state;
}

/** A length of time. */
export function span(ms: number, trans: TranslationBundle): string {
  const units: Units = {
    days: count => trans.__('%1 d', count),
    hours: count => trans.__('%1 h', count),
    minutes: count => trans.__('%1 min', count),
    seconds: count => trans.__('%1 s', count)
  };
  return duration(ms, units);
}

/** How much of an accelerator, in the administrator's unit. */
export function amount(session: Session, trans: TranslationBundle): string {
  if (session.fgpu) {
    return trans.__('%1 fGPU', session.fgpu);
  }
  return session.slices.length ? session.accelerator : trans.__('no accelerator');
}

/** What an end means for whoever still has this page open. */
export function farewell(session: Session | null, trans: TranslationBundle): string[] {
  return [
    session?.message
      ? trans.__('This session has ended: %1', session.message)
      : trans.__('This session has ended.'),
    trans.__(
      'Saved files are still there. What was not saved is only in this page now: copy it before you close or reload the page. Kernels and terminals have ended.'
    )
  ];
}

/** Why the panel has no fresh answer. */
export function silence(message: string | null, trans: TranslationBundle): string {
  return message
    ? trans.__('The session service says: %1', message)
    : trans.__('The session service does not answer; your work is not affected. Retrying…');
}
