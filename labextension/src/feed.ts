/**
 * `Feed`: keeps the view up to date, for as long as somebody can see it.
 *
 * Owns the connection's life: ask, follow the events, ask again when they break off, pause while the page is
 * hidden (a browser allows six connections to a host, and every open Lab takes one).
 */
import type { IDisposable } from '@lumino/disposable';
import { type ISignal, Signal } from '@lumino/signaling';

import { type Api, Gone, NoSession, Refused } from './api.js';
import type { Room, Session } from './nouns.js';
import { type Happening, next, type View } from './view.js';

const PAUSES_MS = [500, 1000, 2000, 5000, 10_000];
/** How often it is looked whether a session that has ended was started again at this address. */
const ENDED_MS = 60_000;
/** So often in a row the hub has to say that the server does not run: one that has just restarted may not know yet. */
const SURE = 3;

/** The view, live. */
export class Feed implements IDisposable {
  constructor(private readonly _api: Api) {
    document.addEventListener('visibilitychange', this._shown);
    void this._run();
  }

  /** What is to be shown. */
  get view(): View {
    return this._view;
  }

  /** Tells each new view. */
  get changed(): ISignal<this, View> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Try at once rather than after the pause. */
  retry(): void {
    this._wake();
  }

  /** Ask for the end of this session; throws when that was refused. */
  async stop(): Promise<void> {
    await this._api.stop();
  }

  /** By how much this session can be extended. */
  room(): Promise<Room> {
    return this._api.room();
  }

  /** Give this session more time; throws when that was refused. */
  async extend(by: string): Promise<Session> {
    const session = await this._api.extend(by);
    this._happened({ kind: 'changed', session, at: Date.now() });
    return session;
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    document.removeEventListener('visibilitychange', this._shown);
    this._following.abort();
    this._wake();
    Signal.clearData(this);
  }

  private async _run(): Promise<void> {
    let failures = 0;
    let gone = 0;
    while (!this._disposed && this._view.kind !== 'outside') {
      if (document.hidden) {
        await this._pause(null);
        continue;
      }
      try {
        this._happened({ kind: 'answered', ...(await this._api.look()), at: Date.now() });
        failures = gone = 0;
        if (this._view.kind !== 'ended') {
          await this._follow();
        }
        await this._pause(this._view.kind === 'ended' ? ENDED_MS : (PAUSES_MS[0] ?? 0));
      } catch (error) {
        gone = error instanceof Gone ? gone + 1 : 0;
        this._happened(happening(error, gone));
        const soon = PAUSES_MS[Math.min(failures++, PAUSES_MS.length - 1)] ?? 0;
        await this._pause(this._view.kind === 'ended' ? ENDED_MS : soon);
      }
    }
  }

  private async _follow(): Promise<void> {
    if (document.hidden || this._disposed) {
      return; // meanwhile
    }
    this._following = new AbortController();
    const { signal } = this._following;
    try {
      await this._api.follow(
        session => this._happened({ kind: 'changed', session, at: Date.now() }),
        signal
      );
    } catch (error) {
      // A stream that breaks off says nothing yet: whether the service is there, the next look tells.
      if (!signal.aborted) {
        console.debug('bkai: the event stream broke off', error);
      }
    }
  }

  private _happened(happening: Happening): void {
    this._view = next(this._view, happening);
    if (!this._disposed) {
      this._changed.emit(this._view);
    }
  }

  /** Wait until woken, at most `ms` milliseconds. */
  private async _pause(ms: number | null): Promise<void> {
    if (this._disposed) {
      return;
    }
    let timer: number | undefined;
    await new Promise<void>(resolve => {
      this._wake = resolve;
      timer = ms === null ? undefined : window.setTimeout(resolve, ms);
    });
    window.clearTimeout(timer);
  }

  private readonly _shown = (): void => {
    if (document.hidden) {
      this._following.abort();
    } else {
      this._wake();
    }
  };

  private _view: View = { kind: 'loading' };
  private _changed = new Signal<this, View>(this);
  private _following = new AbortController();
  private _wake: () => void = () => undefined;
  private _disposed = false;
}

function happening(error: unknown, gone: number): Happening {
  if (gone >= SURE) {
    return { kind: 'gone' };
  }
  if (error instanceof NoSession) {
    return { kind: 'outside' };
  }
  return { kind: 'failed', message: error instanceof Refused ? error.sentence : null };
}
