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
  | { kind: 'silent'; known: Known | null; message: string | null };

/** What can happen. */
export type Happening =
  | { kind: 'answered'; session: Session; sessions: readonly Session[]; skew: number; at: number }
  | { kind: 'changed'; session: Session; at: number }
  | { kind: 'failed'; message: string | null }
  | { kind: 'outside' };

/** The next view. */
export function next(view: View, happening: Happening): View {
  switch (happening.kind) {
    case 'answered': {
      const { session, sessions, skew, at } = happening;
      const others = inOrder(sessions.filter(other => other.id !== session.id && !isOver(other)));
      return { kind: 'known', session, others, skew, at };
    }
    case 'changed': {
      const known = knownIn(view);
      return known ? { kind: 'known', ...known, ...change(known, happening) } : view;
    }
    case 'failed':
      return { kind: 'silent', known: knownIn(view), message: happening.message };
    case 'outside':
      return { kind: 'outside' };
  }
}

/** What is known in a view, fresh or from before. */
export function knownIn(view: View): Known | null {
  return view.kind === 'known' ? view : view.kind === 'silent' ? view.known : null;
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
