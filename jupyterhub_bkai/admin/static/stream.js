// Keeps an event stream open: connects again with growing pauses, lets go while nobody looks, says how it stands.
//
// Read with fetch, not EventSource: when the service is killed the proxy in between leaves the stream open and
// silent, so silence itself has to be noticed, and EventSource hides the service's heartbeats.

const LONGEST = 30;
const HIDDEN = 60000;
const SILENCE = 15000; // the service says something every 10 s

/** Reads an answer's event stream to its end; `heard(name, data)` gets the events, `alive()` hears every sign of life. */
export async function read(answer, heard, alive) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const lines = event.split("\n");
      const part = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim()).join("\n");
      if (part("data")) heard(part("event") || "message", JSON.parse(part("data")));
    }
  }
}

export class Stream {
  /** `open(signal)` gives the answer of a fetch; `events` maps names to functions; `tell(state, seconds)` hears "lost", "wait". */
  constructor({ open, events, tell }) {
    Object.assign(this, { open, events, tell, abort: null, timer: 0, pause: 1, hiding: 0 });
    document.addEventListener("visibilitychange", () => this.looked());
  }

  async connect() {
    this.close();
    const abort = (this.abort = new AbortController());
    let watch = 0;
    const alive = () => {
      window.clearTimeout(watch);
      watch = window.setTimeout(() => abort.abort(new Error("silence")), SILENCE);
    };
    let some = false;
    const heard = (name, data) => {
      some = true;
      this.pause = 1;
      this.events[name]?.(data);
    };
    try {
      alive();
      await read(await this.open(abort.signal), heard, alive);
      // The service ends streams from time to time, so that those nobody reads do not stay: no reason to worry anybody.
      if (!some) throw new Error("the stream ended at once");
      if (abort === this.abort) this.timer = window.setTimeout(() => void this.connect(), 1000);
    } catch (error) {
      if (abort !== this.abort) return;
      this.close();
      this.later();
      this.tell("lost", error);
    } finally {
      window.clearTimeout(watch);
    }
  }

  later() {
    const pause = this.pause;
    this.pause = Math.min(LONGEST, pause * 2);
    const count = (left) => {
      this.tell("wait", left);
      this.timer = window.setTimeout(() => (left > 1 ? count(left - 1) : void this.connect()), 1000);
    };
    count(pause);
  }

  close() {
    window.clearTimeout(this.timer);
    const abort = this.abort;
    this.abort = null;
    abort?.abort();
  }

  /** A page that nobody looks at holds no connection: browsers have few of them for one site. */
  looked() {
    window.clearTimeout(this.hiding);
    if (document.hidden) this.hiding = window.setTimeout(() => this.close(), HIDDEN);
    else if (!this.abort) {
      this.pause = 1;
      void this.connect();
    }
  }
}
