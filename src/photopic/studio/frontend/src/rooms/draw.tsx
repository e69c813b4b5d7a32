// The Draw room: a prompt, edits with their weights, a layout, and the pictures that come of them.
import { useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { api, lineOf } from "../lib/api";
import type { DrawForm, Job } from "../lib/contract";
import { change, drawing, drawnBefore, formOf, restore } from "../lib/drawing";
import { reveal } from "../lib/reveal";
import { fetchJob, isLive, keep, newest, state } from "../lib/store";
import { useFailure, useSubmit, type Submit } from "../lib/submit";
import { say } from "../lib/toasts";
import { duration, plural } from "../lib/words";
import { Drop } from "../parts/drop";
import { Alert, Field, NumberField, Switch } from "../parts/field";
import { Fold } from "../parts/fold";
import { JobHead, JobProgress } from "../parts/progress";
import { Results } from "../parts/results";
import { EditChooser } from "./draw-edits";
import { LayoutEditor } from "./draw-layout";
import { StartPicture } from "./draw-start";

const OWN = ["prompt", "negative", "edits", "overlap", "count", "seed", "steps", "guidance", "scheduler", "width", "height", "controls", "layout", "start"];

const MORE = ["steps", "guidance", "negative", "scheduler", "width", "height", "controls"];

export function Draw() {
  const submit = useSubmit();
  const chosen = useSignal<string | null>(null); // a run of the history; null follows the newest
  const drawn = newest.value.filter((job) => job.kind === "draw" && !drawnBefore.value.ids.includes(job.id));
  const job = drawn.find((each) => each.id === chosen.value) ?? drawn[0];
  useFailure(job, submit);

  const draw = () =>
    submit.run(async () => {
      const form = drawing.value;
      if (!form.prompt.trim()) return submit.fail("prompt", "Say what to draw, such as: a bear on a red background.");
      const unnamed = form.layout.findIndex((box) => !box.words.trim());
      if (unnamed >= 0) return submit.fail(`layout.${unnamed}.words`, "Say which words of the prompt belong in this box.");
      if (!form.fixed) change({ seed: Math.floor(Math.random() * 1_000_000) });
      const sent = formOf(drawing.value);
      const job = await api.start("draw", sent);
      keep({ ...job, form: sent as unknown as Record<string, unknown> });
      chosen.value = job.id;
      reveal();
    });

  return (
    <div class="room two draw">
      <form
        class="panel"
        noValidate
        aria-label="What to draw"
        onInput={submit.edited}
        onSubmit={(event) => {
          event.preventDefault();
          void draw();
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void draw();
        }}
      >
        <Prompt submit={submit} />
        <EditChooser submit={submit} />
        <LayoutEditor submit={submit} />
        <StartPicture submit={submit} />
        <Settings submit={submit} />
        <Alert text={submit.rest(OWN)} />
        <div class="sticky">
          <button type="submit" class="primary big" disabled={submit.busy.value}>
            {submit.busy.value ? "Sending…" : `Draw ${plural(drawing.value.count, "picture")}`}
          </button>
        </div>
      </form>
      <section class="outcome" aria-label="What was drawn">
        {job ? <Drawn job={job} /> : <Nothing />}
        <History drawn={drawn} current={job} choose={(id) => (chosen.value = id)} />
      </section>
    </div>
  );
}

function Prompt({ submit }: { submit: Submit }) {
  const form = drawing.value;
  const dropped = async (files: File[]) => {
    try {
      const { pictures, refused } = await api.upload(files.slice(0, 1));
      const settings = pictures[0]?.settings;
      if (settings?.form) {
        restore(settings.form, settings.seed);
        const missing = settings.missing ?? [];
        say(missing.length ? `The form is as it was, but for edits that are not here: ${missing.join(", ")}.` : "The form is as it was when this picture was drawn.");
      } else say(refused[0]?.error ?? "This picture holds no settings: it was not drawn here, or they were removed from it.", "problem");
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  return (
    <>
      <Field label="Prompt" problem={submit.at("prompt")}>
        {(control) => (
          <textarea {...control} rows={3} value={form.prompt} placeholder="a cat left of a tree on a green background" onInput={(event) => change({ prompt: event.currentTarget.value })} />
        )}
      </Field>
      <Drop label="Restore from a picture" small many={false} accept="image/png,.png" help="Drop a picture that was drawn here: its settings fill the form." take={(files) => void dropped(files)} />
    </>
  );
}

function Settings({ submit }: { submit: Submit }) {
  const form = drawing.value;
  const side = state.value?.model.size;
  const own = side ? { placeholder: String(side) } : {};
  const number = (key: "count" | "seed" | "steps" | "guidance") => (value: number | null) => change({ [key]: value ?? 0 });
  return (
    <>
      <div class="row">
        <NumberField label="Pictures" value={form.count} min={1} max={64} set={number("count")} problem={submit.at("count")} />
        <NumberField label="Seed" value={form.seed} min={0} set={number("seed")} problem={submit.at("seed")} />
        <button type="button" class="quiet" onClick={() => change({ seed: Math.floor(Math.random() * 1_000_000) })}>
          New seed
        </button>
      </div>
      <Switch label="Keep the seed" on={form.fixed} set={(fixed) => change({ fixed })} help="The same seed draws the same picture; off, every drawing has a new one." />
      <Switch label="Show where words are read" on={form.attention} set={(attention) => change({ attention })} />
      <Fold summary="More options" wanted={MORE.some((field) => submit.at(field))}>
        <div class="row">
          <NumberField label="Steps" value={form.steps} min={1} max={1000} set={number("steps")} problem={submit.at("steps")} />
          <NumberField label="Guidance" value={form.guidance} min={1} step={0.5} set={number("guidance")} problem={submit.at("guidance")} />
        </div>
        <div class="row">
          <NumberField label="Width" help="pixels" value={form.width} min={1} max={4096} {...own} set={(width) => change({ width })} problem={submit.at("width")} />
          <NumberField label="Height" help="pixels" value={form.height} min={1} max={4096} {...own} set={(height) => change({ height })} problem={submit.at("height")} />
        </div>
        <Field label="Lead away from" help="What the pictures should not be, such as: blurred." problem={submit.at("negative")}>
          {(control) => <input {...control} type="text" value={form.negative ?? ""} onInput={(event) => change({ negative: event.currentTarget.value || null })} />}
        </Field>
        <Field label="Sampler" problem={submit.at("scheduler")}>
          {(control) => (
            <select {...control} value={form.scheduler ?? ""} onChange={(event) => change({ scheduler: event.currentTarget.value || null })}>
              <option value="">the model's own</option>
              {(state.value?.schedulers ?? []).map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          )}
        </Field>
        <Field label="Further controls" help="As on the command line, one a line, such as adaptive_guidance:threshold=0.99." problem={submit.at("controls")}>
          {(control) => (
            <textarea {...control} rows={2} value={form.controls.join("\n")} onChange={(event) => change({ controls: event.currentTarget.value.split("\n").filter((line) => line.trim()) })} />
          )}
        </Field>
      </Fold>
    </>
  );
}

function Drawn({ job }: { job: Job }) {
  const form = job.form as unknown as DrawForm | undefined;
  const title = form?.prompt ?? job.title;
  return (
    <>
      <JobHead job={job} title={title} />
      <div class="outcome-line">
        {isLive(job) && <JobProgress job={job} numbers={false} />}
        {job.state === "failed" && <p class="alert">{job.error}</p>}
        {job.state === "done" && job.started !== null && job.ended !== null && <p class="quiet">{plural(job.results.filter((result) => result.kind === "picture").length, "picture")} in {duration(job.ended - job.started)}</p>}
        {job.state === "cancelled" && <p class="quiet">Cancelled. Nothing half made was kept.</p>}
        {job.state === "interrupted" && <p class="quiet">The studio stopped while this was drawn; the Runs room goes on with it.</p>}
      </div>
      <Results job={job} expected={form?.count ?? 0} />
    </>
  );
}

function Nothing() {
  const examples = useMemo(() => ["a bear on a red background", "a cat left of a tree on a green background", "two apples on a blue background"], []);
  return (
    <div class="empty">
      <h2>Draw something</h2>
      <p>Write what to draw on the left, or begin with one of these. To draw a thing of your own, teach it in the Subject room first: its edit then appears among the edits here.</p>
      <div class="row wrap">
        {examples.map((prompt) => (
          <button key={prompt} type="button" class="quiet" onClick={() => change({ prompt })}>
            {prompt}
          </button>
        ))}
      </div>
    </div>
  );
}

function History({ drawn, current, choose }: { drawn: readonly Job[]; current: Job | undefined; choose: (id: string) => void }) {
  const shown = drawn.filter((job) => job.results.some((result) => result.kind === "picture")).slice(0, 24);
  if (shown.length < 2) return null;
  return (
    <nav class="history" aria-label="Earlier drawings">
      <h3>Earlier</h3>
      <ul>
        {shown.map((job) => (
          <li key={job.id}>
            <button
              type="button"
              class={`tile ${job.id === current?.id ? "on" : ""}`}
              aria-current={job.id === current?.id ? "true" : undefined}
              aria-label={`Show ${job.title}`}
              onClick={() => {
                choose(job.id);
                if (!job.form) void fetchJob(job.id).catch(() => undefined);
              }}
            >
              <img src={job.results.find((result) => result.kind === "picture")?.url ?? ""} alt="" width="56" height="56" loading="lazy" />
            </button>
          </li>
        ))}
      </ul>
    </nav>
  );
}
