/**
 * Amounts as people read them. Pure, and without words that need a translation: those come in as `Units`.
 */

/** The words around numbers, translated by whoever calls. */
export interface Units {
  days: (count: number) => string;
  hours: (count: number) => string;
  minutes: (count: number) => string;
  seconds: (count: number) => string;
}

const STEPS_S = [900, 1800, 3600, 7200, 14_400, 28_800, 86_400];

/** The amounts of time to choose from when so many seconds are the most: whole minutes, the most of a short one too. */
export function steps(most: number): number[] {
  const whole = Math.floor(most / 60) * 60;
  const found = STEPS_S.filter(seconds => seconds <= whole);
  const longest = STEPS_S.at(-1) ?? 0;
  return whole > 0 && whole < longest && !found.includes(whole) ? [...found, whole] : found;
}

/** A fraction such as "1/4" or "2" as a number; NaN for anything else. */
export function fraction(text: string): number {
  const match = /^(\d+)(?:\/([1-9]\d*))?$/.exec(text.trim());
  return match ? Number(match[1]) / Number(match[2] ?? 1) : NaN;
}

/** A fraction in per cent with at most one decimal: "33.3". */
export function percent(share: string): string {
  const value = fraction(share) * 100;
  return Number.isFinite(value) ? String(Math.round(value * 10) / 10) : '?';
}

/** An amount of memory: "512 MiB", "35.3 GiB". */
export function memory(mib: number): string {
  const gib = mib / 1024;
  if (gib < 1) {
    return `${mib} MiB`;
  }
  return `${gib < 100 ? Math.round(gib * 10) / 10 : Math.round(gib)} GiB`;
}

/** The exact amount, for those who look twice: "36,096 MiB". */
export function exactMemory(mib: number): string {
  return `${mib.toLocaleString('en')} MiB`;
}

/** A length of time in its two largest units: "1 h 12 min"; seconds only below a minute. */
export function duration(ms: number, units: Units): string {
  const total = Math.max(0, Math.floor(ms / 1000));
  const days = Math.floor(total / 86400);
  const hours = Math.floor((total % 86400) / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  if (days) {
    return hours ? `${units.days(days)} ${units.hours(hours)}` : units.days(days);
  }
  if (hours) {
    return minutes ? `${units.hours(hours)} ${units.minutes(minutes)}` : units.hours(hours);
  }
  return minutes ? units.minutes(minutes) : units.seconds(total);
}

/** An image version "family/version" as people say it: "family version". */
export function image(name: string): string {
  return name.replace('/', ' ');
}
