// Who waits, group by group: elements from the service's JSON. Decides nothing.

import { el } from "./dom.js";
import { colour, reason } from "./map.js";
import { texts } from "./texts.js";
import { clock, when } from "./view.js";

const USUAL = 10;

function waiting(request, group, page) {
  const name = request.user ? `${request.user} · ${request.name || texts.defaultName}` : texts.somebody;
  const act = (text, label, run, kind = "") => el("button", { class: `bkai-act ${kind}`, type: "button", text, "aria-label": label, "data-action": text, onclick: run });
  return el("li", { class: "bkai-waits", "data-id": request.id },
    el("span", { class: "bkai-place", text: String(request.position || "–"), title: request.position ? undefined : texts.notYet }),
    el("div", { class: "bkai-waitswho" },
      el("span", {}, el("i", { class: `bkai-swatch ${colour(request.user)}`, "aria-hidden": "true" }), " ", el("b", { text: request.user ?? texts.somebody }), ` ${request.name || (request.user ? texts.defaultName : "")}`),
      el("span", { class: "bkai-muted" }, `${request.asked} · `, clock("since", request.since))),
    el("div", { class: "bkai-waitsdo" },
      el("button", {
        class: `bkai-chiplet${request.priority === USUAL ? "" : " bkai-chipleton"}`, type: "button", "data-action": "priority",
        "aria-label": texts.priorityNamed(name, request.priority), title: texts.priorityNamed(name, request.priority), text: texts.priority(request.priority),
        onclick: () => page.prioritise(request, name),
      }),
      act(texts.cancel, texts.cancelNamed(name), () => page.stop(request.id, name, false), "bkai-actbad")),
    el("p", { class: "bkai-waitswhy", text: request.when ? `${request.why} ${when(request.when)}` : request.why }));
}

/** One group's queue. `shown` are those that the filter lets through. */
export function line(group, shown, page) {
  const oldest = group.waiting.reduce((first, one) => (!first || one.since < first ? one.since : first), "");
  const held = group.held;
  return el("section", { class: "bkai-group", "data-group": group.name, "data-held": held ? "" : undefined, "aria-label": group.title },
    el("header", { class: "bkai-linehead" },
      el("h3", { class: "bkai-nodename", text: group.title }),
      held && el("span", { class: "bkai-badge bkai-wait", text: texts.held }),
      el("span", { class: "bkai-muted bkai-facts" }, group.all ? texts.waiting(group.all) : texts.nobodyWaits, oldest ? [", ", texts.oldest, " ", clock("since", oldest)] : null),
      el("button", {
        class: "btn btn-sm btn-outline-secondary", type: "button", text: held ? texts.release : texts.hold,
        "aria-label": held ? texts.releaseNamed(group.title) : texts.holdNamed(group.title),
        onclick: () => page.switch({ path: `/groups/${encodeURIComponent(group.name)}/hold`, name: group.title, closed: held, kind: "hold", busy: 0 }),
      })),
    held ? reason(held) : null,
    shown.length ? el("ol", { class: "bkai-waiting" }, shown.map((request) => waiting(request, group, page))) : null,
    group.all > group.waiting.length ? el("p", { class: "bkai-muted bkai-rest", text: texts.andMore(group.all - group.waiting.length) }) : null);
}
