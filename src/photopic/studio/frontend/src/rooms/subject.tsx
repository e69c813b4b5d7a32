// The Subject room: a few pictures of a thing become an edit that draws it.
import { useComputed, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, lineOf, thumbnail, uploadAll, uploading } from "../lib/api";
import { style } from "../lib/boxes";
import type { Box, Job, MethodRow, Picture, SubjectForm } from "../lib/contract";
import { sent, type Values } from "../lib/fields";
import { kept } from "../lib/kept";
import { reveal } from "../lib/reveal";
import { curves, fetchJob, isLive, keep, methods, needMethods, newest, samples, state } from "../lib/store";
import { useFailure, useSubmit, type Submit } from "../lib/submit";
import { say } from "../lib/toasts";
import { duration, plural } from "../lib/words";
import { Cropper } from "../parts/cropper";
import { Curves } from "../parts/curve";
import { Drop } from "../parts/drop";
import { Alert, Field, NumberField } from "../parts/field";
import { Fold } from "../parts/fold";
import { MethodField } from "../parts/method-field";
import { JobHead, JobProgress, said } from "../parts/progress";
import { EditMade, Results } from "../parts/results";

interface Taught {
  picture: Picture;
  crop: Box | null;
  caption: string;
}

interface SubjectDraft {
  pictures: Taught[];
  noun: string;
  token: string;
  output: string;
  steps: number | null;
  sample_every: number;
  options: Values;
}

const draft = kept<SubjectDraft>("subject", { pictures: [], noun: "", token: "", output: "", steps: null, sample_every: 25, options: {} });
const change = (part: Partial<SubjectDraft>) => (draft.value = { ...draft.value, ...part });
const COMMAND = "locate neurons"; // whose options the room offers
const MOST = 10;

export function Subject() {
  const submit = useSubmit();
  const taught = newest.value.filter((job) => job.kind === "subject");
  const job = taught[0];
  useEffect(() => void needMethods(), []);
  useFailure(job, submit);
  const teach = () =>
    submit.run(async () => {
      const form = draft.value;
      if (!form.pictures.length) return submit.fail("pictures", "Choose 1 to 10 pictures of the thing; 4 to 6 from several sides do well.");
      if (!form.noun.trim()) return submit.fail("noun", "Say what kind of thing it is, such as: bear.");
      const sentForm = formOf(form);
      const made = await api.start("subject", sentForm);
      keep({ ...made, form: sentForm as unknown as Record<string, unknown> });
      reveal();
    });
  return (
    <div class="room two subject">
      <form
        class="panel"
        noValidate
        aria-label="What to teach"
        onInput={submit.edited}
        onSubmit={(event) => {
          event.preventDefault();
          void teach();
        }}
      >
        <PicturesOf submit={submit} />
        <Names submit={submit} />
        <Options submit={submit} />
        <Alert text={submit.rest(["pictures", "noun", "token", "output", "sample_every", "options"])} />
        <div class="sticky">
          <button type="submit" class="primary big" disabled={submit.busy.value || uploading.value > 0}>
            {uploading.value > 0 ? "Uploading…" : submit.busy.value ? "Sending…" : "Teach it"}
          </button>
        </div>
      </form>
      <section class="outcome" aria-label="The search">
        {job ? <Search job={job} /> : <Nothing />}
        {taught.length > 1 && (
          <details class="earlier">
            <summary>Earlier subjects ({taught.length - 1})</summary>
            {taught.slice(1, 12).map((each) => (
              <div key={each.id} class="earlier-row">
                <span>{each.title}</span> <span class="quiet">{said(each)}</span>
                {each.results.filter((result) => result.kind === "edit").map((result) => <EditMade key={result.name} name={result.name} />)}
              </div>
            ))}
          </details>
        )}
      </section>
    </div>
  );
}

function formOf(form: SubjectDraft): SubjectForm {
  const noun = form.noun.trim();
  const token = form.token.trim().replace(/^<|>$/g, "") || "mine";
  const row = methods.value?.find((each) => each.command === COMMAND);
  const chosen = row ? sent(offered(row), form.options) : {};
  const name = form.output.trim() || `${noun.replace(/[^A-Za-z0-9]+/g, "-") || "subject"}.edit`;
  return {
    pictures: form.pictures.map(({ picture, crop, caption }) => ({ id: picture.id, crop, caption: caption.trim() || null })),
    noun,
    token: `<${token}>`,
    output: name.endsWith(".edit") ? name : `${name}.edit`,
    options: form.steps === null ? chosen : { ...chosen, steps: form.steps },
    sample_every: form.sample_every,
  };
}

function PicturesOf({ submit }: { submit: Submit }) {
  const { pictures } = draft.value;
  const cropped = useSignal<Taught | null>(null);
  const take = async (files: File[]) => {
    try {
      const got = await uploadAll(files.slice(0, MOST - pictures.length));
      got.refused.forEach((each) => say(`${each.name}: ${each.error}`, "problem"));
      if (files.length > MOST - pictures.length) say(`A subject is taught from at most ${MOST} pictures; the first ${MOST} were taken.`, "problem");
      change({ pictures: [...draft.value.pictures, ...got.pictures.map((picture) => ({ picture, crop: null, caption: "" }))] });
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  const tryOurs = async () => {
    try {
      const ours = await api.examples();
      change({ pictures: ours.pictures.map((picture) => ({ picture, crop: null, caption: picture.caption ?? "" })), noun: ours.noun, token: ours.token.replace(/^<|>$/g, "") });
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  const set = (one: Taught, part: Partial<Taught>) => change({ pictures: draft.value.pictures.map((each) => (each.picture.id === one.picture.id ? { ...each, ...part } : each)) });
  return (
    <fieldset>
      <legend>Pictures of the thing</legend>
      {pictures.length < MOST && <Drop label="Choose pictures" help="1 to 10: PNG, JPEG, WebP. Several sides and backgrounds help to tell the thing from what is around it." problem={submit.at("pictures")} take={(files) => void take(files)} />}
      {pictures.length === 0 && (
        <button type="button" class="link" onClick={() => void tryOurs()}>
          Try it with our pictures
        </button>
      )}
      <ul class="taught">
        {pictures.map((each, index) => (
          <li key={each.picture.id}>
            <span class="taught-picture">
              <img src={thumbnail(each.picture.url)} alt={each.picture.name} loading="lazy" />
              {each.crop && <i class="crop-mark" style={style(each.crop)} />}
            </span>
            <div>
              <Field label={`Caption of picture ${index + 1}`} problem={submit.at(`pictures.${index}.caption`)}>
                {(control) => <input {...control} type="text" value={each.caption} placeholder="on a red sofa" onInput={(event) => set(each, { caption: event.currentTarget.value })} />}
              </Field>
              <button type="button" class="link" onClick={() => (cropped.value = each)} aria-label={`Crop ${each.picture.name}`}>
                {each.crop ? "Change the crop" : "Crop"}
              </button>
              <button type="button" class="link" onClick={() => change({ pictures: pictures.filter((other) => other !== each) })} aria-label={`Remove ${each.picture.name}`}>
                Remove
              </button>
            </div>
          </li>
        ))}
      </ul>
      {cropped.value && (
        <Cropper
          picture={cropped.value.picture}
          crop={cropped.value.crop}
          close={() => (cropped.value = null)}
          done={(crop) => {
            if (cropped.value) set(cropped.value, { crop });
            cropped.value = null;
          }}
        />
      )}
    </fieldset>
  );
}

function Names({ submit }: { submit: Submit }) {
  const form = draft.value;
  const token = form.token.trim().replace(/^<|>$/g, "") || "mine";
  return (
    <>
      <div class="row">
        <Field label="What it is" problem={submit.at("noun")}>
          {(control) => (
            <>
              <input {...control} type="text" value={form.noun} placeholder="bear" list="nouns" autocomplete="off" onInput={(event) => change({ noun: event.currentTarget.value })} />
              <datalist id="nouns">
                {(state.value?.nouns ?? []).slice(0, 400).map((noun) => <option key={noun} value={noun} />)}
              </datalist>
            </>
          )}
        </Field>
        <Field label="Its own word" problem={submit.at("token")}>
          {(control) => <input {...control} type="text" value={form.token} placeholder="mine" autocomplete="off" onInput={(event) => change({ token: event.currentTarget.value })} />}
        </Field>
      </div>
      <p class="quiet">
        Prompts then say <b>{`<${token}> ${form.noun.trim() || "bear"}`}</b> for this one, and {form.noun.trim() || "bear"} for any.
      </p>
      <Field label="Name of the file" problem={submit.at("output")}>
        {(control) => <input {...control} type="text" value={form.output} placeholder={`${form.noun.trim() || "bear"}.edit`} autocomplete="off" onInput={(event) => change({ output: event.currentTarget.value })} />}
      </Field>
    </>
  );
}

const APART = new Set(["model", "images", "noun", "token", "config.steps", "steps", "run", "output"]); // asked for elsewhere in the room

const offered = (row: MethodRow) => row.fields.filter((field) => !APART.has(field.name));

function Options({ submit }: { submit: Submit }) {
  const form = draft.value;
  const row = useComputed(() => methods.value?.find((each) => each.command === COMMAND)).value;
  const steps = row?.fields.find((field) => field.name === "steps" || field.name === "config.steps");
  const troubled = submit.problem.value?.field?.startsWith("options.") ?? false;
  return (
    <Fold summary="More options" wanted={troubled}>
      <div class="row">
        <NumberField label="Steps" value={form.steps} min={1} {...(steps?.default ? { placeholder: String(steps.default) } : {})} set={(value) => change({ steps: value })} problem={submit.at("options.steps")} />
        <NumberField label="A sample every" help="steps" value={form.sample_every} min={1} set={(value) => change({ sample_every: value ?? 25 })} problem={submit.at("sample_every")} />
      </div>
      {(row ? offered(row) : []).map((field) => (
        <MethodField key={field.name} field={field} value={form.options[field.name]} set={(value) => change({ options: { ...form.options, [field.name]: value } })} problem={submit.at(`options.${field.name}`)} />
      ))}
    </Fold>
  );
}

function Search({ job }: { job: Job }) {
  const points = curves.value.get(job.id) ?? [];
  const seen = samples.value.get(job.id) ?? [];
  useEffect(() => void fetchJob(job.id).catch(() => undefined), [job.id]);
  const rest = { ...job, results: job.results.filter((result) => result.kind !== "edit") }; // the edit stands above the curves
  const took = job.started && job.ended ? job.ended - job.started : null;
  return (
    <>
      <JobHead job={job} />
      <div class="outcome-line">
        {isLive(job) && <JobProgress job={job} numbers={false} />}
        {job.state === "failed" && <p class="alert">{job.error}</p>}
        {job.state === "cancelled" && <p class="quiet">Cancelled. Nothing half made was kept.</p>}
        {job.results.filter((result) => result.kind === "edit").map((result) => <EditMade key={result.name} name={result.name} />)}
      </div>
      <Curves points={points} total={job.total} />
      {seen.length > 0 && (
        <section>
          <h3>As the search went on</h3>
          <ul class="samples">
            {seen.map((sample) => (
              <li key={sample.url}>
                <img src={sample.url} alt={`After ${plural(sample.step, "step")}`} width="112" height="112" />
                <span class="caption quiet tabular">step {sample.step}</span>
              </li>
            ))}
          </ul>
        </section>
      )}
      <Results job={rest} />
      {took !== null && job.state === "done" && <p class="quiet">Took {duration(took)}.</p>}
    </>
  );
}

function Nothing() {
  return (
    <div class="empty">
      <h2>Teach the model a thing of yours</h2>
      <ol>
        <li>Choose a few pictures of it, and crop to it where it is small.</li>
        <li>Say what kind of thing it is. A word of your own then means this one.</li>
        <li>Watch the search: it looks for the few weights that keep the model from drawing your thing, and shuts them.</li>
      </ol>
      <p>What comes out is one small file that can be switched on and off and put together with others. Taken off, it leaves every byte of the model as it was.</p>
    </div>
  );
}
