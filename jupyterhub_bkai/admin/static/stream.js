// Keeps an event stream open: connects again with growing pauses, lets go while nobody looks, says how it stands.

const LONGEST = 30;
const HIDDEN = 60000;

export class Stream {
  /** `open()` gives an EventSource; `events` maps names to functions; `tell(state, seconds)` hears "open", "lost", "wait". */
  constructor({ open, events, tell }) {
    Object.assign(this, { open, events, tell, source: null, timer: 0, pause: 1, hiding: 0 });
    document.addEventListener("visibilitychange", () => this.looked());
  }

  connect() {
    window.clearTimeout(this.timer);
    this.source?.close();
    const source = (this.source = this.open());
    for (const [name, heard] of Object.entries(this.events)) {
      source.addEventListener(name, (event) => {
        this.pause = 1;
        heard(JSON.parse(event.data));
      });
    }
    source.onopen = () => this.tell("open");
    source.onerror = () => {
      if (source !== this.source) return;
      this.close();
      this.tell("lost");
      this.later();
    };
  }

  later(left = this.pause) {
    this.tell("wait", left);
    if (left > 0) this.timer = window.setTimeout(() => this.later(left - 1), 1000);
    else this.connect();
    if (left === this.pause) this.pause = Math.min(LONGEST, this.pause * 2);
  }

  close() {
    window.clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  /** A page that nobody looks at holds no connection: browsers have few of them for one site. */
  looked() {
    window.clearTimeout(this.hiding);
    if (document.hidden) this.hiding = window.setTimeout(() => this.close(), HIDDEN);
    else if (!this.source) {
      this.pause = 1;
      this.connect();
    }
  }
}
