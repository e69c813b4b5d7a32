// Several edits made into one: where they get in each other's way comes first, then how that is settled.
import { useSignal } from "@preact/signals";
import { api, fieldOf, lineOf, Problem } from "../lib/api";
import type { View } from "../lib/contract";
import { isLive, jobs, keep, refreshEdits } from "../lib/store";
import { say } from "../lib/toasts";
import { Field, Slider } from "../parts/field";
import { JobProgress } from "../parts/progress";
import { Results } from "../parts/results";
import { ViewPage } from "../parts/view";
import { OverlapField, OVERLAPS } from "./draw-edits";
import { Loaded, useView } from "./edits";

interface Refusal {
  text: string;
  view: View | null;
  overlaps: string[];
}

export function Compose({ names, done }: { names: string[]; done: (name: string) => void }) {
  const touching = useView(() => api.interference(names), names.join(" "));
  const weights = useSignal<number[]>(names.map(() => 1));
  const overlap = useSignal("error");
  const output = useSignal(`${names.map((name) => name.replace(/\.edit$/, "")).join("-")}.edit`.slice(-120));
  const refusal = useSignal<Refusal | null>(null);
  const problem = useSignal<{ field: string | null; text: string } | null>(null);
  const busy = useSignal(false);
  const job = useSignal<string | null>(null); // where the base model is needed it takes a while
  const running = job.value ? jobs.value.get(job.value) : undefined;

  const compose = async () => {
    busy.value = true;
    refusal.value = null;
    problem.value = null;
    try {
      const named = output.value.trim();
      const made = await api.compose({ names, weights: weights.value, overlap: overlap.value, output: named.endsWith(".edit") ? named : `${named}.edit` });
      if (made.job) {
        keep(made.job);
        job.value = made.job.id;
      } else if (made.edit) {
        await refreshEdits();
        say(`${made.edit.name} is in the library.`);
        done(made.edit.name);
      }
    } catch (error) {
      if (error instanceof Problem && error.status === 409 && Array.isArray(error.body.overlaps))
        refusal.value = { text: error.message, view: (error.body.view as View | undefined) ?? null, overlaps: error.body.overlaps as string[] };
      else problem.value = { field: fieldOf(error), text: lineOf(error) };
    } finally {
      busy.value = false;
    }
  };
  const at = (field: string) => (problem.value?.field === field ? problem.value.text : null);
  return (
    <form
      class="compose"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        void compose();
      }}
    >
      <h2>One edit of {names.length}</h2>
      <section class="card" aria-label="Where they touch">
        <h3>Where they get in each other's way</h3>
        <Loaded {...touching} />
      </section>
      {refusal.value && (
        <section class="refusal" role="alert" tabIndex={-1}>
          <h3>They were not put together</h3>
          <p>{refusal.value.text}</p>
          {refusal.value.view && <ViewPage view={refusal.value.view} level={4} />}
          <p>Choose what becomes of the weights that both set:</p>
          <div class="row wrap">
            {OVERLAPS.filter(([name]) => refusal.value!.overlaps.includes(name)).map(([name, text]) => (
              <button
                key={name}
                type="button"
                onClick={() => {
                  overlap.value = name;
                  void compose();
                }}
              >
                {name}: {text}
              </button>
            ))}
          </div>
        </section>
      )}
      <fieldset>
        <legend>How far each goes</legend>
        {names.map((name, index) => (
          <Slider key={name} label={name} value={weights.value[index] ?? 1} set={(value) => (weights.value = weights.value.map((each, at) => (at === index ? value : each)))} />
        ))}
      </fieldset>
      <div class="row">
        <OverlapField value={overlap.value} change={(value) => (overlap.value = value)} problem={at("overlap")} />
        <Field label="Name of the file" problem={at("output")}>
          {(control) => <input {...control} type="text" value={output.value} onInput={(event) => (output.value = event.currentTarget.value)} />}
        </Field>
      </div>
      {problem.value && at("overlap") === null && at("output") === null && (
        <p class="alert" role="alert">
          {problem.value.text}
        </p>
      )}
      {running && (
        <section class="card" aria-live="polite">
          {isLive(running) ? <JobProgress job={running} /> : running.error ? <p class="alert">{running.error}</p> : <Results job={running} />}
        </section>
      )}
      <button type="submit" class="primary" disabled={busy.value || (running !== undefined && isLive(running))}>
        {busy.value ? "Composing…" : "Compose"}
      </button>
    </form>
  );
}
