// The service's REST interface from its own page: one login, one token against forged requests, one form of errors.

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  /** `base` is the address of the interface; `token` is what the page was rendered with. */
  constructor(base, token) {
    this.base = base;
    this.token = token;
  }

  /** The answer as JSON (or as text); raises `Refusal` with the service's sentence, or TypeError when nothing answers. */
  async call(path, { method = "GET", text = false } = {}) {
    const answer = await fetch(this.base + path, { method, headers: { "X-XSRFToken": this.token }, signal: AbortSignal.timeout(15000) });
    if (answer.ok) return answer.status === 204 ? null : text ? answer.text() : answer.json();
    const body = await answer.json().catch(() => null);
    throw new Refusal(answer.status, body?.error?.message ?? `the service answered ${answer.status}`);
  }

  /** An event stream; what a page cannot send as a header it sends in the address. */
  stream(path) {
    const mark = path.includes("?") ? "&" : "?";
    return new EventSource(`${this.base}${path}${mark}_xsrf=${encodeURIComponent(this.token)}`);
  }
}
