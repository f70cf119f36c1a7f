// The page of rules: shows groups, policies and presets, edits one at a time, and says what a change does before it is made.

import { Api, Refusal } from "./api.js";
import { el, fill, say } from "./dom.js";
import { texts } from "./texts.js";

const KINDS = ["groups", "users", "projects", "presets"];
const LIMITS = ["total", "running", "pending", "size"];
const root = document.getElementById("bkai-policies");
if (root) new Page(root).start();

function Page(element) {
  const get = (id) => document.getElementById(`bkai-${id}`);
  const calls = new Api(element.dataset.api, window.jhdata.xsrf_token);
  const page = { kind: KINDS[0], rules: {}, fields: {}, slots: [], revision: null, editing: null };

  this.start = () => {
    for (const name of ["filter", "closed"]) get(name).addEventListener("input", show);
    get("add").addEventListener("click", () => edit(""));
    get("editor-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void checked();
    });
    get("editor-cancel").addEventListener("click", () => get("editor").close());
    get("editor").addEventListener("cancel", (event) => {
      if (page.editing.warned || JSON.stringify(written()) === page.editing.begun) return;
      page.editing.warned = true;
      event.preventDefault();
      trouble(texts.unsaved);
    });
    get("review-no").addEventListener("click", () => get("review").close());
    say(get("editor-cancel"), texts.leaveIt);
    say(get("editor-next"), texts.whatChanges);
    say(get("review-no"), texts.back);
    tabs();
    window.addEventListener("hashchange", () => KINDS.includes(window.location.hash.slice(1)) && choose(window.location.hash.slice(1)));
    // What others change meanwhile is seen when one comes back to the page; what one is writing stays.
    document.addEventListener("visibilitychange", () => !document.hidden && !get("editor").open && void load());
    void load();
  };

  async function load() {
    try {
      Object.assign(page, await calls.call("/rules"));
      get("trouble").hidden = true;
    } catch (error) {
      get("trouble").hidden = false;
      say(get("trouble"), error instanceof Refusal ? error.message : texts.noAnswer);
      window.setTimeout(() => void load(), 5000);
      return;
    }
    get("rules").removeAttribute("aria-busy");
    show();
  }

  // -- the list -----------------------------------------------------------------------------------

  function tabs() {
    const buttons = KINDS.map((kind) => el("button", {
      class: "nav-link", type: "button", role: "tab", id: `bkai-kind-${kind}`, "aria-controls": "bkai-panel", onclick: () => choose(kind),
    }, texts.ruleKinds[kind], " ", el("span", { class: "badge text-bg-secondary" })));
    get("kinds").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: KINDS.length - 1 }[event.key];
      if (step) choose(KINDS[(KINDS.indexOf(page.kind) + step) % KINDS.length], true);
    });
    fill(get("kinds"), buttons);
    choose(KINDS.includes(window.location.hash.slice(1)) ? window.location.hash.slice(1) : KINDS[0]);
  }

  function choose(kind, focus = false) {
    page.kind = kind;
    window.history.replaceState(null, "", `#${kind}`);
    for (const one of KINDS) {
      const tab = get(`kind-${one}`);
      tab.classList.toggle("active", one === kind);
      tab.setAttribute("aria-selected", String(one === kind));
      tab.tabIndex = one === kind ? 0 : -1;
      if (focus && one === kind) tab.focus();
    }
    get("panel").setAttribute("aria-labelledby", `bkai-kind-${kind}`);
    get("closed-label").hidden = !opens(kind);
    get("add").hidden = false;
    say(get("add"), texts.addRule[kind]);
    say(get("about"), texts.aboutRules[kind]);
    if (page.revision) show();
  }

  const opens = (kind) => kind === "groups" || kind === "presets";

  function show() {
    for (const kind of KINDS) say(get(`kind-${kind}`).querySelector(".badge"), String(Object.keys(page.rules[kind] ?? {}).length));
    const wanted = get("filter").value.trim().toLowerCase();
    const all = Object.entries(page.rules[page.kind] ?? {});
    const found = all.filter(([name, body]) =>
      `${name} ${body.title ?? ""}`.toLowerCase().includes(wanted) && !(opens(page.kind) && get("closed").checked && body.public !== false));
    fill(get("rules"), found.map(([name, body]) => row(name, body)));
    get("empty").hidden = found.length > 0;
    say(get("empty"), all.length ? texts.noRuleFound : texts.noRule[page.kind]);
  }

  function row(name, body) {
    const title = page.kind === "users" || page.kind === "projects" ? (name === "*" ? texts.everybodyElse[page.kind] : name) : (body.title ?? name);
    const says = summary(page.kind, body);
    return el("li", { class: "bkai-session bkai-rule-row", "data-rule": name },
      el("div", { class: "bkai-what" },
        el("div", { class: "bkai-name" }, title, title !== name && el("span", { class: "bkai-muted" }, ` ${name}`)),
        el("div", { class: "bkai-muted" }, says || texts.nothingSaid)),
      opens(page.kind) && el("label", { class: "bkai-check form-check form-switch" },
        el("input", {
          class: "form-check-input", type: "checkbox", role: "switch", checked: body.public !== false,
          "aria-label": texts.openFor(title), onchange: (event) => void toggle(name, body, event.target),
        }), el("span", {}, body.public === false ? texts.closed : texts.openForAll)),
      el("div", { class: "bkai-buttons" },
        el("button", { class: "btn btn-sm btn-outline-primary", type: "button", "aria-label": texts.editNamed(title), onclick: () => edit(name) }, texts.edit),
        el("button", { class: "btn btn-sm btn-outline-danger", type: "button", "aria-label": texts.removeNamed(title), onclick: () => void propose(name, null) }, texts.remove)));
  }

  function summary(kind, body) {
    const parts = page.fields[kind].filter((field) => !["title", "public"].includes(field.place)).map((field) => {
      const value = at(body, field.place);
      if (value === undefined) return "";
      if (field.kind === "limits") return LIMITS.filter((key) => value[key]).map((key) => texts.limitOf(texts.limits[key], amounts(value[key]))).join("; ");
      if (field.kind === "options") return amounts(value);
      return texts.labelled(field.label, Array.isArray(value) ? value.join(", ") : field.kind === "duration" && Number(value) ? texts.seconds(value) : String(value));
    });
    return parts.filter(Boolean).join(" · ");
  }

  const amounts = (value) => Object.entries(value).map(([name, amount]) => `${texts.amounts[name] ?? name} ${amount}`).join(", ");

  async function toggle(name, body, input) {
    const changed = structuredClone(body);
    if (input.checked) delete changed.public;
    else changed.public = false;
    input.checked = !input.checked; // until it is so
    await propose(name, changed);
  }

  // -- one rule -----------------------------------------------------------------------------------

  function edit(name) {
    const body = page.rules[page.kind][name] ?? {};
    page.editing = { name, body };
    trouble("");
    say(get("editor-title"), name ? texts.editNamed(name === "*" ? texts.everybodyElse[page.kind] : name) : texts.addRule[page.kind]);
    fill(get("editor-fields"),
      !name && control({ place: "", label: texts.name, help: texts.ruleName[page.kind], kind: "text", choices: [] }, ""),
      page.fields[page.kind].map((field) => control(field, at(body, field.place))));
    page.editing.begun = JSON.stringify(written());
    get("editor").showModal();
  }

  function control(field, value) {
    const id = `bkai-rule-${field.place || "name"}`;
    const shared = { id, "data-place": field.place, "data-kind": field.kind, "aria-describedby": `${id}-help ${id}-error` };
    const error = el("div", { class: "bkai-error", id: `${id}-error`, "data-error-of": field.place });
    const help = el("div", { class: "bkai-help", id: `${id}-help`, text: field.help });
    if (field.kind === "limits") return el("fieldset", { class: "bkai-field", ...shared }, el("legend", { class: "form-label", text: field.label }), help, table(id, value ?? {}), error);
    if (field.kind === "options") return el("fieldset", { class: "bkai-field", ...shared }, el("legend", { class: "form-label", text: field.label }), help,
      el("div", { class: "bkai-row" }, field.choices.map((key) => small(id, key, value?.[key]))), error);
    if (field.kind === "flag") return el("div", { class: "bkai-field" }, el("label", { class: "bkai-check", for: id },
      el("input", { type: "checkbox", checked: value !== false, ...shared }), el("span", { text: field.label })), help, error);
    const input = field.kind === "choice"
      ? el("select", { class: "form-select form-select-sm", ...shared }, el("option", { value: "", text: texts.usual(field.choices[0]) }),
        field.choices.map((choice) => el("option", { value: choice, text: texts.choices[choice] ?? choice, selected: choice === value })))
      : el("input", { class: "form-control form-control-sm", value: Array.isArray(value) ? value.join(", ") : (value ?? ""), autocomplete: "off", spellcheck: "false",
        placeholder: field.choices.join(", "), ...shared });
    return el("div", { class: "bkai-field" }, el("label", { class: "form-label", for: id, text: field.label }), input, help, error);
  }

  function small(id, key, value) {
    return el("div", { class: "bkai-field" }, el("label", { class: "form-label", for: `${id}-${key}`, text: texts.presetOptions[key] ?? key }),
      el("input", { class: "form-control form-control-sm", id: `${id}-${key}`, "data-key": key, value: value ?? "", autocomplete: "off", spellcheck: "false" }));
  }

  function table(id, value) {
    const known = ["sessions", "cpu", "memory", ...(page.kind === "groups" ? ["fgpu"] : []), ...page.slots];
    const columns = [...new Set([...known, ...LIMITS.flatMap((key) => Object.keys(value[key] ?? {}))])];
    return el("div", { class: "bkai-scroll" }, el("table", { class: "bkai-limits" },
      el("thead", {}, el("tr", {}, el("td"), columns.map((column) => el("th", { scope: "col", text: texts.amounts[column] ?? column })))),
      el("tbody", {}, LIMITS.map((key) => el("tr", {}, el("th", { scope: "row", text: texts.limits[key] }),
        columns.map((column) => el("td", {}, !(key === "size" && column === "sessions") && el("input", {
          class: "form-control form-control-sm", "data-limit": key, "data-key": column, value: value[key]?.[column] ?? "", autocomplete: "off",
          "aria-label": `${texts.limits[key]}: ${texts.amounts[column] ?? column}`,
        }))))))));
  }

  /** The rule as the fields say it; what they do not know stays as it was. */
  function written() {
    const body = structuredClone(page.editing.body);
    for (const input of get("editor-fields").querySelectorAll("[data-place]")) {
      const { place, kind } = input.dataset;
      if (!place) continue;
      const before = at(page.editing.body, place);
      if (kind === "limits") put(body, place, limitsOf(input, before));
      else if (kind === "options") put(body, place, keys(input.querySelectorAll("[data-key]"), before));
      else if (kind === "flag") put(body, place, input.checked === (before !== false) ? before : input.checked ? undefined : false);
      else if (kind === "names") {
        const names = input.value.split(/[\s,]+/).filter(Boolean);
        put(body, place, names.length ? names : undefined);
      } else put(body, place, typed(input.value, before));
    }
    return body;
  }

  function limitsOf(box, before) {
    const found = {};
    for (const key of LIMITS) {
      const amounts_ = keys(box.querySelectorAll(`[data-limit="${key}"]`), before?.[key]);
      if (amounts_) found[key] = amounts_;
    }
    return Object.keys(found).length ? found : undefined;
  }

  function keys(inputs, before) {
    const found = {};
    for (const input of inputs) {
      const value = typed(input.value, before?.[input.dataset.key]);
      if (value !== undefined) found[input.dataset.key] = value;
    }
    return Object.keys(found).length ? found : undefined;
  }

  /** A value as it would stand in a file: what was not changed stays what it was, a number is one. */
  function typed(text, before) {
    const value = text.trim();
    if (value === "") return undefined;
    if (before !== undefined && value === String(before)) return before;
    return /^\d{1,9}(\.\d{1,6})?$/.test(value) ? Number(value) : value;
  }

  // -- what it changes, and the change --------------------------------------------------------------

  async function checked() {
    const name = page.editing.name || get("rule-name").value.trim();
    if (!name) return trouble("", { "": texts.nameMissing });
    if (!page.editing.name && page.rules[page.kind][name]) return trouble("", { "": texts.nameIsThere(name) });
    await propose(name, written());
  }

  async function propose(name, body) {
    const rules = { [page.kind]: { [name]: body } };
    const change = { rules, revision: page.revision };
    let answer;
    try {
      answer = await calls.call("/rules", { method: "PUT", body: { ...change, only_check: true } });
    } catch (error) {
      return refused(error, name);
    }
    trouble("");
    if (!answer.differences.length) return trouble(texts.nothingChanges);
    say(get("review-title"), body === null ? texts.removeTitle(name) : texts.reviewTitle);
    fill(get("review-text"), answer.differences.map(difference), starts(answer.starts), body === null && page.kind === "groups" && el("p", { text: texts.groupGone }));
    say(get("review-yes"), body === null ? texts.removeSure : texts.changeSure);
    get("review-yes").className = body === null ? "btn btn-danger" : "btn btn-primary";
    get("review-yes").onclick = () => void make(change, name);
    get("review").showModal();
  }

  async function make(change, name) {
    get("review-yes").disabled = true;
    try {
      const answer = await calls.call("/rules", { method: "PUT", body: change });
      get("review").close();
      get("editor").close();
      say(get("live-region"), texts.changedNow(name, answer.starts.length));
    } catch (error) {
      get("review").close();
      refused(error, name);
    } finally {
      get("review-yes").disabled = false;
    }
    await load();
  }

  function difference(one) {
    return el("div", { class: "bkai-difference" }, el("strong", { text: texts.differs(one.change, one.name === "*" ? texts.everybodyElse[one.kind] : one.name) }),
      el("ul", {}, one.lines.map((line) => {
        const field = page.fields[one.kind].find(({ place }) => place === line.place);
        const shown = (text) => (field?.kind === "duration" && Number(text) ? texts.seconds(text) : text);
        return el("li", {}, `${field ? texts.placed(field.label, line.place) : line.place}: `, line.before && el("del", { text: shown(line.before) }), line.before && " ",
          line.after ? el("ins", { text: shown(line.after) }) : el("em", { text: texts.notSet }));
      })));
  }

  function starts(list) {
    if (!list.length) return el("p", { class: "bkai-muted", text: texts.nobodyStarts });
    return el("div", {}, el("p", { class: "mb-1" }, el("strong", { text: texts.theseStart(list.length) })),
      el("ul", {}, list.slice(0, 20).map((one) => el("li", { text: `${one.user} / ${one.name}` })), list.length > 20 && el("li", { text: texts.andMore(list.length - 20) })));
  }

  function refused(error, name) {
    if (!(error instanceof Refusal)) return trouble(texts.noAnswer);
    const prefix = `${page.kind}.${name}.`;
    const places = Object.entries(error.fields ?? {});
    const fields = Object.fromEntries(places.map(([place, text]) => [place.startsWith(prefix) ? place.slice(prefix.length) : "", text.replace(`${place}: `, "")]));
    trouble(places.length ? "" : error.message, fields);
  }

  /** Sentences by field; what belongs to none stands on top. */
  function trouble(message, fields = {}) {
    const open = get("editor").open;
    const boxes = [...get("editor-fields").querySelectorAll("[data-error-of]")];
    for (const box of boxes) say(box, "");
    const rest = [message];
    let first = null;
    for (const [place, text] of Object.entries(fields)) {
      const box = boxes.find((one) => one.dataset.errorOf === place) ?? boxes.find((one) => one.dataset.errorOf && place.startsWith(one.dataset.errorOf));
      if (!open || !box) rest.push(text);
      else {
        say(box, [box.textContent, text].filter(Boolean).join(" "));
        first ??= box.parentElement.querySelector("input, select");
      }
    }
    const panel = open ? get("editor-trouble") : get("trouble");
    const words = rest.filter(Boolean).join(" ");
    panel.hidden = !words;
    say(panel, words);
    if (first) first.focus();
    else if (words) panel.scrollIntoView({ block: "nearest" });
  }
}

const at = (body, place) => place.split(".").reduce((value, key) => value?.[key], body);

/** Sets a place of a body, or takes it out with what is empty around it. */
function put(body, place, value) {
  const [key, ...rest] = place.split(".");
  if (rest.length) {
    body[key] ??= {};
    put(body[key], rest.join("."), value);
    if (!Object.keys(body[key]).length) delete body[key];
  } else if (value === undefined) delete body[key];
  else body[key] = value;
}
