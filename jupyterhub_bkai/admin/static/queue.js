// The administrators' page: what waits and why, who holds what on each device; drain, hold, stop, another priority.

import { percent, read, value } from "./amounts.js";
import { Api, Refusal } from "./api.js";
import { el, fill, say } from "./dom.js";
import { line } from "./lines.js";
import { card, hasRoom, machineHead, tile, trouble, words } from "./map.js";
import { Stream } from "./stream.js";
import { texts } from "./texts.js";
import { tick } from "./view.js";

// So many devices are still cards unless somebody says otherwise; so many of a queue are shown.
const CARDS = 48;
const MOST = 100;
const SOON = 250;
// What no event tells: a device that broke, minutes that went by.
const AGAIN = 60000;
const root = document.getElementById("bkai-control");
if (root) new Page(root).start();

function Page(element) {
  const get = (id) => document.getElementById(`bkai-${id}`);
  const calls = new Api(element.dataset.api, window.jhdata.xsrf_token);
  const page = { stopping: new Set(), show, switch: (what) => void flip(what), stop: (...what) => void stop(...what), prioritise: (...what) => void prioritise(...what) };
  const known = new Map(); // what was drawn of each machine and group, with what it was drawn from
  let nodes = [];
  let groups = [];
  let cards = null;
  let open = null;
  let at = null;
  const stream = new Stream({ open: (signal) => calls.fetch("/events?all=1", { signal }), events: { session: soon, ready: soon, capacity: soon }, tell: connection });

  this.start = () => {
    get("find").addEventListener("input", () => show_());
    get("only").addEventListener("change", () => show_());
    for (const [id, as] of [["as-cards", true], ["as-tiles", false]]) get(id).addEventListener("click", () => { cards = as; show_(); });
    get("confirm-no").addEventListener("click", () => get("confirm").close(""));
    get("reason").addEventListener("input", ({ target }) => target.setCustomValidity(target.value && !target.value.trim() ? texts.reasonMissing : ""));
    window.setInterval(() => tick(element), 1000);
    window.setInterval(() => document.hidden || soon(), AGAIN);
    void stream.connect();
  };

  // -- what is known ------------------------------------------------------------------------------

  // Many events are one question, and the larger the answer, the rarer it is asked for.
  let asking = 0;
  let took = 0;
  let again = false;
  function soon(wait = SOON) {
    if (asking) again = true;
    asking ||= window.setTimeout(() => void load(), Math.max(typeof wait === "number" ? wait : SOON, took * 3));
  }

  async function load() {
    again = false;
    const begun = performance.now();
    try {
      const [devices, queue] = await Promise.all([calls.call("/devices"), calls.call(`/queue?most=${MOST}`)]);
      ({ nodes } = devices);
      ({ groups } = queue);
      at = new Date();
      for (const machine of nodes) machine.uniform = new Set(machine.devices.map((device) => device.model)).size === 1;
      get("lost").dataset.out || (get("lost").hidden = true);
      show_();
    } catch (error) {
      if (!refused(error)) again = true;
    }
    took = Math.min(5000, performance.now() - begun);
    asking = 0;
    if (again) soon(1000);
  }

  // -- shown --------------------------------------------------------------------------------------

  function show_() {
    if (!at) return;
    const text = get("find").value.trim().toLowerCase();
    const only = get("only").value;
    const devices = nodes.reduce((sum, machine) => sum + machine.devices.length, 0);
    const full = cards ?? devices <= CARDS;
    get("as-cards").setAttribute("aria-pressed", String(full));
    get("as-tiles").setAttribute("aria-pressed", String(!full));
    figures(devices);
    const fits = { "": () => true, room: hasRoom, held: (device) => device.slices.length > 0, shut: trouble }[only];
    const machines = nodes.map((machine) => machineOf(machine, text, fits, only || text, full)).filter(Boolean);
    list(get("map"), machines);
    get("map-empty").hidden = machines.length > 0;
    say(get("map-empty"), nodes.some((machine) => machine.devices.length) ? texts.noDeviceFits : texts.noDevices);
    list(get("lines"), groups.map((group) => lineOf(group, text)));
    if (open && get("one").open) drawOne();
    for (const id of [...page.stopping]) if (!alive(id)) page.stopping.delete(id);
  }

  const alive = (id) => nodes.some((machine) => machine.devices.some((device) => device.slices.some((piece) => piece.session === id)));

  function figures(devices) {
    const waits = groups.reduce((sum, group) => sum + group.all, 0);
    const good = nodes.flatMap((machine) => machine.devices.filter((device) => !trouble(device, machine)));
    const free = good.reduce((sum, device) => sum + value(read(device.share_free)), 0);
    const shut = devices - good.length;
    const round = (number) => String(Math.round(number * 10) / 10);
    const minutes = groups.reduce((sum, group) => sum + (group.idle_minutes ?? 0), 0);
    const share = (group) => percent(read(`${Math.round(group.fragmentation * 1000)}/1000`));
    const spread = groups.filter((group) => group.fragmentation !== null).map((group) => [`${share(group)} %`, groups.length > 1 ? group.title : ""]);
    const figure = (label, pairs, title) => el("div", { class: "bkai-figure", title }, el("dt", { text: label }),
      el("dd", {}, pairs.map(([number, more]) => [el("b", { text: number }), more ? el("span", { class: "bkai-muted", text: ` ${more}` }) : " "])));
    fill(get("figures"),
      figure(texts.figureWaiting, [[String(waits)]]),
      figure(texts.figureFree, [[round(free), texts.ofDevices(devices)]]),
      figure(texts.figureShut, [[String(shut)]], texts.figureShutHelp),
      figure(texts.figureFragmented, spread.length ? spread : [["–"]], texts.figureFragmentedHelp),
      figure(texts.figureIdle, [[round(minutes), texts.minutes]], texts.figureIdleHelp));
    get("figures").removeAttribute("aria-busy");
  }

  /** What is drawn stays while nothing about it changed: two thousand devices are not made anew at each event. */
  function drawn(key, from, draw) {
    const text = JSON.stringify(from);
    const before = known.get(key);
    if (before?.text === text) return before.node;
    const node = draw();
    known.set(key, { text, node });
    return node;
  }

  function machineOf(machine, text, fits, filtered, full) {
    const itself = !text || machine.name.toLowerCase().includes(text);
    const devices = machine.devices.filter((device) => fits(device, machine) && (itself || words(device, machine).includes(text)));
    if (filtered && !devices.length) return null;
    return drawn(`machine ${machine.name}`, [full, machine, devices.map((device) => device.id), ending(machine)], () =>
      el("section", { class: "bkai-machine", "data-node": machine.name, "aria-label": machine.name, "data-drained": machine.drained ? "" : undefined },
        machineHead(machine, page),
        el("div", { class: full ? "bkai-gpus" : "bkai-gputiles" }, devices.map((device) => (full ? card : tile)(device, machine, page)))));
  }

  const ending = (machine) => machine.devices.flatMap((device) => device.slices.map((piece) => piece.session)).filter((id) => page.stopping.has(id));

  function lineOf(group, text) {
    const whole = !text || group.title.toLowerCase().includes(text);
    const shown = group.waiting.filter((one) => whole || `${one.user}\n${one.name}`.toLowerCase().includes(text));
    return drawn(`line ${group.name}`, [group, shown.map((one) => one.id)], () => line(group, shown, page));
  }

  /** Puts elements where they belong and leaves the focus where it was. */
  function list(parent, items) {
    const active = document.activeElement;
    const home = parent.contains(active) ? active.closest("[data-device], [data-id], [data-node], [data-group]") : null;
    const [label, mark] = [active?.getAttribute("aria-label"), home && Object.entries(home.dataset).find(([name]) => ["device", "id", "node", "group"].includes(name))];
    if (items.length !== parent.children.length || items.some((item, place) => parent.children[place] !== item)) fill(parent, items);
    if (!home || parent.contains(document.activeElement)) return;
    const now = parent.querySelector(`[data-${mark[0]}="${CSS.escape(mark[1])}"]`);
    const same = now && [...now.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === label);
    (same ?? now?.querySelector("button") ?? now)?.focus?.();
  }

  function show(id) {
    open = id;
    drawOne();
    get("one").showModal();
  }

  function drawOne() {
    const machine = nodes.find((one) => one.devices.some((device) => device.id === open));
    const device = machine?.devices.find((one) => one.id === open);
    if (!device) return get("one").close();
    say(get("one-title"), texts.cardOf(device.index, machine.name));
    const node = drawn("one", [device, machine.drained, ending(machine)], () => card(device, machine, page, true));
    if (get("one-card").firstChild !== node) fill(get("one-card"), node);
  }

  // -- how the connection stands -------------------------------------------------------------------

  function connection(state, more) {
    const box = get("lost");
    if (box.dataset.out) return;
    if (state === "lost") refused(more);
    if (state !== "wait" || box.dataset.out) return;
    box.hidden = false;
    const said = at ? texts.lost(at.toLocaleTimeString()) : texts.lostFirst;
    fill(box, el("span", { text: said }), " ", el("span", { "aria-hidden": "true", text: texts.retryIn(more) }), " ",
      el("button", { class: "btn btn-sm btn-outline-secondary ms-2", type: "button", text: texts.tryNow, onclick: () => void stream.connect() }));
  }

  /** Whether it is the login: then there is nothing to wait for. */
  function refused(error) {
    if (!(error instanceof Refusal) || ![401, 403].includes(error.status)) return false;
    stream.close();
    const box = get("lost");
    box.dataset.out = "1";
    box.hidden = false;
    fill(box, el("span", { text: error.status === 401 ? texts.loggedOut : error.message }), " ",
      el("a", { class: "btn btn-sm btn-primary ms-2", href: window.location.href, text: texts.logIn }));
    return true;
  }

  // -- what one can do -----------------------------------------------------------------------------

  /** Drains or holds something, or opens it again. */
  async function flip({ path, name, closed, kind, busy }) {
    const drains = kind === "drain";
    const asked = closed
      ? { title: drains ? texts.undrainTitle(name) : texts.releaseTitle(name), text: drains ? texts.undrainText : texts.releaseText, yes: drains ? texts.undrainSure : texts.releaseSure }
      : { title: drains ? texts.drainTitle(name) : texts.holdTitle(name), text: drains ? texts.drainText(busy) : texts.holdText, yes: drains ? texts.drainSure : texts.holdSure, reason: true };
    const answer = await confirmed(asked);
    if (answer) await act(() => calls.call(path, closed ? { method: "DELETE" } : { method: "POST", body: { why: answer.reason } }), asked.title);
  }

  async function stop(id, name, runs) {
    const asked = runs ? { title: texts.stopTitle(name), text: texts.stopText, yes: texts.stopSure, no: texts.keepRunning, danger: true }
      : { title: texts.cancelTitle(name), text: texts.cancelOther, yes: texts.cancelSure, no: texts.keepWaiting, danger: true };
    if (!(await confirmed(asked))) return;
    if (runs) page.stopping.add(id);
    show_();
    if (!(await act(() => calls.call(`/sessions/${encodeURIComponent(id)}`, { method: "DELETE" }), asked.title))) page.stopping.delete(id);
  }

  async function prioritise(request, name) {
    const asked = { title: texts.priorityTitle(name), text: texts.priorityText, yes: texts.prioritySure, priority: request.priority };
    const answer = await confirmed(asked);
    if (answer) await act(() => calls.call(`/sessions/${encodeURIComponent(request.id)}/priority`, { method: "PUT", body: { priority: answer.priority } }), asked.title);
  }

  async function act(call, what) {
    try {
      await call();
      say(get("live-region"), texts.done(what));
      took = 0;
      soon(0);
      return true;
    } catch (error) {
      if (!refused(error)) failed(error.message);
      return false;
    }
  }

  /** Asks before anything happens; gives what was filled in, or null. */
  function confirmed({ title, text, yes, no = texts.leaveIt, reason = false, priority = null, danger = false }) {
    const dialog = get("confirm");
    say(get("confirm-title"), title);
    say(get("confirm-text"), text);
    say(get("confirm-no"), no);
    say(get("confirm-yes"), yes);
    get("confirm-yes").className = `btn ${danger ? "btn-danger" : "btn-primary"}`;
    get("reason-field").hidden = !reason;
    get("reason").required = reason;
    get("reason").value = "";
    get("reason").setCustomValidity("");
    get("priority-field").hidden = priority === null;
    get("priority").required = priority !== null;
    get("priority").value = priority ?? "";
    dialog.returnValue = "";
    dialog.showModal();
    (reason ? get("reason") : priority !== null ? get("priority") : get("confirm-no")).focus();
    return new Promise((resolve) => dialog.addEventListener("close", () =>
      resolve(dialog.returnValue === "yes" ? { reason: get("reason").value.trim(), priority: Number(get("priority").value) } : null), { once: true }));
  }

  function failed(message) {
    const box = el("div", { class: "alert alert-danger alert-dismissible", role: "alert" }, texts.failed(message),
      el("button", { class: "btn-close", type: "button", "aria-label": texts.close, onclick: () => box.remove() }));
    get("lost").before(box);
  }
}
