// The form of the Draw room: kept over a reload, filled by pictures, edits and runs, and made into what the server is sent.
import { kept } from "./kept";
import type { DrawForm, EditFile, Job, Picture } from "./contract";
import { called } from "./words";

export interface Chosen {
  name: string;
  weight: number;
  on: boolean;
}

export type Drawing = Omit<DrawForm, "edits" | "start"> & {
  edits: Chosen[];
  start: { picture: Picture; strength: number; mask: Picture | null } | null;
  fixed: boolean; // the seed stays for the next drawing
};

export const EMPTY: Drawing = {
  prompt: "",
  negative: null,
  edits: [],
  overlap: "error",
  count: 4,
  seed: 0,
  steps: 30,
  guidance: 5,
  scheduler: null,
  width: null,
  height: null,
  start: null,
  layout: [],
  in_region: false,
  controls: [],
  attention: true,
  fixed: true,
};

export const drawing = kept<Drawing>("draw", EMPTY);
export const change = (part: Partial<Drawing>) => (drawing.value = { ...drawing.value, ...part });

/** What the server is sent. */
export function formOf(form: Drawing): DrawForm {
  const { fixed: _, edits, start, ...rest } = form;
  return {
    ...rest,
    edits: edits.filter((edit) => edit.on).map(({ name, weight }) => ({ name, weight })),
    start: start && { picture: start.picture.id, strength: start.strength, mask: start.mask?.id ?? null },
    layout: rest.layout.map((box) => ({ ...box, words: box.words.trim() })),
  };
}

/** Puts the settings of a picture, or of a run, into the form; a picture to start from is not part of them. */
export function restore(found: Partial<DrawForm>, seed?: number | null): void {
  const { edits = [], start: _, ...rest } = found;
  const known = Object.fromEntries(Object.entries(rest).filter(([name]) => name in EMPTY)); // the server's forms say more
  drawing.value = {
    ...EMPTY,
    ...known,
    layout: rest.layout ?? [],
    edits: edits.map((edit) => ({ ...edit, on: true })),
    start: null,
    seed: seed ?? rest.seed ?? 0,
  };
}

/** Draw with an edit: switched on, and its words in the prompt where they are not there yet. */
export function drawWith(edit: EditFile): void {
  const others = drawing.value.edits.filter((each) => each.name !== edit.name);
  const words = edit.noun ? called(edit) : ""; // of several things the prompt says each where it belongs
  const { prompt } = drawing.value;
  change({
    edits: [...others, { name: edit.name, weight: 1, on: true }],
    prompt: words && !prompt.includes(words) ? (prompt ? `${prompt} and a ${words}` : `a ${words}`) : prompt,
  });
}

/** Jobs of this tab that only drew what a picture was before its edits: the Draw room does not turn to them. */
export const drawnBefore = kept<{ ids: string[] }>("before", { ids: [] });

/** The same drawing with every edit at weight 0, which is the model as it was. */
export function before(form: DrawForm, seed: number | null | undefined): DrawForm {
  return { ...form, edits: form.edits.map((edit) => ({ ...edit, weight: 0 })), count: 1, seed: seed ?? form.seed, attention: false };
}

/** Whether a job is that drawing. */
export function isBefore(job: Job, wanted: DrawForm): boolean {
  return job.kind === "draw" && job.form !== undefined && same(job.form as unknown as DrawForm, wanted);
}

const KEYS = ["prompt", "negative", "seed", "steps", "guidance", "scheduler", "width", "height", "layout", "in_region", "controls", "start", "edits"] as const;
const same = (a: DrawForm, b: DrawForm) => KEYS.every((key) => JSON.stringify(a[key] ?? null) === JSON.stringify(b[key] ?? null));
