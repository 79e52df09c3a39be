// Numbers and times as a person reads them.

export const NOTHING = "–";

const isKnown = (value) => value !== null && value !== undefined && Number.isFinite(value);

export function number(value) {
  if (!isKnown(value)) return NOTHING;
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(size >= 1e5 ? 0 : 1)} k`;
  if (Number.isInteger(value)) return String(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export const perSecond = (value) => (isKnown(value) ? `${number(value)}/s` : NOTHING);

export function percent(value) {
  if (!isKnown(value)) return NOTHING;
  const shown = 100 * value;
  return `${shown > 0 && shown < 10 ? shown.toFixed(1) : shown.toFixed(0)} %`;
}

export function seconds(value) {
  if (!isKnown(value)) return NOTHING;
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

export function bytes(value) {
  if (!isKnown(value)) return NOTHING;
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return `${(value / size).toFixed(1)} ${unit}`;
  }
  return `${value} B`;
}

const two = (value) => String(value).padStart(2, "0");

/** Of today with the time alone, else with the date. */
export function time(unixSeconds, withSeconds = true) {
  const at = new Date(unixSeconds * 1000);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}${withSeconds ? `:${two(at.getSeconds())}` : ""}`;
  if (at.toDateString() === new Date().toDateString()) return clock;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

/** minutes: as JavaScript has it, west of Greenwich. */
export function zone(minutes) {
  const off = Math.abs(minutes);
  return off ? `UTC${minutes < 0 ? "+" : "−"}${two(Math.floor(off / 60))}:${two(off % 60)}` : "UTC";
}
