// The Edits room: the library of files; what each holds, how two differ, and several made into one.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, editAddress, lineOf } from "../lib/api";
import type { EditFile, Job, View } from "../lib/contract";
import { drawWith } from "../lib/drawing";
import { address, go, route } from "../lib/route";
import { edits, isLive, jobs, keep, refreshEdits } from "../lib/store";
import { say } from "../lib/toasts";
import { bytes, called, moment, number, plural } from "../lib/words";
import { Drop } from "../parts/drop";
import { Cancel, JobProgress } from "../parts/progress";
import { Results } from "../parts/results";
import { ViewPage } from "../parts/view";
import { Compose } from "./compose";

type Doing = { kind: "compose" | "diff"; names: string[] } | null;

export function Edits() {
  const chosen = useSignal<readonly string[]>([]);
  const doing = useSignal<Doing>(null);
  const known = edits.value;
  const opened = route.value.rest;
  const names = chosen.value.filter((name) => known?.some((edit) => edit.name === name));

  const take = async (files: File[]) => {
    try {
      await api.uploadEdits(files);
      await refreshEdits();
      say(`${plural(files.length, "file")} added to the library.`);
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  const toggle = (name: string, on: boolean) => {
    chosen.value = on ? [...names, name] : names.filter((each) => each !== name);
    doing.value = null;
  };
  const open = (kind: "compose" | "diff") => {
    doing.value = { kind, names: [...names] };
    go("edits");
  };
  return (
    <div class="room two library">
      <section class="panel" aria-label="Library of edits">
        <h2>Edits</h2>
        {known && known.length === 0 && <p class="help">An edit is a small file that changes a model and comes off again to the last byte. Teach one in the <a href={address("subject")}>Subject room</a>, or drop one here.</p>}
        <ul class="edit-list">
          {(known ?? []).map((edit) => (
            <li key={edit.name} class={opened === edit.name && !doing.value ? "on" : ""}>
              <input type="checkbox" aria-label={`Choose ${edit.name}`} checked={names.includes(edit.name)} onChange={(event) => toggle(edit.name, event.currentTarget.checked)} />
              <a href={address("edits", edit.name)} onClick={() => (doing.value = null)} aria-current={opened === edit.name ? "true" : undefined}>
                <b>{edit.name}</b>
                <span class="quiet">{[called(edit), bytes(edit.bytes)].filter(Boolean).join(" · ")}</span>
              </a>
            </li>
          ))}
        </ul>
        <div class="row wrap">
          <button type="button" disabled={names.length < 2} onClick={() => open("compose")}>
            Compose {names.length > 1 ? names.length : ""}
          </button>
          <button type="button" disabled={names.length !== 2} onClick={() => open("diff")}>
            Compare two
          </button>
        </div>
        {known && known.length > 1 && names.length < 2 && <p class="help">Tick two or more to make one of them, or exactly two to see how they differ.</p>}
        <Drop label="Upload an edit" accept=".edit" help="Files that end in .edit." take={(files) => void take(files)} />
      </section>
      <section class="outcome" aria-label="The chosen edit">
        <Shown opened={opened} doing={doing.value} done={(name) => go("edits", name)} stop={() => (doing.value = null)} />
      </section>
    </div>
  );
}

function Shown({ opened, doing, done, stop }: { opened: string; doing: Doing; done: (name: string) => void; stop: () => void }) {
  if (doing?.kind === "compose")
    return (
      <Compose
        key={doing.names.join(" ")}
        names={doing.names}
        done={(name) => {
          stop();
          done(name);
        }}
      />
    );
  if (doing?.kind === "diff") return <Diff key={doing.names.join(" ")} names={doing.names} />;
  const edit = edits.value?.find((each) => each.name === opened);
  if (edit) return <Inspect key={edit.name} edit={edit} />;
  if (opened && edits.value) return <p class="empty">{opened} is not in the library: it was deleted or has another name.</p>;
  return (
    <div class="empty">
      <h2>What an edit holds</h2>
      <p>Choose a file on the left to see which layers it changes, how it was found and what it costs. Tick several to see where they would get in each other's way before they become one.</p>
    </div>
  );
}

/** Asks once for a view, and says what went wrong in its place. */
export function useView(ask: () => Promise<View>, key: string) {
  const view = useSignal<View | null>(null);
  const problem = useSignal<string | null>(null);
  useEffect(() => {
    view.value = null;
    problem.value = null;
    let current = true;
    ask().then(
      (got) => current && (view.value = got),
      (error: unknown) => current && (problem.value = lineOf(error)),
    );
    return () => {
      current = false;
    };
  }, [key]);
  return { view, problem };
}

export function Loaded({ view, problem, untitled = false }: ReturnType<typeof useView> & { untitled?: boolean }) {
  if (problem.value) return <p class="alert">{problem.value}</p>;
  return view.value ? <ViewPage view={untitled ? { ...view.value, title: "" } : view.value} /> : <p class="quiet reading">Reading…</p>;
}

function Diff({ names }: { names: string[] }) {
  const found = useView(() => api.diff(names[0]!, names[1]!), names.join(" "));
  return (
    <>
      <h2>
        {names[0]} and {names[1]}
      </h2>
      <Loaded {...found} />
    </>
  );
}

function Inspect({ edit }: { edit: EditFile }) {
  const found = useView(() => api.inspect(edit.name), edit.name);
  const verifying = useSignal<string | null>(null);
  const sure = useSignal(false);
  const job: Job | undefined = verifying.value ? jobs.value.get(verifying.value) : undefined;
  const verify = async () => {
    try {
      const made = await api.verify(edit.name);
      keep(made);
      verifying.value = made.id;
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  const remove = async () => {
    try {
      await api.deleteEdit(edit.name);
      await refreshEdits();
      go("edits");
      say(`${edit.name} is deleted.`);
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  const facts = [called(edit), edit.method, edit.weights === null ? "" : `${number(edit.weights)} weights`, bytes(edit.bytes), edit.model && `for ${edit.model}`, moment(edit.created)];
  return (
    <>
      <header class="outcome-head">
        <h2>{edit.name}</h2>
      </header>
      <p class="quiet">{facts.filter(Boolean).join(" · ")}</p>
      <div class="row wrap">
        {edit.token && (
          <button
            type="button"
            class="primary"
            onClick={() => {
              drawWith(edit);
              go("draw");
            }}
          >
            Draw with it
          </button>
        )}
        <button type="button" disabled={job !== undefined && isLive(job)} onClick={() => void verify()}>
          Verify
        </button>
        <a class="button" href={editAddress(edit.name)} download={edit.name}>
          Export
        </a>
        {sure.value ? (
          <>
            <button type="button" class="danger" onClick={() => void remove()}>
              Delete {edit.name} for good
            </button>
            <button type="button" class="quiet" onClick={() => (sure.value = false)}>
              Keep it
            </button>
          </>
        ) : (
          <button type="button" class="quiet" onClick={() => (sure.value = true)}>
            Delete
          </button>
        )}
      </div>
      {job && (
        <section class="card" aria-live="polite">
          <header class="outcome-head">
            <h3>Verify</h3>
            <Cancel job={job} />
          </header>
          {isLive(job) ? <JobProgress job={job} /> : job.error ? <p class="alert">{job.error}</p> : <Results job={job} />}
        </section>
      )}
      <Loaded {...found} untitled />
    </>
  );
}
