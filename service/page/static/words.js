// Numbers, times and words as people read them.

const number = new Intl.NumberFormat("en");

export const count = (n) => (n == null ? "?" : number.format(n));

export const rate = (n) => (n == null ? "?" : n < 10 ? String(Math.round(n * 10) / 10) : number.format(Math.round(n)));

/** A time, whose unit stays on the same line. */
export function duration(seconds) {
  if (seconds == null) return "?";
  const [value, unit] = measured(seconds);
  return `${value}\u00a0${unit}`;
}

function measured(seconds) {
  if (seconds < 0.00095) return [0, "ms"];
  if (seconds < 0.0095) return [(seconds * 1000).toFixed(1), "ms"];
  if (seconds < 1) return [Math.round(seconds * 1000), "ms"];
  if (seconds < 60) return [seconds.toFixed(1), "s"];
  return seconds < 3600 ? [Math.round(seconds / 60), "min"] : [(seconds / 3600).toFixed(1), "h"];
}

/** The time of day of seconds since the epoch, with the day if that isn't today. */
export function time(seconds) {
  const at = new Date(seconds * 1000);
  const clock = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString() ? clock : `${at.toLocaleDateString("en-CA")} ${clock}`;
}
