// The JSON that the server speaks: one type for each thing that crosses the line.

export type Box = [x0: number, y0: number, x1: number, y1: number]; // shares of width and height, 0 to 1
export type Scalar = string | number | boolean | null;

export interface ModelState {
  name: string;
  status: "loading" | "ready" | "failed";
  error: string | null;
  size: number | null;
  family: string | null;
  names?: string[]; // that can be chosen
}

export interface State {
  version: string;
  model: ModelState;
  event: number; // the last that was told before this was answered
  schedulers?: string[];
  subjects?: string[];
  reports?: { name: string; url: string }[];
  workspace: string;
  jobs: Job[];
  nouns: string[];
}

export type JobState = "waiting" | "running" | "done" | "failed" | "cancelled" | "interrupted";

export interface WordMap {
  word: string;
  maps: string[]; // addresses of the picture with its map over it: bright where the word is read most
}

export interface Result {
  kind: "picture" | "edit" | "page" | "view" | "guard" | "verdicts" | "file";
  url?: string | null;
  name: string;
  width?: number | null;
  height?: number | null;
  seed?: number | null;
  caption?: string | null;
  words?: WordMap[] | null;
  view?: View | null;
  data?: unknown;
}

export interface Job {
  id: string;
  kind: "draw" | "subject" | "method" | "check" | string;
  title: string;
  state: JobState;
  created: number;
  started: number | null;
  ended: number | null;
  stage: string;
  done: number;
  total: number;
  eta_s: number | null;
  numbers: Record<string, number>;
  warnings: string[];
  error: string | null;
  field?: string | null;
  form?: Record<string, unknown>;
  provenance?: Record<string, unknown> | null;
  results: Result[];
  curve?: Point[];
  samples?: Sample[];
}

export type Point = [step: number, numbers: Record<string, number>, stage?: string]; // steps begin anew with each stage

export interface Sample {
  url: string;
  step: number;
}

export interface EditFile {
  name: string;
  bytes: number;
  method: string | null;
  noun: string | null;
  token: string | null;
  created: number | string | null;
  weights: number | null;
  model: string | null;
}

export interface GuardFile {
  name: string;
  bytes: number;
  created: number | string | null;
  model: string | null;
  checks: string[];
}

export interface Picture {
  id: string;
  name: string;
  width: number;
  height: number;
  url: string;
  settings: { kind?: string; form?: Partial<DrawForm>; seed?: number; missing?: string[] } | null;
}

export interface Uploaded {
  pictures: Picture[];
  refused: { name: string; error: string }[];
}

export interface LayoutBox {
  words: string;
  box: Box;
  edit: string | null;
  strength: number | null;
}

export interface DrawForm {
  prompt: string;
  negative: string | null;
  edits: { name: string; weight: number }[];
  overlap: string;
  count: number;
  seed: number;
  steps: number;
  guidance: number;
  scheduler: string | null;
  width: number | null;
  height: number | null;
  start: { picture: string; strength: number | null; mask: string | null } | null;
  layout: LayoutBox[];
  in_region: boolean;
  controls: string[];
  attention: boolean;
}

export interface SubjectForm {
  pictures: { id: string; crop: Box | null; caption: string | null }[];
  noun: string;
  token: string;
  output: string;
  options: Record<string, unknown>;
  sample_every: number;
}

export type FieldKind =
  | "text" | "integer" | "number" | "flag" | "choice" | "model" | "edit" | "edits" | "pictures" | "file" | "words";

export interface Field {
  name: string;
  flag: string | null;
  label: string;
  help: string;
  kind: FieldKind;
  required: boolean;
  default: Scalar | Scalar[];
  choices?: Scalar[] | null;
  words?: string[] | null; // a text that begins with one of these may stand in place of pictures
  labelled?: boolean; // pictures come in folders, one a class
  min?: number | null;
  max?: number | null;
  above?: number | null;
  below?: number | null;
  many?: boolean;
  advanced?: boolean;
}

export interface MethodRow {
  command: string;
  group: string;
  help: string;
  paper: string | null;
  result: string;
  fields: Field[];
  examples: string[];
}

// A view: how a result wants to be shown (photopic.core.view)
export interface View {
  title?: string;
  lead?: string;
  facts?: [string, string][];
  sections: { title: string; blocks: Block[] }[];
}

export interface FigureBlock {
  image: string;
  caption?: string;
  alt?: string;
  width?: number | null;
  badge?: string;
}

export type Block =
  | { kind: "text"; text: string }
  | { kind: "note"; text: string; title?: string }
  | { kind: "code"; text: string }
  | ({ kind: "figure" } & FigureBlock)
  | { kind: "gallery"; figures: FigureBlock[]; caption?: string }
  | { kind: "picture_rows"; rows: [string, string[]][]; caption?: string }
  | { kind: "table"; header: string[]; rows: Scalar[][]; caption?: string }
  | { kind: "bars"; bars: [string, number, string][]; caption?: string }
  | { kind: "intervals"; items: Interval[]; caption?: string }
  | LinesBlock;

export interface Interval {
  label: string;
  value: number;
  low: number;
  high: number;
  strong?: boolean;
}

export interface LinesBlock {
  kind: "lines";
  lines: [string, [number, number][]][];
  x_label?: string;
  y_label?: string;
  x_names?: string[];
  log_x?: boolean;
  log_y?: boolean;
  from_zero?: boolean;
  ranges?: [number, number, number][][];
  caption?: string;
}

export interface Verdicts {
  guard: string;
  model: string;
  checks: string[];
  accepted: number;
  rejected: number;
  caveats: string[];
  pictures: VerdictRow[];
}

export interface VerdictRow {
  id?: string;
  picture: string;
  label: string;
  probability: number;
  accepted: boolean;
  reason: string;
  evidence: Record<string, Record<string, number>>;
}

export interface DependencyRow {
  class: string;
  dependent: boolean;
  held_out_error: number | null;
  support: string[];
  theta: number[];
}
