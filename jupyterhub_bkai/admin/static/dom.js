// Making elements without HTML strings: what comes from people is always text.

/** An element; `props` are attributes, `on…` functions, `text`; children are nodes or texts, empty ones are left out. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

/** Replaces the children of `parent`. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Sets a text only when it changes, so that screen readers are not told the same again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A bar of parts: [{size: 0…1, kind, title}]. What it shows stands beside it in words. */
export function bar(parts, props = {}) {
  const pieces = parts
    .filter((part) => part.size > 0)
    .map((part) => el("i", { class: part.kind, style: `width:${Math.min(100, part.size * 100).toFixed(2)}%`, title: part.title }));
  return el("span", { class: "bkai-bar", "aria-hidden": "true", ...props }, pieces);
}
