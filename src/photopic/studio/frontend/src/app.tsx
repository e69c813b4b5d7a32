// The frame around every room: where one is, what runs, which model, and what went wrong.
import { computed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { api, lineOf } from "./lib/api";
import { address, route, ROOMS, type Room } from "./lib/route";
import { connection, keep, live, state, trouble } from "./lib/store";
import { setTheme, theme, type Theme } from "./lib/theme";
import { dismiss, say, toasts } from "./lib/toasts";
import { sentence } from "./lib/words";
import { Dialog } from "./parts/dialog";
import { Field } from "./parts/field";
import { Icon } from "./parts/icons";
import { Cancel } from "./parts/progress";
import { Classifier } from "./rooms/classifier";
import { Draw } from "./rooms/draw";
import { Edits } from "./rooms/edits";
import { Guard } from "./rooms/guard";
import { Methods } from "./rooms/methods";
import { Runs } from "./rooms/runs";
import { Subject } from "./rooms/subject";

const PAGES: Record<Room, () => preact.JSX.Element> = { subject: Subject, draw: Draw, edits: Edits, classifier: Classifier, guard: Guard, runs: Runs, methods: Methods };

export function App() {
  const { room } = route.value;
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${sentence(room)} · photopic studio`;
    if (!first.current) {
      main.current?.focus({ preventScroll: true }); // a new room begins at its top, for the keyboard too
      scrollTo(0, 0);
    }
    first.current = false;
  }, [room]);
  const Page = PAGES[room];
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        To the room
      </a>
      <header class="top">
        <a class="brand" href={address("draw")}>
          photopic <span>studio</span>
        </a>
        <nav class="rooms" aria-label="Rooms">
          {ROOMS.map((name) => (
            <a key={name} href={address(name)} aria-current={name === room ? "page" : undefined}>
              <Icon name={name} />
              <span>{sentence(name)}</span>
            </a>
          ))}
        </nav>
        <div class="status">
          <Running />
          <ModelChip />
          <ThemeSwitch />
        </div>
      </header>
      <Troubles />
      <main id="main" ref={main} tabIndex={-1}>
        <h1 class="unseen">{sentence(room)}</h1>
        <Page />
      </main>
      <Toasts />
    </>
  );
}

function Running() {
  const job = live.value.find((each) => each.state === "running") ?? live.value[0];
  if (!job) return null;
  const more = live.value.length - 1;
  return (
    <div class="running">
      <a href={address("runs", job.id)} title={job.title}>
        <span class="running-title">{job.title}</span>
        <progress aria-label={`Progress of ${job.title}`} {...(job.total ? { value: job.done, max: job.total } : {})} />
        {more > 0 && <span class="quiet">+{more}</span>}
      </a>
      <Cancel job={job} class="link" />
    </div>
  );
}

function ModelChip() {
  const open = useSignal(false);
  const model = state.value?.model;
  return (
    <>
      <button type="button" class={`quiet model ${model?.status ?? ""}`} onClick={() => (open.value = true)} aria-haspopup="dialog">
        <i class="dot" />
        <span>{model ? (model.status === "ready" ? model.name : model.status === "loading" ? `Loading ${model.name}…` : "Model failed") : "…"}</span>
      </button>
      {open.value && <ModelDialog close={() => (open.value = false)} />}
    </>
  );
}

const names = computed(() => state.value?.model.names ?? []);

function ModelDialog({ close }: { close: () => void }) {
  const model = state.value?.model;
  const name = useSignal(model?.name ?? "");
  const problem = useSignal<string | null>(null);
  const known = names.value;
  const load = async () => {
    try {
      keep(await api.loadModel(name.value.trim()));
      say(`Loading ${name.value.trim()}.`);
      close();
    } catch (error) {
      problem.value = lineOf(error);
    }
  };
  return (
    <Dialog title="The model that draws" close={close}>
      {model?.status === "failed" && <p class="alert">{model.error}</p>}
      {model?.status === "ready" && (
        <p class="quiet">
          {model.name}
          {model.size ? `, draws pictures of ${model.size} × ${model.size} pixels` : ""}
        </p>
      )}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void load();
        }}
      >
        <Field label="Load another" help="A model of your own is named when the studio is started: photopic studio --model FOLDER." problem={problem.value}>
          {(control) => (
            <select {...control} value={name.value} onChange={(event) => (name.value = event.currentTarget.value)}>
              {(known ?? []).map((each) => (
                <option key={each} value={each}>
                  {each}
                </option>
              ))}
            </select>
          )}
        </Field>
        <footer>
          <button type="submit" class="primary" disabled={!name.value.trim()}>
            Load
          </button>
        </footer>
      </form>
      {state.value && (
        <p class="help">
          photopic {state.value.version}; files are kept in the folder {state.value.workspace}.
        </p>
      )}
    </Dialog>
  );
}

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };

function ThemeSwitch() {
  const label = { system: "as the system has it", light: "light", dark: "dark" }[theme.value];
  return (
    <button type="button" class="icon" aria-label={`Colours: ${label}. Change to ${NEXT[theme.value]}`} title={`Colours: ${label}`} onClick={() => setTheme(NEXT[theme.value])}>
      <Icon name={theme.value} />
    </button>
  );
}

function Troubles() {
  const model = state.value?.model;
  const line = trouble.value ?? (model?.status === "failed" ? `The model ${model.name} could not be loaded: ${model.error ?? ""}` : null) ?? (connection.value === "lost" ? "The connection to the studio is lost; trying again." : null);
  return (
    <div aria-live="assertive">
      {line && (
        <div class="banner">
          <p>{line}</p>
          {model?.status === "failed" && !trouble.value && <p>Choose another under the model's button above; what does not draw works without it.</p>}
        </div>
      )}
    </div>
  );
}

function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <div key={toast.id} class={toast.kind === "problem" ? "toast trouble" : "toast"}>
          <p>{toast.text}</p>
          <button type="button" class="icon" aria-label="Dismiss" onClick={() => dismiss(toast.id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}
