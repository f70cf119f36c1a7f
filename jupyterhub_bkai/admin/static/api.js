// The service's REST interface from its own page: one login, one token against forged requests, one form of errors.

export class Refusal extends Error {
  constructor(status, message, fields = {}) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

export class Api {
  /** `base` is the address of the interface; `token` is what the page was rendered with. */
  constructor(base, token) {
    this.base = base;
    this.token = token;
  }

  /** The answer as JSON (or as text); raises `Refusal` with the service's sentence, or TypeError when nothing answers. */
  async call(path, { method = "GET", text = false, body } = {}) {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await this.fetch(path, { method, signal: AbortSignal.timeout(15000), ...sent });
    return answer.status === 204 ? null : text ? answer.text() : answer.json();
  }

  /** The answer itself, for streams. */
  async fetch(path, options) {
    const answer = await window.fetch(this.base + path, {
      ...options,
      headers: { "X-XSRFToken": this.token, ...(options.body === undefined ? {} : { "Content-Type": "application/json" }) },
    });
    if (answer.ok) return answer;
    const body = await answer.json().catch(() => null);
    throw new Refusal(answer.status, body?.error?.message ?? `the service answered ${answer.status}`, body?.error?.fields);
  }
}
