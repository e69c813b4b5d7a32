// The Runs room: everything that was made, how, and the same again with one thing changed.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, lineOf } from "../lib/api";
import type { DrawForm, Job } from "../lib/contract";
import { restore } from "../lib/drawing";
import { address, go, route } from "../lib/route";
import { fetchJob, isLive, jobs, keep, newest, state } from "../lib/store";
import { say } from "../lib/toasts";
import { cell, duration, moment } from "../lib/words";
import { Alert, Field } from "../parts/field";
import { Cancel, said } from "../parts/progress";
import { Facts } from "../parts/view";
import { JobOutcome } from "../parts/workbench";

const KINDS: [string, string][] = [["", "Everything"], ["draw", "Drawings"], ["subject", "Subjects"], ["method", "Methods"], ["check", "Checks"], ["verify", "Verifications"], ["demo", "Demos"], ["model", "Models"]];

export function Runs() {
  const kind = useSignal("");
  const shown = newest.value.filter((job) => !kind.value || job.kind === kind.value);
  const job = jobs.value.get(route.value.rest);
  return (
    <div class="room two runs">
      <section class="panel" aria-label="Runs">
        <Field label="Show">
          {(control) => (
            <select {...control} value={kind.value} onChange={(event) => (kind.value = event.currentTarget.value)}>
              {KINDS.map(([name, text]) => (
                <option key={name} value={name}>
                  {text}
                </option>
              ))}
            </select>
          )}
        </Field>
        {shown.length === 0 && <p class="help">Nothing yet. What you draw, teach and measure is listed here with everything that it was made from.</p>}
        <Reports />
        <ul class="run-list">
          {shown.slice(0, 200).map((each) => (
            <RunRow key={each.id} job={each} on={each.id === job?.id} />
          ))}
        </ul>
      </section>
      <section class="outcome" aria-label="The chosen run">
        {job ? (
          <Run key={job.id} job={job} />
        ) : (
          <div class="empty">
            <h2>Everything that was made</h2>
            <p>Choose a run to see what came of it, from which settings, model and edits, and to do it again with one thing changed.</p>
          </div>
        )}
      </section>
    </div>
  );
}

/** Pages of `photopic demo` that lie in the workspace, and the demo itself. */
function Reports() {
  const reports = state.value?.reports ?? [];
  const subjects = state.value?.subjects ?? [];
  const subject = useSignal("");
  const start = async () => {
    try {
      const job = await api.start("demo", { subject: subject.value || subjects[0] });
      keep(job);
      go("runs", job.id);
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  return (
    <details class="reports">
      <summary>The demo and its reports{reports.length ? ` (${reports.length})` : ""}</summary>
      <ul>
        {reports.map((report) => (
          <li key={report.url}>
            <a href={report.url} target="_blank" rel="noopener">
              {report.name}
            </a>
          </li>
        ))}
      </ul>
      {subjects.length > 0 && (
        <div class="row">
          <Field label="Subject of the demo" help="It is taught, drawn and put together with another; this takes minutes.">
            {(control) => (
              <select {...control} value={subject.value || subjects[0]} onChange={(event) => (subject.value = event.currentTarget.value)}>
                {subjects.map((name) => (
                  <option key={name} value={name}>
                    {name}
                  </option>
                ))}
              </select>
            )}
          </Field>
          <button type="button" onClick={() => void start()}>
            Run it
          </button>
        </div>
      )}
    </details>
  );
}

function RunRow({ job, on }: { job: Job; on: boolean }) {
  const picture = job.results.find((result) => result.kind === "picture")?.url;
  return (
    <li class={on ? "on" : ""}>
      <a href={address("runs", job.id)} aria-current={on ? "true" : undefined}>
        {picture ? <img src={picture} alt="" width="44" height="44" loading="lazy" /> : <span class="run-kind">{job.kind.slice(0, 1).toUpperCase()}</span>}
        <span>
          <b>{job.title}</b>
          <span class="quiet">
            <span class={`state ${job.state}`}>{said(job)}</span> {moment(job.created)}
          </span>
        </span>
      </a>
      <Cancel job={job} class="link" />
    </li>
  );
}

function Run({ job }: { job: Job }) {
  useEffect(() => void fetchJob(job.id).catch((error: unknown) => say(lineOf(error), "problem")), [job.id, job.state]);
  const goOn = async () => {
    try {
      const made = await api.again(job.id, {});
      keep(made);
      go("runs", made.id);
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  const took = job.started && job.ended ? duration(job.ended - job.started) : "";
  return (
    <>
      <JobOutcome job={job} />
      <div class="row wrap">
        {job.state === "interrupted" && (
          <button type="button" class="primary" onClick={() => void goOn()}>
            Go on where it stopped
          </button>
        )}
        {!isLive(job) && <Forget job={job} />}
        {job.kind === "draw" && job.form && (
          <button
            type="button"
            onClick={() => {
              restore(job.form as unknown as DrawForm);
              go("draw");
            }}
          >
            Open in Draw
          </button>
        )}
      </div>
      {job.form && !isLive(job) && <Again job={job} form={job.form} />}
      {job.form && (
        <details open>
          <summary>Settings</summary>
          <Facts facts={leaves(job.form).map((leaf) => [leaf.path.join("."), leaf.value] as const)} />
        </details>
      )}
      {job.provenance && (
        <details>
          <summary>Provenance</summary>
          <Facts facts={[...(took ? [["took", took] as const] : []), ...Object.entries(job.provenance)]} />
        </details>
      )}
    </>
  );
}

function Forget({ job }: { job: Job }) {
  const sure = useSignal(false);
  const forget = async () => {
    try {
      await api.cancel(job.id); // of a job that is over it deletes what is kept
      go("runs");
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  return (
    <button type="button" class={sure.value ? "danger" : "quiet"} onBlur={() => (sure.value = false)} onClick={() => (sure.value ? void forget() : (sure.value = true))}>
      {sure.value ? "Delete it and its files for good" : "Delete"}
    </button>
  );
}

interface Leaf {
  path: string[];
  value: unknown;
}

/** The settings of a form by their names; lists count as one setting. */
function leaves(form: Record<string, unknown>, above: string[] = []): Leaf[] {
  return Object.entries(form).flatMap(([name, value]) => {
    const path = [...above, name];
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return leaves(value as Record<string, unknown>, path);
    return [{ path, value }];
  });
}

function Again({ job, form }: { job: Job; form: Record<string, unknown> }) {
  const offered = leaves(form).filter((leaf) => leaf.path.join(".") !== "command");
  const chosen = useSignal(offered.find((leaf) => leaf.path.at(-1) === "seed")?.path.join(".") ?? offered[0]?.path.join(".") ?? "");
  const text = useSignal<string | null>(null);
  const problem = useSignal<string | null>(null);
  const leaf = offered.find((each) => each.path.join(".") === chosen.value);
  if (!leaf) return null;
  const current = typeof leaf.value === "string" ? leaf.value : JSON.stringify(leaf.value);
  const send = async () => {
    problem.value = null;
    try {
      const value = parsed(text.value ?? current, leaf.value);
      const changes = leaf.path.reduceRight<unknown>((inner, name) => ({ [name]: inner }), value) as object;
      const made = await api.again(job.id, changes);
      keep(made);
      go("runs", made.id);
    } catch (error) {
      problem.value = lineOf(error);
    }
  };
  return (
    <form
      class="card again"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <h3>Again with one thing changed</h3>
      <div class="row">
        <Field label="What">
          {(control) => (
            <select
              {...control}
              value={chosen.value}
              onChange={(event) => {
                chosen.value = event.currentTarget.value;
                text.value = null;
              }}
            >
              {offered.map((each) => (
                <option key={each.path.join(".")} value={each.path.join(".")}>
                  {each.path.join(".")}
                </option>
              ))}
            </select>
          )}
        </Field>
        <Field label="Its new value" help={`It was ${cell(leaf.value)}.`}>
          {(control) => <input {...control} type="text" value={text.value ?? current} onInput={(event) => (text.value = event.currentTarget.value)} />}
        </Field>
        <button type="submit" class="primary">
          Run again
        </button>
      </div>
      <Alert text={problem.value} />
    </form>
  );
}

/** A typed value as what it replaces: text stays text, anything else is read as JSON. */
function parsed(text: string, before: unknown): unknown {
  if (typeof before === "string") return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    if (before === null) return text;
    throw new Error(`${text}: expected a value like ${JSON.stringify(before)}.`);
  }
}
