/**
 * What Lab asks its own server about sessions; the server asks the service.
 *
 * Owns addresses and the meaning of answers. Knows no panel.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { Room, Session } from './nouns.js';
import { EventParser } from './sse.js';

/** The service says something on every stream each 10 s; one that is silent for longer than this is broken. */
const QUIET_MS = 45_000;

/** This Lab was not started by bkai. */
export class NoSession extends Error {}

/** The hub answers in this session's place: its server does not run. */
export class Gone extends Error {}

/** An answer that is a refusal, in the service's own words; `message` is null when there were none. */
export class Refused extends Error {
  constructor(readonly sentence: string | null) {
    super(sentence ?? 'no answer');
  }
}

/** This session and all of its owner's, and how far the service's clock is ahead. */
export interface Answer {
  session: Session;
  sessions: Session[];
  skew: number;
}

/** The server extension's addresses. */
export class Api {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  /** How things stand. */
  async look(): Promise<Answer> {
    const [own, all] = await Promise.all([this._get('session'), this._get('sessions')]);
    const session = (await own.json()) as Session;
    const { sessions } = (await all.json()) as { sessions: Session[] };
    return { session, sessions, skew: skew(own) };
  }

  /** Tell every change to a session of the owner's, until the stream ends or `signal` is aborted. */
  async follow(changed: (session: Session) => void, signal: AbortSignal): Promise<void> {
    const broken = new AbortController();
    signal.addEventListener('abort', () => broken.abort());
    const response = await this._get('sessions/events', { signal: broken.signal });
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const decoder = new TextDecoder();
    const parser = new EventParser();
    for (;;) {
      const quiet = setTimeout(() => broken.abort(), QUIET_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(quiet));
      if (done) {
        return;
      }
      for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
        if (event.kind === 'session') {
          changed(JSON.parse(event.data) as Session);
        }
      }
    }
  }

  /** Ask for the end of this session. */
  async stop(): Promise<void> {
    await this._ask('session/stop', { method: 'POST' });
  }

  /** By how much this session can be extended. */
  async room(): Promise<Room> {
    return (await (await this._get('session/extend')).json()) as Room;
  }

  /** Give this session more time, such as "3600s". */
  async extend(by: string): Promise<Session> {
    const answer = await this._ask('session/extend', {
      method: 'POST',
      body: JSON.stringify({ by })
    });
    return (await answer.json()) as Session;
  }

  private async _get(path: string, init: RequestInit = {}): Promise<Response> {
    // The hub answers a program that asks for JSON with a status, and others with a page.
    const headers = { Accept: 'application/json, text/event-stream' };
    return this._ask(path, { ...init, headers, cache: 'no-store' });
  }

  private async _ask(path: string, init: RequestInit): Promise<Response> {
    const url = URLExt.join(this._settings.baseUrl, 'bkai', path);
    const response = await ServerConnection.makeRequest(url, init, this._settings);
    if (!response.ok) {
      throw await refusal(response);
    }
    return response;
  }
}

async function refusal(response: Response): Promise<Error> {
  if (response.status === 424) {
    return new Gone('the server does not run');
  }
  const body: unknown = await response.json().catch(() => null);
  const error = (body as { error?: { reason?: string; message?: string } } | null)?.error;
  if (response.status === 404 && (!error || error.reason === 'no-session')) {
    return new NoSession('not a session');
  }
  // "unavailable" is what the panel says in words of its own
  return new Refused(error?.reason === 'unavailable' ? null : (error?.message ?? null));
}

/** How far the other side's clock is ahead; it tells the time in whole seconds. */
function skew(response: Response): number {
  const theirs = Date.parse(response.headers.get('Date') ?? '');
  const ahead = theirs - Date.now();
  return Math.abs(ahead) > 2000 ? ahead : 0;
}
