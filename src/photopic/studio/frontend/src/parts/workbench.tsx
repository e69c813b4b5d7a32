// A method's form beside what it last made: the rooms that are about one method at a time share it.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { ComponentChildren } from "preact";
import type { Job } from "../lib/contract";
import { fetchJob, curves, isLive, methods, needMethods, newest } from "../lib/store";
import { duration } from "../lib/words";
import { Curves } from "./curve";
import { MethodForm } from "./method-form";
import { JobHead, JobProgress } from "./progress";
import { Results } from "./results";

const commandOf = (job: Job) => (job.form?.command as string | undefined) ?? null;
export const ofMethod = (job: Job, command: string) => job.kind === "method" && (commandOf(job) === command || (commandOf(job) === null && job.title.startsWith(command)));

interface Props {
  command: string;
  first?: readonly string[];
  verb?: string;
  intro?: ComponentChildren;
  empty: ComponentChildren;
}

export function Workbench({ command, first, verb, intro, empty }: Props) {
  const started = useSignal<string | null>(null);
  useEffect(() => void needMethods(), []);
  const found = methods.value?.find((each) => each.command === command);
  const mine = newest.value.filter((job) => job.id === started.value || ofMethod(job, command));
  const job = mine[0];
  return (
    <div class="two bench">
      <div class="panel">
        {intro}
        {found ? <MethodForm key={command} row={found} {...(first ? { first } : {})} {...(verb ? { verb } : {})} job={job} started={(made) => (started.value = made.id)} /> : <p class="quiet reading">{methods.value ? `This version has no ${command}.` : "Reading…"}</p>}
      </div>
      <div class="outcome">{job ? <JobOutcome key={job.id} job={job} /> : <div class="empty">{empty}</div>}</div>
    </div>
  );
}

/** A job of any kind: how far it is, its curves, and what came of it. */
export function JobOutcome({ job }: { job: Job }) {
  const points = curves.value.get(job.id) ?? [];
  useEffect(() => void fetchJob(job.id).catch(() => undefined), [job.id]);
  const took = job.started && job.ended ? job.ended - job.started : null;
  return (
    <>
      <JobHead job={job} />
      <div class="outcome-line">
        {isLive(job) && <JobProgress job={job} />}
        {job.state === "failed" && <p class="alert">{job.error}</p>}
        {job.state === "done" && took !== null && <p class="quiet">Took {duration(took)}.</p>}
      </div>
      {points.length > 1 && <Curves points={points} total={job.total} />}
      <Results job={job} />
    </>
  );
}
