// The one stream of events of this tab. A hidden tab lets go of it, so that many tabs do not use up the browser's connections.
import { batch } from "@preact/signals";
import type { Job, ModelState } from "./contract";
import { addPoint, addSample, connection, keep, refreshEdits, refreshGuards, refreshState, state, fetchJob, forget, isLive, needMethods, jobs } from "./store";
import { say } from "./toasts";

let source: EventSource | null = null;
let queue: (() => void)[] = [];
let scheduled = false;

/** Events of one frame are shown together: a burst of them costs one rendering. */
function later(change: () => void): void {
  queue.push(change);
  if (scheduled) return;
  scheduled = true;
  setTimeout(() => {
    const changes = queue;
    queue = [];
    scheduled = false;
    batch(() => changes.forEach((each) => each()));
  }, 50);
}

function heard(job: Job): void {
  const before = jobs.value.get(job.id);
  keep(job);
  if (before && isLive(before) && !isLive(job)) {
    if (job.state === "done") say(`Done: ${job.title}`);
    if (job.state === "failed") say(`Failed: ${job.title}. ${job.error ?? ""}`, "problem");
    void fetchJob(job.id).catch(() => undefined); // now with its provenance
  }
}

function listen(): void {
  if (source) return;
  const stream = new EventSource(`/api/events?after=${state.value?.event ?? ""}`);
  source = stream;
  const on = <T>(name: string, change: (data: T) => void) =>
    stream.addEventListener(name, (event) => {
      const data = JSON.parse((event as MessageEvent<string>).data) as T;
      later(() => change(data));
    });
  stream.onopen = () => {
    const again = connection.value === "lost";
    connection.value = "open";
    if (again) void refreshAll();
  };
  stream.onerror = () => {
    connection.value = "lost";
    if (stream.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(() => document.hidden || void join(), 2000);
    }
  };
  on<Job>("job", heard);
  on<{ job: string; step: number; stage?: string; numbers: Record<string, number> }>("numbers", (data) =>
    addPoint(data.job, data.stage === undefined ? [data.step, data.numbers] : [data.step, data.numbers, data.stage]),
  );
  on<{ job: string; url: string; step: number }>("sample", (data) => addSample(data.job, { url: data.url, step: data.step }));
  on<ModelState>("model", (model) => {
    if (state.value) state.value = { ...state.value, model: { ...state.value.model, ...model } }; // names come with the state alone
  });
  on<{ job: string }>("removed", (data) => forget(data.job));
  on("lost", () => void refreshAll()); // the server no longer keeps all that this page missed
  on("edits", () => void refreshEdits());
  on("guards", () => void refreshGuards());
}

function stop(): void {
  source?.close();
  source = null;
}

/** What there is now, then what happens from there on; where the server does not answer, the page says why and asks again. */
async function join(): Promise<void> {
  if (await refreshAll()) {
    listen();
    void needMethods(); // before a room asks: it takes the server a while
  }
  else setTimeout(() => document.hidden || void join(), 3000);
}

async function refreshAll(): Promise<boolean> {
  const [answered] = await Promise.all([refreshState(), refreshEdits()]);
  for (const job of jobs.value.values()) if (isLive(job)) void fetchJob(job.id).catch(() => undefined);
  return answered;
}

export function begin(): void {
  void join();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else void join();
  });
  addEventListener("pagehide", stop);
}
