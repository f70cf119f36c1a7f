/**
 * Server-sent events: pieces of text in, events out. Pure.
 */

/** One event: its kind and its data. */
export interface ServerEvent {
  kind: string;
  data: string;
}

/** Puts lines together from pieces that are cut anywhere; comments (heartbeats) are passed over. */
export class EventParser {
  /** The events that are complete with this piece. */
  feed(piece: string): ServerEvent[] {
    const lines = (this._rest + piece).split('\n');
    this._rest = lines.pop() ?? '';
    const events: ServerEvent[] = [];
    for (const line of lines) {
      const event = this._line(line.replace(/\r$/, ''));
      if (event) {
        events.push(event);
      }
    }
    return events;
  }

  private _line(line: string): ServerEvent | null {
    if (line === '') {
      const event = this._data.length ? { kind: this._kind, data: this._data.join('\n') } : null;
      this._kind = 'message';
      this._data = [];
      return event;
    }
    const colon = line.indexOf(':');
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'event') {
      this._kind = value;
    } else if (name === 'data') {
      this._data.push(value);
    }
    return null;
  }

  private _rest = '';
  private _kind = 'message';
  private _data: string[] = [];
}
