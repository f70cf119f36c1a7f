/**
 * The nouns of the session service, as far as Lab shows them.
 *
 * Owns shapes only. Times are ISO 8601 in UTC, shares exact fractions as text ("1/4").
 */

/** A part of one device. */
export interface Slice {
  device: string;
  index: number;
  slot: string;
  model: string;
  share: string;
  memory_mib: number;
  mig: { profile: string; start: number; size: number } | null;
}

/** The public states; the service may know more of them in time. */
export type State =
  | 'PENDING'
  | 'PREPARING'
  | 'PULLING'
  | 'RUNNING'
  | 'TERMINATING'
  | 'TERMINATED'
  | 'CANCELLED'
  | 'ERROR';

/** One session, as the service's books have it. */
export interface Session {
  id: string;
  user: string;
  server: string;
  name: string;
  url: string;
  image: string;
  state: State;
  position: number | null;
  why: string | null;
  progress: { percent: number | null; message: string } | null;
  accelerator: string;
  fgpu: string | null;
  share: string | null;
  slices: Slice[];
  cpu: number;
  memory_mib: number;
  shm_mib: number;
  asked: string | null;
  started: string | null;
  deadline: string | null;
  /** the newest warning of this deadline */
  warning?: { id: string; at: string; message: string } | null;
  message: string | null;
  trouble: string | null;
  enforcement: string;
  fake: boolean;
}

/** By how many seconds the session can be extended, and why not for longer. */
export interface Room {
  seconds: number;
  until: string;
  why: string;
}

const OVER: readonly State[] = ['TERMINATED', 'CANCELLED', 'ERROR'];

/** True when a session has ended and will not change any more. */
export function isOver(session: Session): boolean {
  return OVER.includes(session.state);
}

/** What people call a session; empty for the one without a name, which programs call "default". */
export function title(session: Session): string {
  return session.server || session.name !== 'default' ? session.name || session.server : '';
}
