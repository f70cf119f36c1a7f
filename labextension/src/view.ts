/**
 * What the panel shows, as data, and how it changes. Pure: (view, happening) → view.
 */
import { isOver, type Session } from './nouns.js';

/** Everything known about this session and its owner's others. */
export interface Known {
  session: Session;
  others: readonly Session[];
  /** How far the service's clock is ahead of this one, in milliseconds. */
  skew: number;
  /** When this was so, by this computer's clock. */
  at: number;
}

/** What the panel shows. */
export type View =
  | { kind: 'loading' }
  /** this Lab was not started by bkai */
  | { kind: 'outside' }
  | ({ kind: 'known' } & Known)
  /** no answer; `known` is what was known before, `message` the reason where one was given */
  | { kind: 'silent'; known: Known | null; message: string | null }
  /** the session is over; `known` is what was known of it */
  | { kind: 'ended'; known: Known | null };

/** What can happen. */
export type Happening =
  | { kind: 'answered'; session: Session; sessions: readonly Session[]; skew: number; at: number }
  | { kind: 'changed'; session: Session; at: number }
  | { kind: 'failed'; message: string | null }
  | { kind: 'gone' }
  | { kind: 'outside' };

/** The next view. */
export function next(view: View, happening: Happening): View {
  switch (happening.kind) {
    case 'answered': {
      const { session, sessions, skew, at } = happening;
      if (isOver(session)) {
        return { kind: 'ended', known: { session, others: [], skew, at } };
      }
      const others = inOrder(sessions.filter(other => other.id !== session.id && !isOver(other)));
      return { kind: 'known', session, others, skew, at };
    }
    case 'changed': {
      const known = knownIn(view);
      if (!known || view.kind === 'ended') {
        return view;
      }
      const changed = { ...known, ...change(known, happening) };
      return isOver(changed.session)
        ? { kind: 'ended', known: changed }
        : { kind: 'known', ...changed };
    }
    case 'failed': {
      const known = knownIn(view);
      // Whose end was under way has ended when nothing answers any more.
      const ending = view.kind === 'ended' || known?.session.state === 'TERMINATING';
      return ending ? ended(known) : { kind: 'silent', known, message: happening.message };
    }
    case 'gone':
      return ended(knownIn(view));
    case 'outside':
      // What was a session a moment ago is none any more: the hub has forgotten it.
      return knownIn(view) ? ended(knownIn(view)) : { kind: 'outside' };
  }
}

/** What is known in a view, fresh or from before. */
export function knownIn(view: View): Known | null {
  return view.kind === 'known'
    ? view
    : view.kind === 'silent' || view.kind === 'ended'
      ? view.known
      : null;
}

/** It is over, whatever was heard of it last. */
function ended(known: Known | null): View {
  if (!known || isOver(known.session)) {
    return { kind: 'ended', known };
  }
  return { kind: 'ended', known: { ...known, session: { ...known.session, state: 'TERMINATED' } } };
}

function change(known: Known, news: { session: Session; at: number }): Partial<Known> {
  const { session: changed, at } = news;
  if (changed.id === known.session.id) {
    return { session: changed, at };
  }
  if (changed.user !== known.session.user) {
    return { at };
  }
  const rest = known.others.filter(other => other.id !== changed.id);
  return { others: inOrder(isOver(changed) ? rest : [...rest, changed]), at };
}

/** Running ones first, then in the order they were asked for; ids sort by time. */
function inOrder(sessions: readonly Session[]): Session[] {
  const rank = (session: Session) => (session.state === 'RUNNING' ? 0 : 1);
  return [...sessions].sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1));
}
