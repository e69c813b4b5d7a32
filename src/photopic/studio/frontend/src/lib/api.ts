// Requests to the server that this page came from; whatever goes wrong becomes one Problem that a form can place.
import { signal } from "@preact/signals";
import type { EditFile, GuardFile, Job, MethodRow, Picture, State, Uploaded, View } from "./contract";

/** What went wrong: a line for the reader and the field of the form that it is about, where one is known. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly field: string | null = null,
    readonly status = 0,
    readonly body: Record<string, unknown> = {},
  ) {
    super(message);
  }
}

const GONE = "The studio does not answer. See whether `photopic studio` still runs in its terminal, then reload this page.";
const LOCKED = "This page's key is no longer valid: the studio was started again. Open the address that it prints.";

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method, credentials: "same-origin" };
  if (body instanceof FormData) init.body = body;
  else if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "content-type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Problem(GONE);
  }
  const text = await response.text();
  const said = parsed(text);
  if (response.ok) return said as T;
  if (response.status === 401) throw new Problem(LOCKED, null, 401);
  const object = (typeof said === "object" && said !== null ? said : {}) as Record<string, unknown>;
  const line = typeof object.error === "string" ? object.error : `${method} ${path} failed with status ${response.status}.`;
  throw new Problem(line, typeof object.field === "string" ? object.field : null, response.status, object);
}

function parsed(text: string): unknown {
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const part = encodeURIComponent;

function files(name: string, chosen: readonly File[]): FormData {
  const form = new FormData();
  for (const file of chosen) form.append(name, file, file.name);
  return form;
}

export const api = {
  state: () => request<State>("GET", "/api/state"),
  loadModel: (name: string) => request<Job>("POST", "/api/model", { name }),
  methods: () => request<MethodRow[]>("GET", "/api/methods"),
  jobs: () => request<Job[]>("GET", "/api/jobs"),
  job: (id: string) => request<Job>("GET", `/api/jobs/${part(id)}`),
  start: (kind: string, form: object) => request<Job>("POST", "/api/jobs", { kind, form }),
  cancel: (id: string) => request<unknown>("DELETE", `/api/jobs/${part(id)}`),
  again: (id: string, changes: object) => request<Job>("POST", `/api/jobs/${part(id)}/again`, { changes }),
  upload: (chosen: readonly File[]) => request<Uploaded>("POST", "/api/pictures", files("files", chosen)),
  uploadFile: (chosen: File) => request<{ id: string; name: string; bytes: number }>("POST", "/api/uploads", files("file", [chosen])),
  examples: () => request<{ pictures: (Picture & { caption?: string })[]; noun: string; token: string; prompt: string }>("POST", "/api/examples"),
  edits: () => request<EditFile[]>("GET", "/api/edits"),
  uploadEdits: (chosen: readonly File[]) => request<unknown>("POST", "/api/edits", files("files", chosen)),
  deleteEdit: (name: string) => request<unknown>("DELETE", `/api/edits/${part(name)}`),
  inspect: (name: string) => request<View>("GET", `/api/edits/${part(name)}/view`),
  diff: (a: string, b: string) => request<View>("POST", "/api/edits/diff", { a, b }),
  interference: (names: string[]) => request<View>("POST", "/api/edits/interference", { names }),
  verify: (name: string) => request<Job>("POST", "/api/edits/verify", { name }),
  compose: (form: { names: string[]; weights: number[]; overlap: string; output: string }) =>
    request<{ edit?: EditFile; job?: Job }>("POST", "/api/edits/compose", form),
  guards: () => request<GuardFile[]>("GET", "/api/guards"),
  deleteGuard: (name: string) => request<unknown>("DELETE", `/api/guards/${part(name)}`),
};

export const editAddress = (name: string) => `/api/edits/${part(name)}`;
export const guardAddress = (name: string) => `/api/guards/${part(name)}`;
export const thumbnail = (url: string, size = 256) => `${url}${url.includes("?") ? "&" : "?"}size=${size}`;

export const uploading = signal(0); // uploads under way: a form waits for them

/** Uploads many pictures in requests that stay below the server's limit, and adds up what came of it. */
export async function uploadAll(chosen: readonly File[], told: (done: number, of: number) => void = () => {}): Promise<Uploaded> {
  const all: Uploaded = { pictures: [], refused: [] };
  const BYTES = 40_000_000; // a request; the server takes up to 200 MB
  let batch: File[] = [];
  let size = 0;
  const send = async () => {
    if (!batch.length) return;
    const got = await api.upload(batch);
    all.pictures.push(...got.pictures);
    all.refused.push(...got.refused);
    batch = [];
    size = 0;
  };
  uploading.value++;
  try {
    for (const [index, file] of chosen.entries()) {
      if (batch.length >= 40 || size + file.size > BYTES) {
        await send();
        told(index, chosen.length);
      }
      batch.push(file);
      size += file.size;
    }
    await send();
    told(chosen.length, chosen.length);
    return all;
  } finally {
    uploading.value--;
  }
}

export const lineOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
export const fieldOf = (error: unknown) => (error instanceof Problem ? error.field : null);
