// How sessions and machines are shown: elements from the service's JSON. Decides nothing, calls nothing.

import { bar, el } from "./dom.js";
import { percent, read, size, value } from "./amounts.js";
import { texts } from "./texts.js";

export const ENDED = new Set(["TERMINATED", "CANCELLED", "ERROR"]);

/** A length of time for people: "45 s", "3 min", "2 h 5 min", "1 d 4 h". */
export function span(ms) {
  const total = Math.max(0, Math.round(ms / 1000));
  if (total < 60) return `${total} s`;
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  const words = [];
  let rest = total;
  for (const [length, unit] of parts) {
    if (rest >= length) words.push(`${Math.floor(rest / length)} ${unit}`);
    rest %= length;
  }
  return words.slice(0, 2).join(" ");
}

const STEPS = [900, 1800, 3600, 7200, 14400, 28800, 86400];

/** The amounts of time to choose from when so many seconds are the most: whole minutes, the most of a short one too. */
export function steps(most) {
  const whole = Math.floor(most / 60) * 60;
  const found = STEPS.filter((seconds) => seconds <= whole);
  return whole > 0 && whole < STEPS.at(-1) && !found.includes(whole) ? [...found, whole] : found;
}

/** A text that depends on now; `tick` renews it. */
export function clock(kind, at) {
  const node = el("span", { "data-clock": kind, "data-at": at });
  renew(node, Date.now());
  return node;
}

function renew(node, now) {
  const at = Date.parse(node.dataset.at);
  const words = {
    since: () => texts.since(span(now - at)),
    left: () => (at > now ? texts.left(span(at - now)) : texts.over),
    ago: () => texts.endedAgo(span(now - at)),
  }[node.dataset.clock]();
  if (node.textContent !== words) node.textContent = words;
  if (node.dataset.clock === "left") node.classList.toggle("bkai-soon", at - now < 600000);
}

/** Renews every text that depends on now. */
export function tick(root) {
  const now = Date.now();
  for (const node of root.querySelectorAll("[data-clock]")) renew(node, now);
}

/** "default" is what programs call the one without a name. */
export const nameOf = (session) => session.server || (session.name && session.name !== "default" ? session.name : texts.defaultName);

function pill(session) {
  const word = texts.states[session.state] ?? session.state;
  return el("span", { class: "bkai-state", "data-state": session.state, title: texts.meanings[session.state], text: word });
}

/** What of which card: a bar for the part, and fGPU and share in words. */
function slice(session) {
  if (!session.slices.length) {
    const none = session.accelerator === texts.noAccelerator;
    return el("div", { class: "bkai-slice" }, el("span", { class: none ? "bkai-muted" : "", text: session.accelerator }));
  }
  const bars = session.slices.slice(0, 4).map((piece) => bar([{ size: value(read(piece.share)), kind: "mine" }]));
  const more = session.slices.length > 4 ? el("span", { class: "bkai-muted", text: `+${session.slices.length - 4}` }) : null;
  const [first] = session.slices;
  const places = [...new Set(session.slices.map((piece) => piece.index))];
  const cards = places.length === 1 ? texts.card(places[0]) : places.length <= 8 ? texts.cards(places.join(", ")) : "";
  const share = first.mig && session.slices.length === 1 ? texts.migShare(first.fgpu, percent(read(first.share))) : "";
  return el("div", { class: "bkai-slice" },
    el("span", { class: "bkai-bars" }, bars, more),
    el("span", { text: session.accelerator }),
    el("span", { class: "bkai-muted", text: [share, cards].filter(Boolean).join(" · ") }));
}

function where(session, page) {
  const size_ = `${texts.cores(session.cpu)}, ${size(session.memory_mib)}`;
  return el("div", { class: "bkai-where" },
    el("span", { text: session.node ? `${page.group(session.group)} · ${session.node}` : page.group(session.group) }),
    el("span", { class: "bkai-muted", text: size_ }));
}

/** How it stands: what it waits for, how far it is, when it ends, why it ended. */
function standing(session, page) {
  const lines = [];
  if (session.position) lines.push(el("strong", { text: session.position === 1 ? texts.next(page.group(session.group)) : texts.position(session.position, page.group(session.group)) }));
  if (session.why) lines.push(el("span", { text: session.why }));
  if (session.why && session.state === "PENDING") lines.push(el("span", { class: "bkai-muted", "data-when": session.when ? "known" : "unknown", text: when(session.when) }));
  if (session.trouble) lines.push(el("span", { class: "bkai-error", text: session.trouble }));
  const progress = session.progress;
  if (progress && !ENDED.has(session.state)) {
    lines.push(el("span", { text: progress.percent === null ? progress.message : `${progress.message} ${progress.percent} %` }));
    if (progress.percent !== null) lines.push(bar([{ size: progress.percent / 100, kind: "mine" }]));
  }
  if (ENDED.has(session.state)) {
    const cause = session.message || texts.causes[session.cause] || session.cause;
    if (cause) lines.push(el("span", { text: cause }));
  }
  if (session.warning) lines.push(el("strong", { class: "bkai-soon", text: session.warning.message }));
  const offers = page.offers.get(session.id)?.found ?? [];
  if (offers.length && session.state === "PENDING") {
    lines.push(el("span", { class: "bkai-buttons" }, offers.map((offer) =>
      el("button", { class: "btn btn-sm btn-outline-primary", type: "button", text: offer.text, "data-action": offer.text, onclick: () => page.take(session, offer) }))));
  }
  return lines.length ? el("div", { class: "bkai-why" }, lines) : null;
}

/** When somebody who waits starts, in the reader's own time. */
export function when(range) {
  if (!range) return texts.whenUnknown;
  const day = (moment) => moment.toDateString() !== new Date().toDateString();
  const text = (moment) => moment.toLocaleString([], { ...(day(moment) && { weekday: "short" }), hour: "2-digit", minute: "2-digit" });
  return texts.whenBetween(text(new Date(range.earliest)), text(new Date(range.latest)));
}

function times(session) {
  if (ENDED.has(session.state)) {
    const ran = session.started && session.ended ? texts.ranFor(span(Date.parse(session.ended) - Date.parse(session.started))) : "";
    return el("div", { class: "bkai-when" }, clock("ago", session.ended ?? session.state_since), ran && el("span", { class: "bkai-muted", text: ran }));
  }
  const left = session.deadline ? clock("left", session.deadline) : null;
  return el("div", { class: "bkai-when" }, clock("since", session.state_since), left);
}

function actions(session, page) {
  const name = nameOf(session);
  const own = session.user === page.user;
  const link = (text, label, href, kind) => el("a", { class: `btn btn-sm ${kind}`, href, "aria-label": label, text, "data-action": text });
  const button = (text, label, run, kind) =>
    el("button", { class: `btn btn-sm ${kind}`, type: "button", "aria-label": label, text, onclick: run, "data-action": text });
  const live = !ENDED.has(session.state);
  const running = session.state === "RUNNING";
  const stops = session.state === "TERMINATING";
  const at = `${encodeURIComponent(session.user).replaceAll("%40", "@")}${session.server ? `/${encodeURIComponent(session.server)}` : ""}`;
  const ask = page.stopping.has(session.id) ? el("span", { class: "bkai-muted", text: texts.stopping })
    : running ? button(texts.stop, texts.stopNamed(name), () => page.stop(session), "btn-outline-danger")
    : button(texts.cancel, texts.cancelNamed(name), () => page.stop(session), "btn-outline-danger");
  return el("div", { class: "bkai-buttons" },
    own && running && link(texts.open, texts.openNamed(name), `${page.prefix}user/${at}`, "btn-primary"),
    own && live && !running && !stops && link(texts.follow, texts.followNamed(name), `${page.hub}spawn-pending/${at}`, "btn-outline-primary"),
    running && session.deadline && button(texts.more, texts.moreNamed(name), () => page.more(session), "btn-outline-primary"),
    live && !stops && ask,
    session.granted && button(texts.logs, texts.logsNamed(name), () => page.logs(session), "btn-outline-secondary"));
}

/** One session as an item of the list. */
export function row(session, page) {
  const who = page.everyone ? el("span", { class: "bkai-user", text: session.user }) : null;
  const kind = session.session_type === "interactive" ? null : el("span", { class: "bkai-muted", text: session.session_type });
  return el("li", { class: `bkai-session${ENDED.has(session.state) ? " bkai-over" : ""}`, "data-id": session.id, "data-state": session.state },
    el("div", { class: "bkai-what" }, who, el("span", { class: "bkai-name", text: nameOf(session) }), el("span", { class: "bkai-muted", text: session.image }), kind),
    el("div", { class: "bkai-how" }, pill(session), times(session)),
    slice(session), where(session, page), actions(session, page), standing(session, page));
}

/** A machine: a tile for each model with a bar for each device, and one for processors and memory. */
export function node(machine, user, alone) {
  const models = new Map();
  for (const device of machine.devices) models.set(device.model, [...(models.get(device.model) ?? []), device]);
  const cores = (milli) => String(Math.round(milli / 100) / 10);
  const part = (amount) => [{ size: amount.most ? amount.booked / amount.most : 0, kind: "others" }];
  const line = (label, amount, words) => el("div", { class: "bkai-line" }, el("span", { text: label }), bar(part(amount)), el("span", { class: "bkai-muted", text: words }));
  const { cpu, memory_mib: memory } = machine;
  return el("div", { class: "bkai-node" },
    alone ? null : el("h3", { class: "bkai-nodename", text: machine.name }),
    el("div", { class: "bkai-tiles" },
      [...models].map(([model, devices]) => tile(model, devices, user)),
      el("div", { class: "bkai-tile" },
        line(texts.processor, cpu, texts.cpuUse(cores(cpu.booked), cores(cpu.most), cores(cpu.total), cpu.total ? String(Math.round(cpu.most / cpu.total * 10) / 10) : "1")),
        line(texts.mainMemory, memory, texts.memoryUse(size(memory.booked), size(memory.total))))));
}

function tile(model, devices, user) {
  const held = (device, mine) => device.slices.filter((piece) => (piece.user === user) === mine).reduce((sum, piece) => sum + value(read(piece.share)), 0);
  const bars = devices.slice(0, 16).map((device) => bar([
    { size: held(device, true), kind: "mine" },
    { size: held(device, false), kind: device.healthy ? "others" : "broken" },
    { size: device.healthy ? 0 : 1, kind: "broken" },
  ]));
  const free = devices.filter((device) => device.healthy).reduce((sum, device) => sum + value(read(device.share_free)), 0);
  const broken = devices.filter((device) => !device.healthy).length;
  const words = [devices.length === 1 ? texts.free(String(Math.round(free * 1000) / 10)) : texts.sharesFree(String(Math.round(free * 100) / 100), devices.length)];
  if (broken) words.push(texts.unhealthy(broken));
  return el("div", { class: "bkai-tile" },
    el("div", { class: "bkai-model" }, el("span", { text: model }), devices.length > 1 && el("span", { class: "bkai-muted", text: ` × ${devices.length}` })),
    el("div", { class: "bkai-device" }, bars),
    el("div", { class: "bkai-muted", text: words.join(", ") }));
}

/** The queues: who is served how soon. */
export function queues(groups, page) {
  return el("div", { class: "bkai-queues" }, groups.map((group) =>
    el("span", { class: "bkai-queue" }, el("strong", { text: page.group(group.name) }), `: ${group.waiting.length ? texts.waiting(group.waiting.length) : texts.nobodyWaits}`)));
}
