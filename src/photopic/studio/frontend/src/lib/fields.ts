// Values of a method's form: their start, what is wrong with them, and what the server is sent.
import type { Field, Picture, Scalar } from "./contract";

export interface PicturesValue {
  word: string; // a word of the source, such as emoji:groups
  pictures: { picture: Picture; label: string | null; caption: string | null }[];
}

export interface FileValue {
  upload: string;
  name: string;
}

export type Value = Scalar | string[] | PicturesValue | FileValue | undefined;
export type Values = Record<string, Value>;

export const isPictures = (value: Value): value is PicturesValue => typeof value === "object" && value !== null && "pictures" in value;
export const isFile = (value: Value): value is FileValue => typeof value === "object" && value !== null && "upload" in value;

/** What is wrong with a value, as a line to write beside its field, or null. */
export function wrong(field: Field, value: Value): string | null {
  const empty = value === undefined || value === null || value === "" || (Array.isArray(value) && !value.length) || (isPictures(value) && !value.word && !value.pictures.length);
  if (empty) return field.required && missing(field) ? `${field.label}: ${expected(field)}` : null;
  if ((field.kind === "integer" || field.kind === "number") && typeof value === "number") return outOfRange(field, value);
  return null;
}

const missing = (field: Field) => field.default === null || field.default === undefined || field.default === "";

function expected(field: Field): string {
  if (field.kind === "pictures") return field.words?.length ? `choose pictures, or one of ${field.words.join(", ")}.` : "choose pictures.";
  if (field.kind === "edit" || field.kind === "edits") return "choose an edit; the Edits room takes files.";
  if (field.kind === "integer" || field.kind === "number") return "expected a number.";
  return "this is needed.";
}

function outOfRange(field: Field, value: number): string | null {
  const said = `${field.label}: expected`;
  if (Number.isNaN(value)) return `${said} a number.`;
  if (field.kind === "integer" && !Number.isInteger(value)) return `${said} a whole number.`;
  if (typeof field.min === "number" && value < field.min) return `${said} ${field.min} or more.`;
  if (typeof field.max === "number" && value > field.max) return `${said} ${field.max} or less.`;
  if (typeof field.above === "number" && value <= field.above) return `${said} more than ${field.above}.`;
  if (typeof field.below === "number" && value >= field.below) return `${said} less than ${field.below}.`;
  return null;
}

/** What the server is sent: values that were given, and what is shown as chosen where one has to be. */
export function sent(fields: readonly Field[], values: Values): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const field of fields) {
    const value = values[field.name] ?? (field.kind === "model" && field.required ? (field.default as Scalar) : undefined);
    if (value === undefined || value === "" || (value === null && !field.required)) continue;
    if (isPictures(value)) {
      if (value.pictures.length) out[field.name] = value.pictures.map(({ picture, label, caption }) => ({ id: picture.id, label, caption }));
      else if (value.word) out[field.name] = value.word;
    } else if (isFile(value)) out[field.name] = value.upload;
    else out[field.name] = listed(field, value);
  }
  return out;
}

/** A field of several texts or numbers is typed with commas between. */
function listed(field: Field, value: Scalar | string[]): unknown {
  if (!field.many || Array.isArray(value) || typeof value !== "string") return value;
  const parts = value.split(",").map((part) => part.trim()).filter(Boolean);
  return field.kind === "integer" || field.kind === "number" ? parts.map(Number) : parts;
}

export function rangeOf(field: Field): string {
  const low = field.min ?? field.above;
  const high = field.max ?? field.below;
  if (typeof low === "number" && typeof high === "number") return `${low} to ${high}`;
  if (typeof low === "number") return typeof field.above === "number" ? `above ${low}` : `${low} or more`;
  if (typeof high === "number") return typeof field.below === "number" ? `below ${high}` : `${high} or less`;
  return "";
}
