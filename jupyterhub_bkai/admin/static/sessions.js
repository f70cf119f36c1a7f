// The page of sessions: loads, listens, shows; stops what one asks it to stop.

import { Api, Refusal } from "./api.js";
import { el, fill, say } from "./dom.js";
import { Stream } from "./stream.js";
import { texts } from "./texts.js";
import { ENDED, nameOf, node, queues, row, span, steps, tick } from "./view.js";

const DAY = 86400000;
// When a queue moves, everybody in it would ask.
const OFFERS_EVERY = 3000;
const root = document.getElementById("bkai-sessions");
if (root) new Page(root).start();

function Page(element) {
  const { api, hub, prefix, user, admin } = element.dataset;
  const titles = JSON.parse(element.dataset.groups);
  const get = (id) => document.getElementById(`bkai-${id}`);
  const calls = new Api(api, window.jhdata.xsrf_token);
  const page = {
    user, hub, prefix, everyone: false, sessions: new Map(), stopping: new Set(), shown: new Map(), offers: new Map(), loaded: false, at: null,
    group: (name) => titles[name] ?? name,
    stop: (session) => void stop(session),
    take: (session, offer) => void take(session, offer),
    logs: (session) => void logs(session),
    more: (session) => void more(session),
  };
  const stream = new Stream({
    open: (signal) => calls.fetch(admin === undefined ? "/events" : "/events?all=1", { signal }),
    events: { session: heard, ready: () => void load(), capacity: () => void capacitySoon() },
    tell: connection,
  });
  let waiting = [];

  // -- what is known ------------------------------------------------------------------------------

  this.start = () => {
    if (admin !== undefined) tabs();
    get("logs-again").addEventListener("click", () => void logs(page.logged));
    window.setInterval(() => tick(element), 1000);
    void stream.connect();
    void capacity();
  };

  /** Everything, after each connection; events that come meanwhile are newer and are applied after it. */
  async function load() {
    waiting = [];
    page.loading = true;
    try {
      const { sessions } = await calls.call(admin === undefined ? "/sessions" : "/sessions?all=1");
      page.sessions = new Map(sessions.map((session) => [session.id, session]));
      page.loaded = true;
      connection("true");
    } catch (error) {
      if (!trouble(error)) window.setTimeout(() => void load(), 3000);
      return;
    } finally {
      page.loading = false;
    }
    for (const session of waiting) page.sessions.set(session.id, session);
    show();
    if (new URLSearchParams(window.location.search).has("new")) window.location.replace(get("new").href);
    void capacity();
  }

  function heard(session) {
    page.at = new Date();
    if (page.loading) waiting.push(session);
    if (!page.loaded) return;
    const before = page.sessions.get(session.id);
    page.sessions.set(session.id, session);
    if (ENDED.has(session.state)) page.stopping.delete(session.id);
    if (session.user === user && before?.state !== session.state) {
      say(get("live-region"), texts.announce(nameOf(session), texts.states[session.state] ?? session.state));
    }
    showSoon();
  }

  // Many changes at once are shown at once.
  let drawing = 0;
  function showSoon() {
    drawing ||= window.setTimeout(() => {
      drawing = 0;
      show();
    }, 50);
  }

  let counting = 0;
  function capacitySoon() {
    counting ||= window.setTimeout(() => {
      counting = 0;
      void capacity();
    }, 300);
  }

  async function capacity() {
    try {
      const [{ nodes }, { groups }] = await Promise.all([calls.call("/devices"), calls.call("/queue")]);
      fill(get("capacity"), nodes.map((machine) => node(machine, user, nodes.length === 1)), queues(groups, page));
    } catch (error) {
      trouble(error);
    }
  }

  // -- shown --------------------------------------------------------------------------------------

  function show() {
    const now = Date.now();
    const all = [...page.sessions.values()];
    const own = all.filter((session) => session.user === user);
    const text = page.everyone ? get("user").value.trim().toLowerCase() : "";
    const chosen = (page.everyone ? all : own).filter((session) => !text || session.user.toLowerCase().includes(text) || nameOf(session).toLowerCase().includes(text));
    const live = chosen.filter((session) => !ENDED.has(session.state)).sort(byOrder);
    const past = chosen.filter((session) => ENDED.has(session.state) && now - Date.parse(session.ended ?? session.state_since) < DAY)
      .sort((a, b) => Date.parse(b.ended ?? b.state_since) - Date.parse(a.ended ?? a.state_since));
    list(get("live"), live);
    for (const session of live) if (session.user === user && session.state === "PENDING") lookForOffers(session);
    get("live").removeAttribute("aria-busy");
    list(get("past"), past);
    get("ended").hidden = past.length === 0;
    say(get("ended").querySelector("summary"), texts.ended(past.length));
    empty(live.length === 0, text);
    if (admin !== undefined) {
      const count = (some) => String(some.filter((session) => !ENDED.has(session.state)).length);
      say(get("count-mine"), count(own));
      say(get("count-all"), count(all));
    }
    get("new").href = newSession(own);
  }

  /** What runs first, the newest on top; then those who wait, next first. */
  function byOrder(a, b) {
    if ((a.position ?? 0) !== (b.position ?? 0)) return (a.position ?? 0) - (b.position ?? 0);
    return Date.parse(b.asked) - Date.parse(a.asked);
  }

  /** Keeps the elements of sessions that have not changed, and the focus where it was. */
  function list(parent, sessions) {
    const focus = document.activeElement?.closest?.("[data-id]") ? [document.activeElement.closest("[data-id]").dataset.id, document.activeElement.dataset.action] : null;
    const items = sessions.map((session) => {
      const stopping = page.stopping.has(session.id);
      const known = page.shown.get(session.id);
      const offers = page.offers.get(session.id)?.found;
      if (known?.session === session && known.everyone === page.everyone && known.stopping === stopping && known.offers === offers) return known.item;
      const item = row(session, page);
      page.shown.set(session.id, { session, everyone: page.everyone, stopping, offers, item });
      return item;
    });
    const same = items.length === parent.children.length && items.every((item, place) => parent.children[place] === item);
    if (same) return;
    fill(parent, items);
    if (focus && !document.activeElement?.closest?.("[data-id]")) {
      const item = items.find((one) => one.dataset.id === focus[0]);
      (item?.querySelector(`[data-action="${CSS.escape(focus[1] ?? "")}"]`) ?? item?.querySelector("a, button"))?.focus();
    }
  }

  function empty(nothing, filter) {
    const box = get("empty");
    box.hidden = !nothing;
    if (!nothing) return;
    if (page.everyone) return fill(box, el("p", { class: "mb-0", text: filter ? texts.emptyUser(filter) : texts.emptyAll }));
    fill(box, el("h3", { class: "h5", text: texts.emptyTitle }), el("p", { text: texts.emptyText }),
      el("a", { class: "btn btn-primary btn-lg", href: get("new").href, text: texts.emptyAction }));
  }

  /** The form's address: the default server while it is free (programs that know only that one find it), else a free name. */
  function newSession(own) {
    const taken = new Set(own.filter((session) => !ENDED.has(session.state)).map((session) => session.server));
    const base = `${hub}spawn/${encodeURIComponent(user).replaceAll("%40", "@")}`;
    if (!taken.has("")) return base;
    let number = 2;
    while (taken.has(`session-${number}`)) number += 1;
    return `${base}/session-${number}`;
  }

  function tabs() {
    const [mine, all] = [get("tab-mine"), get("tab-all")];
    const choose = (tab) => {
      page.everyone = tab === all;
      for (const one of [mine, all]) {
        one.classList.toggle("active", one === tab);
        one.setAttribute("aria-selected", String(one === tab));
        one.tabIndex = one === tab ? 0 : -1;
      }
      get("panel").setAttribute("aria-labelledby", tab.id);
      get("filter").hidden = !page.everyone;
      const here = new URL(window.location.href);
      here.search = page.everyone ? "?everyone" : "";
      window.history.replaceState({}, "", here);
      if (page.loaded) show();
    };
    for (const tab of [mine, all]) {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", (event) => {
        if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
        const other = event.key === "Home" ? mine : event.key === "End" ? all : tab === mine ? all : mine;
        choose(other);
        other.focus();
        event.preventDefault();
      });
    }
    get("user").addEventListener("input", () => show());
    if (new URLSearchParams(window.location.search).has("everyone")) choose(all);
  }

  // -- how the connection stands -------------------------------------------------------------------

  function connection(state, more) {
    const box = get("lost");
    if (box.dataset.out) return;
    if (state === "true") {
      box.hidden = true;
      page.at = new Date();
    }
    if (state === "lost") trouble(more);
    if (state === "wait") {
      box.hidden = false;
      const known = page.loaded ? texts.lost((page.at ?? new Date()).toLocaleTimeString()) : texts.lostFirst;
      fill(box, el("span", { text: known }), " ", el("span", { "aria-hidden": "true", text: texts.retryIn(more) }), " ",
        el("button", { class: "btn btn-sm btn-outline-secondary ms-2", type: "button", text: texts.tryNow, onclick: () => void stream.connect() }));
    }
  }

  /** Whether it is the login: then there is nothing to wait for. */
  function trouble(error) {
    if (!(error instanceof Refusal) || ![401, 403].includes(error.status)) return false;
    stream.close();
    const box = get("lost");
    box.dataset.out = "1";
    box.hidden = false;
    fill(box, el("span", { text: error.status === 401 ? texts.loggedOut : error.message }), " ",
      el("a", { class: "btn btn-sm btn-primary ms-2", href: window.location.href, text: texts.logIn }));
    return true;
  }

  /** With which changes it would start at once: asked again when something about it changed, now and then. */
  async function lookForOffers(session) {
    const known = page.offers.get(session.id);
    if (known?.session === session) return;
    if (known && Date.now() - known.at < OFFERS_EVERY) {
      known.later ||= window.setTimeout(showSoon, OFFERS_EVERY);
      return;
    }
    page.offers.set(session.id, { session, found: known?.found, at: Date.now() });
    try {
      const { offers } = await calls.call(`/sessions/${session.id}/offers`);
      const now = page.offers.get(session.id);
      if (now.session !== session || JSON.stringify(offers) === JSON.stringify(now.found ?? [])) return;
      page.offers.set(session.id, { ...now, found: offers });
      showSoon();
    } catch (error) {
      trouble(error);
    }
  }

  // -- what one can do -----------------------------------------------------------------------------

  async function stop(session) {
    const running = session.state === "RUNNING";
    const name = nameOf(session);
    say(get("confirm-title"), running ? texts.stopTitle(name) : texts.cancelTitle(name));
    say(get("confirm-text"), running ? texts.stopText : session.position ? texts.cancelText(session.position) : texts.cancelPlain);
    say(get("confirm-no"), running ? texts.keepRunning : session.position ? texts.keepWaiting : texts.keepStarting);
    say(get("confirm-yes"), running ? texts.stopSure : texts.cancelSure);
    if (!(await confirmed())) return;
    page.stopping.add(session.id);
    show();
    try {
      heard(await calls.call(`/sessions/${session.id}`, { method: "DELETE" }));
    } catch (error) {
      page.stopping.delete(session.id);
      show();
      trouble(error);
      failed(error.message);
    }
  }

  async function take(session, offer) {
    try {
      heard(await calls.call(`/sessions/${session.id}/offers`, { method: "POST", body: { options: offer.options } }));
    } catch (error) {
      page.offers.delete(session.id);
      trouble(error);
      failed(error.message);
      show();
    }
  }

  /** More time: as much as one chooses of what those who wait leave. */
  async function more(session) {
    const name = nameOf(session);
    const path = `/sessions/${session.id}/extend`;
    try {
      const room = await calls.call(path);
      const choices = steps(room.seconds);
      const [dialog, select] = [get("more"), get("more-by")];
      const most = choices.at(-1) ?? 0;
      say(get("more-title"), texts.moreNamed(name));
      say(get("more-why"), !most ? texts.moreNone(room.why) : room.seconds < 7 * DAY / 1000 ? texts.moreMost(span(most * 1000), room.why) : "");
      fill(select, choices.map((seconds) => el("option", { value: `${seconds}s`, text: span(seconds * 1000) })));
      select.selectedIndex = choices.filter((seconds) => seconds <= 3600).length - 1;
      select.hidden = !most;
      get("more-yes").hidden = !most;
      if (!(await confirmed(dialog)) || !select.value) return;
      const longer = await calls.call(path, { method: "POST", body: { by: select.value } });
      heard(longer);
      say(get("live-region"), texts.moreGiven(name, new Date(longer.deadline).toLocaleString()));
    } catch (error) {
      trouble(error);
      failed(error.message);
    }
  }

  function confirmed(dialog = get("confirm")) {
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
  }

  function failed(message) {
    const box = el("div", { class: "alert alert-danger alert-dismissible", role: "alert" }, texts.failed(message),
      el("button", { class: "btn-close", type: "button", "aria-label": texts.close, onclick: () => box.remove() }));
    get("lost").before(box);
  }

  async function logs(session) {
    page.logged = session;
    const dialog = get("logs");
    const pre = get("logs-text");
    say(get("logs-title"), texts.logsNamed(nameOf(session)));
    if (!dialog.open) {
      pre.textContent = "…";
      dialog.showModal();
    }
    try {
      pre.textContent = (await calls.call(`/sessions/${session.id}/logs?tail=500`, { text: true })) || texts.noLogs;
    } catch (error) {
      pre.textContent = texts.failed(error.message);
    }
    pre.scrollTop = pre.scrollHeight;
  }
}

