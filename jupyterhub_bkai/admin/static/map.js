// The device map: machines, their devices, who holds which part. Elements from the service's JSON; decides nothing.

import { percent, read, size, value } from "./amounts.js";
import { el } from "./dom.js";
import { texts } from "./texts.js";

const COLOURS = 10;
const SHOWN = 8;
const known = new Map();

/** One person has one colour as long as the page is open, and the first ten have different ones; the name always
 * stands beside it. */
export function colour(user) {
  if (!user) return "bkai-k";
  if (!known.has(user)) known.set(user, known.size % COLOURS);
  return `bkai-k${known.get(user)}`;
}

export const holderName = (piece) => (piece.user ? `${piece.user} · ${piece.name || texts.defaultName}` : texts.somebody);
export const shareOf = (piece) => (piece.mig ? piece.mig.profile : `${percent(read(piece.share))} %`);

/** Holders in the order in which they lie on the device. */
const placed = (device) => [...device.slices].sort((a, b) => (a.mig?.start ?? 0) - (b.mig?.start ?? 0));

/** "35 of 140 GiB". */
function sizes(part, total) {
  const [few, all] = [size(part), size(total)];
  return texts.memoryUse(part === 0 || few.split(" ")[1] === all.split(" ")[1] ? few.split(" ")[0] : few, all);
}

/** How a device stands: "broken", "drained" (also with its machine), or "". */
export function trouble(device, machine) {
  if (!device.healthy) return "broken";
  return device.drained || machine.drained ? "drained" : "";
}

/** What a device is found by. */
export function words(device, machine) {
  const holders = device.slices.flatMap((piece) => [piece.user, piece.name]);
  return [machine.name, device.id, device.model, ...machine.groups, ...holders].filter(Boolean).join("\n").toLowerCase();
}

/** Whether a device has anything left to give. */
export const hasRoom = (device, machine) => !trouble(device, machine) && value(read(device.share_free)) > 0;

function segments(device, amount, total, unit) {
  const parts = placed(device).map((piece) =>
    el("i", { class: colour(piece.user), style: `width:${Math.min(100, (amount(piece) / total) * 100).toFixed(3)}%`, title: `${holderName(piece)}: ${unit(amount(piece))}` },
      el("span", { text: piece.user ?? "" })));
  return el("span", { class: "bkai-segments", "aria-hidden": "true" }, parts);
}

/** The true memory slots of a device in MIG mode, and the instances where they lie. */
function layout(device) {
  const slots = Array.from({ length: device.mig_slots }, (_, slot) => el("i", { class: "bkai-slotfree", style: `grid-column:${slot + 1}` }));
  const instances = device.slices.filter((piece) => piece.mig).map((piece) =>
    el("i", { class: `bkai-instance ${colour(piece.user)}`, style: `grid-column:${piece.mig.start + 1} / span ${piece.mig.size}`, title: `${holderName(piece)}: ${piece.mig.profile}` },
      el("span", { text: piece.mig.profile })));
  return el("span", { class: "bkai-layout", style: `--slots:${device.mig_slots}`, "aria-hidden": "true" }, slots, instances);
}

function meter(label, drawn, words_) {
  return el("div", { class: "bkai-meter" }, el("span", { class: "bkai-meterlabel", text: label }), drawn, el("span", { class: "bkai-metervalue", text: words_ }));
}

function badge(device, machine) {
  const state = trouble(device, machine);
  if (state === "broken") return el("span", { class: "bkai-badge bkai-bad", text: texts.broken });
  if (device.drained) return el("span", { class: "bkai-badge bkai-wait", title: device.drained.why, text: texts.drained });
  return null;
}

/** What waits for no actions: a device's bars and holders. */
function body(device, page) {
  const usable = Math.max(1, device.memory_mib - device.reserve_mib);
  const mib = device.slices.reduce((sum, piece) => sum + piece.memory_mib, 0);
  const sms = device.slices.reduce((sum, piece) => sum + piece.sm_milli, 0) / 1000;
  const round = (number) => String(Math.round(number * 10) / 10);
  const memory = segments(device, (piece) => piece.memory_mib, usable, size);
  return [
    device.mig_slots ? meter(texts.slots, layout(device), "") : null,
    meter(texts.deviceMemory, memory, sizes(mib, usable)),
    device.sms ? meter(texts.multiprocessors, segments(device, (piece) => piece.sm_milli / 1000, device.sms, (n) => round(n)), texts.memoryUse(round(sms), device.sms)) : null,
    device.slices.length ? el("ul", { class: "bkai-holders" }, placed(device).slice(0, SHOWN).map((piece) => holder(piece, page)),
      device.slices.length > SHOWN && el("li", { class: "bkai-muted", text: texts.andMore(device.slices.length - SHOWN) })) : el("p", { class: "bkai-muted mb-0", text: texts.nobodyHolds }),
  ];
}

function holder(piece, page) {
  const name = holderName(piece);
  const ends = piece.state === "TERMINATING" || page.stopping.has(piece.session);
  return el("li", {},
    el("i", { class: `bkai-swatch ${colour(piece.user)}`, "aria-hidden": "true" }),
    el("span", { class: "bkai-holder" }, el("b", { text: piece.user ?? texts.somebody }), ` ${piece.name || (piece.user ? texts.defaultName : "")}`),
    el("span", { class: "bkai-muted", text: shareOf(piece) }),
    ends ? el("span", { class: "bkai-muted", text: texts.stopping })
      : piece.session && el("button", { class: "bkai-act bkai-actbad", type: "button", text: texts.stop, "aria-label": texts.stopNamed(name), onclick: () => page.stop(piece.session, name, true) }));
}

function drainButton(device, machine, page) {
  const where = texts.cardOf(device.index, machine.name);
  return el("button", {
    class: "bkai-act", type: "button", text: device.drained ? texts.undrain : texts.drain,
    "aria-label": device.drained ? texts.undrainNamed(where) : texts.drainNamed(where),
    onclick: () => page.switch({ path: `/devices/${encodeURIComponent(device.id)}/drain`, name: where, closed: device.drained, kind: "drain", busy: device.slices.length }),
  });
}

/** A device in full. */
export function card(device, machine, page, alone = false) {
  const state = trouble(device, machine);
  const label = `${texts.cardOf(device.index, machine.name)}, ${device.model}, ${texts.free(percent(read(device.share_free)))}`;
  return el("article", { class: "bkai-gpu", "data-device": device.id, "data-trouble": state || undefined, "aria-label": label },
    el("header", { class: "bkai-gpuhead" },
      el("span", { class: "bkai-index", text: String(device.index), "aria-hidden": "true" }),
      el("span", { class: "bkai-gpumodel" }, alone || !machine.uniform ? device.model : texts.free(percent(read(device.share_free)))),
      badge(device, machine), drainButton(device, machine, page)),
    body(device, page),
    device.drained ? reason(device.drained) : null);
}

/** A device as small as can be read; pressed, it shows itself in full. */
export function tile(device, machine, page) {
  const state = trouble(device, machine);
  const held = device.slices.map((piece) => `${holderName(piece)} ${shareOf(piece)}`).join(", ");
  const label = [texts.cardOf(device.index, machine.name), { broken: texts.broken, drained: texts.drained }[state], texts.free(percent(read(device.share_free))), held].filter(Boolean).join(", ");
  const usable = Math.max(1, device.memory_mib - device.reserve_mib);
  return el("button", { class: "bkai-gputile", type: "button", "data-device": device.id, "data-trouble": state || undefined, "aria-label": label, title: label, onclick: () => page.show(device.id) },
    el("span", { class: "bkai-index", text: String(device.index) }),
    device.mig_slots ? layout(device) : segments(device, (piece) => piece.memory_mib, usable, size));
}

export function reason(closed) {
  const at = new Date(closed.since);
  return el("p", { class: "bkai-closed" }, el("strong", { text: closed.why }), ` ${texts.closedBy(closed.who ?? "", at.toLocaleString())}`);
}

/** A machine's own line. */
export function machineHead(machine, page) {
  const cores = (milli) => String(Math.round(milli / 100) / 10);
  const models = [...new Set(machine.devices.map((device) => device.model))];
  const idle = machine.devices.filter((device) => !device.slices.length && !trouble(device, machine)).length;
  const facts = [
    machine.devices.length ? (models.length === 1 ? `${machine.devices.length} × ${models[0]}` : texts.devices(machine.devices.length)) : texts.noDevices,
    machine.devices.length ? texts.idle(idle, machine.devices.length) : "",
    texts.coresUse(cores(machine.cpu.booked), cores(machine.cpu.most)),
    texts.ofMemory(sizes(machine.memory_mib.booked, machine.memory_mib.total)),
    machine.fragmentation ? texts.fragmented(String(Math.round(machine.fragmentation * 100))) : "",
  ];
  const busy = new Set(machine.devices.flatMap((device) => device.slices.map((piece) => piece.session ?? piece))).size;
  return el("header", { class: "bkai-machinehead" },
    el("h3", { class: "bkai-nodename", text: machine.name }),
    machine.drained && el("span", { class: "bkai-badge bkai-wait", text: texts.drained }),
    el("span", { class: "bkai-muted bkai-facts", text: facts.filter(Boolean).join(" · ") }),
    el("button", {
      class: "btn btn-sm btn-outline-secondary", type: "button", text: machine.drained ? texts.undrain : texts.drain,
      "aria-label": machine.drained ? texts.undrainNamed(machine.name) : texts.drainNamed(machine.name),
      onclick: () => page.switch({ path: `/nodes/${encodeURIComponent(machine.name)}/drain`, name: machine.name, closed: machine.drained, kind: "drain", busy }),
    }),
    machine.drained ? reason(machine.drained) : null);
}
