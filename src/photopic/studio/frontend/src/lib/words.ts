// Numbers, times and names as a reader says them.
export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  if (count < 1_000_000) return `${(count / 1000).toPrecision(3)} kB`;
  return `${(count / 1_000_000).toPrecision(3)} MB`;
}

export function duration(seconds: number): string {
  if (seconds < 1) return "under 1 s";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** Seconds since 1970, or an ISO date, in the reader's own form. */
export function moment(when: number | string | null | undefined): string {
  if (when === null || when === undefined || when === "") return "";
  const date = new Date(typeof when === "number" ? when * 1000 : when);
  return Number.isNaN(date.getTime()) ? String(when) : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function number(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

export function cell(value: unknown): string {
  if (value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length)) return "–";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

export const plural = (count: number, one: string, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
export const sentence = (words: string) => words.charAt(0).toUpperCase() + words.slice(1);
export const clamp = (value: number, low: number, high: number) => Math.min(high, Math.max(low, value));
/** What a prompt says to call an edit's thing: "<mine> bear". */
export const called = (edit: { noun: string | null; token: string | null }) =>
  [edit.token && !edit.token.startsWith("<") ? `<${edit.token}>` : edit.token, edit.noun].filter(Boolean).join(" ");
