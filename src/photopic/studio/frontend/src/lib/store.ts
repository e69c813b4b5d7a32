// What the page knows: filled by the first answer of the server and kept current by its one stream of events.
import { batch, computed, signal } from "@preact/signals";
import { api, lineOf } from "./api";
import type { EditFile, GuardFile, Job, MethodRow, Point, Sample, State } from "./contract";

export const state = signal<State | null>(null);
export const jobs = signal<ReadonlyMap<string, Job>>(new Map());
export const curves = signal<ReadonlyMap<string, readonly Point[]>>(new Map());
export const samples = signal<ReadonlyMap<string, readonly Sample[]>>(new Map());
export const edits = signal<readonly EditFile[] | null>(null);
export const guards = signal<readonly GuardFile[] | null>(null);
export const methods = signal<readonly MethodRow[] | null>(null);
export const connection = signal<"waiting" | "open" | "lost">("waiting");
export const trouble = signal<string | null>(null); // the page cannot work until this is mended

const LIVE = new Set(["waiting", "running"]);
export const isLive = (job: Job) => LIVE.has(job.state);
export const newest = computed(() => [...jobs.value.values()].sort((a, b) => b.created - a.created));
export const live = computed(() => newest.value.filter(isLive).reverse());

export function keep(job: Job): void {
  const before = jobs.value.get(job.id);
  const after = new Map(jobs.value);
  const known = new Map(before?.results.map((result) => [result.url ?? result.name, result]));
  const results = job.results.map((result) => {
    const old = known.get(result.url ?? result.name);
    return { ...result, view: result.view ?? old?.view ?? null, data: result.data ?? old?.data }; // events leave them out
  });
  after.set(job.id, { ...before, ...job, results }); // as they leave out form and provenance
  batch(() => {
    jobs.value = after;
    if (job.curve) curves.value = new Map(curves.value).set(job.id, job.curve);
    if (job.samples) samples.value = new Map(samples.value).set(job.id, job.samples);
  });
}

export function addPoint(id: string, point: Point): void {
  const known = curves.value.get(id) ?? [];
  if (known.some((each) => each[0] === point[0] && each[2] === point[2])) return; // told twice
  curves.value = new Map(curves.value).set(id, [...known, point]);
}

export function addSample(id: string, sample: Sample): void {
  const known = samples.value.get(id) ?? [];
  if (known.some((each) => each.url === sample.url)) return;
  samples.value = new Map(samples.value).set(id, [...known, sample]);
}

export function forget(id: string): void {
  const left = new Map(jobs.value);
  left.delete(id);
  jobs.value = left;
}

/** Everything that is known of a job, with its form, provenance, curve and samples. */
export async function fetchJob(id: string): Promise<Job> {
  const job = await api.job(id);
  keep(job);
  return job;
}

export async function refreshState(): Promise<boolean> {
  try {
    const got = await api.state();
    batch(() => {
      state.value = got;
      trouble.value = null;
      const all = new Map(jobs.value);
      for (const id of all.keys()) if (!got.jobs.some((job) => job.id === id)) all.delete(id);
      jobs.value = all;
      got.jobs.forEach(keep);
    });
    return true;
  } catch (error) {
    trouble.value = lineOf(error);
    return false;
  }
}

const refreshing = <T>(target: { value: T }, ask: () => Promise<T>) => async () => {
  try {
    target.value = await ask();
  } catch (error) {
    trouble.value = lineOf(error);
  }
};

export const refreshEdits = refreshing<readonly EditFile[] | null>(edits, api.edits);
export const refreshGuards = refreshing<readonly GuardFile[] | null>(guards, api.guards);

export async function needMethods(): Promise<void> {
  if (!methods.value) await refreshing<readonly MethodRow[] | null>(methods, api.methods)();
}
