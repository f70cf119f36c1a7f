// The spawn form while one fills it in: fGPU and share in step, what a group has, the live answer, the name's address.
// Without this script the form is sent as it is and the service's sentences come back on top of it.

import * as amounts from "./amounts.js";
import { bar, el, fill, say } from "./dom.js";
import { Live, raw } from "./live.js";
import { texts } from "./texts.js";

function start(root, { offer, place }) {
  const form = root.closest("form");
  const at = (key) => document.getElementById(`bkai-${key}`);
  const page = {
    root, form, place, at, offer, action: form.action, edited: at("gpu")?.value && !at("fgpu")?.value ? "gpu" : "fgpu",
    chosen: (name) => form.querySelector(`input[name="${name}"]:checked`)?.value ?? "",
    value: (key) => at(key)?.value.trim() ?? "",
    group: () => page.offer.groups.find((group) => group.name === page.chosen("group")) ?? page.offer.groups[0],
    slot: () => page.group().slots.find((slot) => slot.slot === page.chosen("accelerator")),
    count: () => Number(page.value("count")) || 1,
  };
  restore(page);
  placeName(page);
  moveSubmit(page);
  const live = place.ticket ? new Live(page, (answer) => answered(page, answer)) : null;
  if (page.at("preset")) page.at("preset").hidden = false;
  const changed = (event) => {
    if (event?.type === "change" && event.target.name === "preset") takePreset(page, event.target.value);
    follow(page, event?.target);
    show(page);
    live?.soon();
  };
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  form.addEventListener("formdata", (event) => onlyOne(page, event.formData));
  form.addEventListener("submit", (event) => submit(page, event));
  document.querySelector(".spawn-error-msg")?.focus();
  changed();
  // Back by the browser's history: it puts values into fields without telling anybody, some of them after this script ran.
  window.addEventListener("pageshow", () => changed());
}

// -- the parts of the page that depend on the group ---------------------------------------------

function follow(page, target) {
  offerGroup(page);
  if (page.at("amount")) {
    if (target === page.at("fgpu") || target === page.at("gpu")) page.edited = target.name;
    if (target === page.at("range")) slid(page);
    keepInStep(page);
  }
  checkName(page);
}

function offerGroup(page) {
  const group = page.group();
  for (const chip of page.form.querySelectorAll("[data-slot] input[name=accelerator]")) {
    const slot = group.slots.find((one) => one.slot === chip.value);
    const label = chip.closest("label");
    if (slot) say(label.querySelector("[data-title]"), slot.title);
    grey(chip, slot ? (slot.devices ? "" : texts.noDevice(group.title)) : texts.noSlot(group.title), label);
  }
  for (const radio of page.form.querySelectorAll("input[name=session_type]")) {
    grey(radio, group.session_types.includes(radio.value) ? "" : texts.typeNotHere(group.title), radio.closest("label"));
  }
  for (const radio of page.form.querySelectorAll("input[name=preset]")) {
    const groups = page.offer.presets?.find((preset) => preset.name === radio.value)?.groups ?? [];
    grey(radio, groups.length && !groups.includes(group.name) ? texts.presetNotHere(group.title) : "", radio.closest("label"));
  }
  for (const folder of page.form.querySelectorAll("[data-folder]")) offerFolder(folder, group);
  for (const image of page.offer.images) offerImage(page, image, group);
  showAbout(page);
}

/** Writes what a preset says into the fields, where one can see and change it. */
function takePreset(page, name) {
  const preset = page.offer.presets?.find((one) => one.name === name);
  if (!preset) return;
  const values = { ...preset.options };
  if (values.fgpu ?? values.gpu ?? values.mig) values.accelerator ??= page.group().slots[0]?.slot ?? "none";
  else values.accelerator ??= "none";
  for (const key of ["fgpu", "gpu", "mig"]) values[key] ??= "";
  if (values.fgpu || values.gpu) page.edited = values.gpu && !values.fgpu ? "gpu" : "fgpu";
  for (const [key, value] of Object.entries(values)) {
    for (const field of page.form.querySelectorAll(`[name="${CSS.escape(key)}"]`)) {
      if (field.type === "radio") field.checked = field.value === value;
      else field.value = value;
    }
  }
}

function grey(input, reason, box) {
  input.disabled = reason !== "";
  box.classList.toggle("bkai-off", reason !== "");
  const words = box.querySelector("[data-reason]");
  if (words) say(words, reason);
  if (input.disabled && input.checked) {
    const other = [...input.form.querySelectorAll(`input[name="${input.name}"]`)].find((one) => !one.disabled);
    if (other) other.checked = true;
  }
}

function offerFolder(folder, group) {
  const mount = group.folders.find((one) => one.name === folder.dataset.folder);
  const select = folder.querySelector("select");
  const write = [...select.options].find((option) => option.value.endsWith(":rw"));
  select.disabled = !mount;
  folder.classList.toggle("bkai-off", !mount);
  if (write) write.disabled = mount?.mode !== "rw";
  if (write?.disabled && write.selected) select.value = `${folder.dataset.folder}:ro`;
  const reason = mount ? (write?.disabled ? texts.folderReadOnly(group.title) : "") : texts.folderNotHere(group.title);
  say(folder.querySelector("[data-reason]"), reason);
}

function offerImage(page, image, group) {
  const radio = page.form.querySelector(`input[name=version][value="${CSS.escape(image.version)}"]`);
  if (!radio) return;
  let reason = "";
  if (image.minimum_memory_mib > group.memory_mib) {
    reason = texts.needsMemory(amounts.size(image.minimum_memory_mib), group.title, amounts.size(group.memory_mib));
  } else if (image.minimum_cpu_milli > group.cpu_milli) {
    reason = texts.needsCores(image.minimum_cpu_milli / 1000, group.title, group.cpu_milli / 1000);
  }
  const about = page.form.querySelector(`.bkai-about[data-version="${CSS.escape(image.version)}"]`);
  say(about.querySelector("[data-reason]"), reason);
  grey(radio, reason, radio.closest("label"));
  radio.closest("label").title = reason;
}

/** Of each family the description of the version chosen, else of its first. */
function showAbout(page) {
  for (const family of page.form.querySelectorAll(".bkai-family")) {
    const chosen = family.querySelector("input:checked")?.value;
    const abouts = [...family.querySelectorAll(".bkai-about")];
    const shown = abouts.find((about) => about.dataset.version === chosen) ?? abouts.find((about) => !about.hidden) ?? abouts[0];
    for (const about of abouts) about.hidden = about !== shown;
  }
}

// -- the amount: fGPU and share of a device, always both -----------------------------------------

function slid(page) {
  const step = amounts.steps(page.slot(), amounts.unitOf(page.group()))[Number(page.at("range").value)];
  page.at("fgpu").value = amounts.write(step);
  page.edited = "fgpu";
}

function keepInStep(page) {
  const slot = page.slot();
  page.at("amount").hidden = !slot;
  if (!slot) return;
  const unit = amounts.unitOf(page.group());
  offerProfiles(page, slot);
  const mig = page.value("mig");
  say(page.at("fgpu-help"), mig ? "" : texts.unit(amounts.write(unit.per), amounts.write(unit.quantum), page.group().title));
  const [fgpu, gpu] = [page.at("fgpu"), page.at("gpu")];
  fgpu.disabled = gpu.disabled = mig !== "";
  page.at("range").disabled = mig !== "";
  page.at("spread").closest(".bkai-field").hidden = slot.devices < 2;
  page.at("spread").max = Math.max(1, slot.devices);
  if (slot.devices < 2) page.at("spread").value = "1";
  const first = firstAmount(slot, unit);
  fgpu.placeholder = mig ? "" : amounts.write(first);
  gpu.placeholder = mig ? "" : amounts.write(amounts.over(first, unit.per));
  if (mig) return showProfile(page, slot, mig);
  const typing = [fgpu, gpu].includes(document.activeElement);
  if (!fgpu.value.trim() && !gpu.value.trim() && !typing) fgpu.value = fgpu.placeholder;
  const [from, to] = page.edited === "gpu" ? [gpu, fgpu] : [fgpu, gpu];
  const typed = amounts.parse(from.value);
  const empty = !from.value.trim();
  if (typed) to.value = amounts.write(page.edited === "gpu" ? amounts.times(typed, unit.per) : amounts.over(typed, unit.per));
  else if (document.activeElement !== to) to.value = "";
  const amount = empty ? first : typed && (page.edited === "gpu" ? amounts.times(typed, unit.per) : typed);
  page.amount = amount && amounts.write(amount);
  showAmount(page, slot, unit, amount, amount && amounts.over(amount, unit.per), from.value);
  if (empty) say(page.at("amount-words"), texts.emptyAmount(page.amount, page.accelerator));
}

/** One fGPU, or one device where that is less or devices are not cut: what the service takes when nothing is said. */
function firstAmount(slot, unit) {
  const one = amounts.fraction(1);
  return slot.divisible && amounts.compare(one, unit.per) < 0 ? one : unit.per;
}

function offerProfiles(page, slot) {
  const select = page.at("mig");
  select.closest(".bkai-field").hidden = slot.mig.length === 0;
  for (const option of select.options) {
    option.hidden = option.disabled = option.value ? !slot.mig.includes(option.value) : !slot.fractions;
  }
  if (select.selectedOptions[0]?.disabled) select.value = slot.fractions ? "" : slot.mig[0];
  const shares = [page.at("fgpu").closest(".bkai-pair"), page.at("range"), page.at("device"), page.at("legend")];
  for (const part of shares) part.classList.toggle("bkai-gone", !slot.fractions && part !== shares[0]);
}

function showProfile(page, slot, mig) {
  const known = amounts.profile(mig);
  const memory = known ? (known.memory * 1024) / slot.memory_mib : 0;
  page.at("fgpu").value = known ? `≈ ${(memory * amounts.value(amounts.unitOf(page.group()).per)).toFixed(2)}` : "";
  page.at("gpu").value = known ? `≈ ${memory.toFixed(2)}` : "";
  page.at("device").hidden = page.at("legend").hidden = page.at("range").hidden = true;
  const words = known ? texts.mig(mig, known.memory, amounts.write(known.compute)) : mig;
  say(page.at("amount-words"), words);
  page.accelerator = words;
}

function showAmount(page, slot, unit, fgpu, gpu, typed) {
  const range = page.at("range");
  const steps = amounts.steps(slot, unit);
  range.hidden = steps.length < 2;
  range.min = 0;
  range.max = steps.length - 1;
  page.at("device").hidden = page.at("legend").hidden = !gpu;
  page.accelerator = words(page, slot, fgpu, gpu);
  // What is wrong with it, the service's answer says below; without one, this.
  if (!gpu) return say(page.at("amount-words"), page.errors?.[page.edited] ? "" : texts.notAnAmount(typed.trim()));
  const place = steps.findIndex((step) => amounts.compare(step, fgpu) >= 0);
  range.value = place < 0 ? steps.length - 1 : place;
  range.setAttribute("aria-valuetext", `${amounts.write(fgpu)} fGPU, ${page.accelerator}`);
  say(page.at("amount-words"), page.accelerator);
  const bars = deviceBars(slot, gpu, Number(page.value("spread")) || 1);
  fill(page.at("device"), bars.map((one) => one.bar));
  fill(page.at("legend"), legend(bars));
}

function words(page, slot, fgpu, gpu) {
  if (!gpu) return slot.title;
  const spread = Number(page.value("spread")) || 1;
  const each = amounts.fraction(gpu.n, gpu.d * spread);
  const memory = texts.about(amounts.size(slot.memory_mib * Math.min(1, amounts.value(each))));
  if (amounts.isWhole(gpu) && (spread === 1 || gpu.n === spread)) return texts.whole(gpu.n, slot.title);
  if (amounts.value(each) > 1) return texts.tooMuch(amounts.write(each), slot.title);
  if (spread === 1) return `${texts.ofOne(amounts.percent(gpu), slot.title)}, ${memory}`;
  return texts.ofEach(amounts.percent(each), spread, slot.title);
}

/** One bar for each device asked for: what is taken, what would be yours, what stays free. */
function deviceBars(slot, gpu, spread) {
  const whole = spread === 1 && amounts.value(gpu) > 1 ? Math.ceil(amounts.value(gpu)) : spread;
  const count = Math.max(1, whole);
  const each = Math.min(1, amounts.value(gpu) / count);
  const free = amounts.value(amounts.read(slot.free));
  return Array.from({ length: Math.min(count, 16) }, (_, number) => {
    const room = number < slot.idle ? 1 : number === 0 ? free : 0;
    const fits = each <= room;
    const taken = fits ? 1 - room : Math.max(0, 1 - each);
    return { taken, fits, left: fits ? room - each : 0, bar: bar([
      { size: taken, kind: "others" },
      { size: each, kind: fits ? "mine" : "mine waits" },
    ]) };
  });
}

/** What the colours of the bars mean, of those that are there. */
function legend(bars) {
  const kinds = [
    ["others", texts.legendTaken, bars.some((one) => one.taken > 0)],
    ["mine", texts.legendYours, bars.some((one) => one.fits)],
    ["mine waits", texts.legendWaits, bars.some((one) => !one.fits)],
    ["", texts.legendFree, bars.some((one) => one.left > 0)],
  ];
  return kinds.filter(([, , there]) => there).map(([kind, text]) =>
    el("span", {}, el("span", { class: "bkai-bar", "aria-hidden": "true" }, el("i", { class: kind })), text));
}

// -- the summary and the answer -------------------------------------------------------------------

function show(page) {
  const group = page.group();
  const image = page.offer.images.find((one) => one.version === page.chosen("version")) ?? page.offer.images[0];
  const slot = page.slot();
  const wrong = slot && !page.value("mig") && !page.amount;
  const fgpu = slot && !page.value("mig") && page.amount ? `${page.amount} fGPU = ` : "";
  const rows = {
    version: `${image.title} (${image.version})`,
    group: group.title || group.name,
    accelerator: wrong ? texts.amountMissing : slot ? fgpu + page.accelerator : texts.noAccelerator,
    cpu: texts.cores(page.value("cpu") || "1"),
    memory: texts.memory(page.value("memory"), page.value("shm")),
    duration: page.value("duration") || texts.noDeadline,
    count: page.count() > 1 ? String(page.count()) : "",
  };
  fill(page.at("summary"), Object.entries(rows).filter(([, text]) => text).map(
    ([key, text]) => el("div", {}, el("dt", { text: texts.rows[key] }), el("dd", { text })),
  ));
  page.at("summary").hidden = false;
  label(page);
}

function label(page) {
  const button = page.form.querySelector("button[type=submit]");
  const say_ = page.starts === "later" ? texts.queue : texts.start;
  if (button) say(button, say_(page.count()));
}

function answered(page, { errors = {}, outlook = null, offer = null, trouble = "" }) {
  page.errors = errors;
  if (offer) refresh(page, offer);
  page.answeredFor = JSON.stringify(raw(page.form));
  page.starts = outlook?.starts ?? "";
  for (const box of page.form.querySelectorAll("[data-error]")) showError(page, box.dataset.error, errors[box.dataset.error] ?? "");
  checkName(page);
  const wrong = new Set([...Object.keys(errors), ...(page.nameError ? ["name"] : [])]).size;
  const unplaced = Object.entries(errors).filter(([key]) => !document.getElementById(`bkai-${key}-error`)).map(([, text]) => text);
  const [kind, title, text] = trouble ? ["unknown", "", trouble]
    : outlook && !wrong ? verdict(outlook)
    : outlook?.starts === "never" ? verdict(outlook)
    : ["wrong", texts.toMend(wrong), unplaced.join(" ")];
  const panel = page.at("outlook");
  panel.hidden = false;
  panel.dataset.kind = kind;
  if (panel.textContent !== title + text) fill(panel, title && el("strong", { text: title }), text && el("span", { text }));
  label(page);
}

function verdict({ starts, message }) {
  if (starts === "now") return ["now", texts.startsNow, message.replace(/^It starts at once\. ?/, "")];
  return starts === "later" ? ["later", texts.startsLater, message.replace(/^It would wait\. /, "")] : ["never", texts.startsNever, message];
}

function showError(page, key, sentence) {
  const box = document.getElementById(`bkai-${key}-error`);
  if (!box) return;
  say(box, sentence);
  const field = page.form.querySelector(`[name="${key}"]:not([type=radio])`) ?? box.closest("fieldset");
  if (sentence) field?.setAttribute("aria-invalid", "true");
  else field?.removeAttribute("aria-invalid");
  if (sentence && box.closest("details")) box.closest("details").open = true;
}

/** What is free has changed since the page was made. */
function refresh(page, offer) {
  if (!offer.groups.length || !offer.images.length) return;
  page.offer = offer;
  for (const group of offer.groups) {
    const card = page.form.querySelector(`[data-group="${CSS.escape(group.name)}"]`);
    if (!card) continue;
    say(card.querySelector("[data-waiting]"), group.waiting ? texts.waiting(group.waiting) : texts.nobodyWaits);
    for (const slot of group.slots) {
      const line = card.querySelector(`[data-slot="${CSS.escape(slot.slot)}"] .bkai-capacity`);
      if (line) fill(line, pips(slot), el("span", { text: inUse(slot) }));
    }
  }
  follow(page, null);
}

function pips(slot) {
  const kind = (number) => (number < slot.idle ? "free" : number === 0 && slot.free !== "0" ? "part" : "used");
  return el("span", { class: "bkai-pips", "aria-hidden": "true" },
    Array.from({ length: Math.min(16, slot.devices) }, (_, number) => el("i", { class: kind(number) })));
}

function inUse(slot) {
  if (!slot.devices) return texts.noneHere;
  if (slot.idle) return texts.idle(slot.idle, slot.devices);
  return slot.free === "0" ? texts.allUsed(slot.devices) : texts.someFree(slot.devices, amounts.percent(amounts.read(slot.free)));
}

// -- the name is the address ----------------------------------------------------------------------

const NAME = /^[a-z](?:-?[a-z0-9])*$/;

/** The server that this page's address names; after a refusal the Hub renders the form for the default one. */
function serverHere({ hub, user }) {
  const prefix = `${hub}spawn/${user}/`;
  const path = window.location.pathname;
  return path.startsWith(prefix) ? decodeURIComponent(path.slice(prefix.length)).replace(/\/$/, "") : "";
}

function placeName(page) {
  page.server = serverHere(page.place);
  const field = page.at("name");
  if (!field.value) field.value = page.server;
}

function checkName(page) {
  const name = page.value("name");
  page.nameError = !name ? "" : name.length > 30 || !NAME.test(name) ? texts.nameWrong
    : page.place.taken.includes(name) && name !== page.server ? texts.nameTaken(name) : "";
  showError(page, "name", page.nameError || page.errors?.name || "");
}

/** Sends the form to the address of the name that was entered. */
function address(page) {
  const name = page.value("name");
  page.form.action = page.action; // back from a form that was sent, it may hold another name
  if (!name || name === page.server) return;
  const here = new URL(page.action);
  here.pathname = `${page.place.hub}spawn/${page.place.user}/${name}`;
  page.form.action = here.href;
}

// -- sending ---------------------------------------------------------------------------------------

/** Of fGPU and share only the one that was typed is sent: the other is the same amount. */
function onlyOne(page, data) {
  if (data.has("fgpu") && data.has("gpu")) data.delete(page.edited === "gpu" ? "fgpu" : "gpu");
  if (data.get("accelerator") === "none") for (const key of ["fgpu", "gpu", "mig", "spread"]) data.delete(key);
  if (data.get("mig")) for (const key of ["fgpu", "gpu"]) data.delete(key);
}

function submit(page, event) {
  // What is known to be wrong stays here; what has changed since the last answer is for the service to judge.
  const known = page.answeredFor === JSON.stringify(raw(page.form)) ? Object.keys(page.errors) : [];
  const wrong = page.nameError ? "name" : known.find((key) => document.getElementById(`bkai-${key}-error`));
  if (wrong) {
    event.preventDefault();
    event.stopImmediatePropagation();
    const field = page.form.querySelector(`[name="${wrong}"]:not(:disabled)`);
    field?.closest("details")?.setAttribute("open", "");
    field?.focus();
    return;
  }
  try {
    window.sessionStorage.setItem(key(page), JSON.stringify([...new FormData(page.form).entries()].filter(([, value]) => typeof value === "string")));
  } catch {
    // A browser that keeps nothing: what was typed is lost only if the service refuses it.
  }
  address(page);
}

const key = ({ place }) => `bkai-form:${place.user}`;

/** After a refusal that the Hub could not show with the values, they come from where `submit` put them. */
function restore(page) {
  const kept = window.sessionStorage.getItem(key(page));
  window.sessionStorage.removeItem(key(page));
  if (!kept || page.place.returned || !document.querySelector(".spawn-error-msg")) return;
  for (const [name, value] of JSON.parse(kept)) {
    for (const field of page.form.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (field.type === "radio" || field.type === "checkbox") field.checked = field.value === value;
      else if (name !== "folders") field.value = value;
      else if ([...field.options].some((option) => option.value === value)) field.value = value;
    }
    if (name === "fgpu" || name === "gpu") page.edited = name;
  }
}

function moveSubmit(page) {
  const submit = document.getElementById("bkai-submit");
  if (submit) document.getElementById("bkai-submit-here").append(submit);
  page.at("aside").hidden = false;
}

const root = document.getElementById("bkai-form");
if (root) start(root, JSON.parse(document.getElementById("bkai-form-data").textContent));
