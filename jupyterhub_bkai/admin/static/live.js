// The live answer: asks the service what would happen, a moment after the last key and again every quarter of a minute.

import { texts } from "./texts.js";

const AFTER_KEY = 300;
const AGAIN = 15000;

/** The form's fields as raw options. */
export function raw(form) {
  const found = {};
  for (const [key, value] of new FormData(form).entries()) {
    if (typeof value !== "string" || !value.trim() || key === "_xsrf") continue;
    if (key === "folders") (found.folders ??= []).push(value);
    else found[key] = value.trim();
  }
  return found;
}

export class Live {
  /** `page.place` says where the service is and holds the ticket; `tell` gets every answer. */
  constructor(page, tell) {
    this.page = page;
    this.tell = tell;
    this.timer = 0;
    this.asking = null;
    document.addEventListener("visibilitychange", () => !document.hidden && this.soon());
  }

  soon(wait = AFTER_KEY) {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.ask(), wait);
  }

  async ask() {
    if (document.hidden) return;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const { service, ticket } = this.page.place;
    try {
      const answer = await fetch(`${service}form/check`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Bkai-Ticket": ticket },
        body: JSON.stringify({ options: raw(this.page.form) }),
        signal: AbortSignal.any([asking.signal, AbortSignal.timeout(8000)]),
        credentials: "omit",
      });
      if (answer.status === 401) return this.tell({ trouble: texts.stale });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.tell(await answer.json());
    } catch {
      if (asking.signal.aborted) return;
      this.tell({ trouble: texts.noAnswer });
    }
    this.soon(AGAIN);
  }
}
