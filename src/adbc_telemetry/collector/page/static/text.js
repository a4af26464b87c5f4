// Numbers, times and sizes as people read them.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const exact = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const NONE = "–";

export const count = (value) => (value == null ? NONE : whole.format(value));
export const compact = (value) => (value == null ? NONE : value < 1_000_000 ? whole.format(value) : short.format(value));
export const share = (part, all) => (all ? percent.format(part / all) : NONE);
export const minute = (iso) => (iso == null ? NONE : dayAndTime.format(new Date(iso)));
export const second = (iso) => (iso == null ? NONE : exact.format(new Date(iso)));
export const clock = () => new Date().toLocaleTimeString(undefined, { hourCycle: "h23" });

export function latency(ms) {
  if (ms == null) return NONE;
  if (ms < 1) return "<1";
  return whole.format(ms);
}

export function bytes(value) {
  if (value == null) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toLocaleString(undefined, { maximumFractionDigits: value < 10 && unit ? 1 : 0 })} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds == null) return NONE;
  for (const [size, name] of [[86_400, "day"], [3600, "hour"], [60, "minute"]]) {
    if (seconds >= size) return plural(Math.round(seconds / size), name);
  }
  return plural(Math.round(seconds), "second");
}

export function plural(number, name) {
  return `${whole.format(number)} ${name}${number === 1 ? "" : "s"}`;
}

// What an input of type datetime-local and plotly take: the local time without a zone.
export function local(iso) {
  const date = new Date(iso);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
