// How far a job is, and the button that stops it.
import { useSignal } from "@preact/signals";
import { api, lineOf } from "../lib/api";
import type { Job } from "../lib/contract";
import { isLive } from "../lib/store";
import { say } from "../lib/toasts";
import { duration, number, sentence } from "../lib/words";

const SAID: Record<Job["state"], string> = {
  waiting: "Waiting for its turn",
  running: "Running",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  interrupted: "Interrupted",
};

export const said = (job: Job) => SAID[job.state] ?? job.state;

/** What a job is called and how it stands, with the button that stops it. */
export function JobHead({ job, title = job.title }: { job: Job; title?: string }) {
  return (
    <header class="outcome-head">
      <h2>{title}</h2>
      <span class={`state ${job.state}`}>{said(job)}</span>
      <Cancel job={job} />
    </header>
  );
}

export function JobProgress({ job, numbers = true }: { job: Job; numbers?: boolean }) {
  const stage = job.state === "running" ? sentence(job.stage || "starting") : said(job);
  const known = job.state === "running" && job.total > 0;
  return (
    <div class="progress">
      <div class="progress-line">
        <span class="stage">{stage}</span>
        {known && (
          <span class="quiet tabular">
            {job.done} of {job.total}
            {job.eta_s !== null && job.eta_s > 0 ? `, ${duration(job.eta_s)} left` : ""}
          </span>
        )}
      </div>
      <progress aria-label={`Progress of ${job.title}`} {...(known ? { value: job.done, max: job.total } : job.state === "waiting" ? { value: 0 } : {})} />
      {numbers && Object.keys(job.numbers).length > 0 && (
        <p class="quiet tabular numbers">
          {Object.entries(job.numbers).map(([name, value]) => (
            <span key={name}>
              {name} {number(value)}
            </span>
          ))}
        </p>
      )}
    </div>
  );
}

export function Cancel({ job, class: name = "quiet" }: { job: Job; class?: string }) {
  const asked = useSignal(false);
  if (!isLive(job)) return null;
  const cancel = async () => {
    asked.value = true;
    try {
      await api.cancel(job.id);
    } catch (error) {
      asked.value = false;
      say(lineOf(error), "problem");
    }
  };
  return (
    <button type="button" class={name} disabled={asked.value} onClick={() => void cancel()}>
      {asked.value ? "Stopping…" : "Cancel"}
    </button>
  );
}
