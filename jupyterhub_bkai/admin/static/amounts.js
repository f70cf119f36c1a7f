// Exact arithmetic for amounts of an accelerator: fGPU, shares of a device, and what can be had. No DOM.

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

/** n/d, reduced; amounts are never negative. */
export function fraction(n, d = 1) {
  const g = gcd(n, d) || 1;
  return { n: n / g, d: d / g };
}

/** "0.5", "2" or "1/4", exactly; null when it is not a number that people write. */
export function parse(text) {
  const value = String(text ?? "").trim();
  let match = /^([0-9]{1,4})\/([1-9][0-9]{0,3})$/.exec(value);
  if (match) return fraction(Number(match[1]), Number(match[2]));
  match = /^([0-9]{1,9})(?:\.([0-9]{1,6}))?$/.exec(value);
  if (!match) return null;
  const digits = match[2] ?? "";
  return fraction(Number(match[1] + digits), 10 ** digits.length);
}

/** A share as the service writes it: "71424/143771", "1/4", "0". */
export function read(text) {
  const [n, d = "1"] = String(text ?? "0").split("/");
  return fraction(Number(n) || 0, Number(d) || 1);
}

export const times = (a, b) => fraction(a.n * b.n, a.d * b.d);
export const over = (a, b) => fraction(a.n * b.d, a.d * b.n);
export const compare = (a, b) => a.n * b.d - b.n * a.d;
export const value = (a) => a.n / a.d;
export const isWhole = (a) => a.d === 1;

/** As people write it: a decimal where it is exact in six places, else n/d. */
export function write(a) {
  for (let places = 0; places <= 6; places += 1) {
    const scaled = a.n * 10 ** places;
    if (scaled % a.d === 0) return places ? (scaled / a.d / 10 ** places).toFixed(places) : String(scaled / a.d);
  }
  return `${a.n}/${a.d}`;
}

/** A share in percent with at most one decimal: "25", "33.3". */
export function percent(share) {
  return String(Math.round(value(share) * 1000) / 10);
}

/** The administrator's unit as the service gives it. */
export function unitOf(group) {
  return { per: parse(group.unit.per_device), quantum: parse(group.unit.quantum) };
}

/** The amounts in fGPU that a slider offers: every quantum up to one device, then whole devices. */
export function steps(slot, unit) {
  const found = [];
  if (slot.divisible) {
    const most = 1000;
    for (let k = 1; k <= most; k += 1) {
      const amount = fraction(unit.quantum.n * k, unit.quantum.d);
      if (compare(amount, unit.per) >= 0) break;
      found.push(amount);
    }
  }
  for (let k = 1; k <= slot.devices; k += 1) found.push(fraction(unit.per.n * k, unit.per.d));
  return found;
}

/** MiB for people: "36 GiB", "512 MiB". */
export function size(mib) {
  if (mib < 1024) return `${Math.round(mib)} MiB`;
  const gib = mib / 1024;
  return `${gib >= 100 ? Math.round(gib) : Math.round(gib * 10) / 10} GiB`;
}

/** What the vendor's name of a MIG profile says: "1g.18gb" is 18 GB of memory and 1/7 of the compute units. */
export function profile(name) {
  const match = /^([0-9]+)g\.([0-9]+)gb/.exec(name);
  return match ? { compute: fraction(Number(match[1]), 7), memory: Number(match[2]) } : null;
}
