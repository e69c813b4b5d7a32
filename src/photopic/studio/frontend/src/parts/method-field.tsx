// One field of a method, by its kind.
import { useSignal } from "@preact/signals";
import { api, lineOf, uploadAll } from "../lib/api";
import type { Field } from "../lib/contract";
import { isFile, isPictures, rangeOf, type PicturesValue, type Value } from "../lib/fields";
import { edits } from "../lib/store";
import { say } from "../lib/toasts";
import { called, plural } from "../lib/words";
import { Drop, folderOf } from "./drop";
import { Field as Labelled, Switch } from "./field";
import { Uploads } from "./pictures";

interface Props {
  field: Field;
  value: Value;
  set: (value: Value) => void;
  problem: string | null;
}

export function MethodField(props: Props) {
  const { field, value, set, problem } = props;
  if (field.kind === "pictures") return <PicturesField {...props} />;
  if (field.kind === "file") return <FileField {...props} />;
  if (field.kind === "edits") return <EditsField {...props} />;
  if (field.kind === "flag") return <Switch label={field.label} on={Boolean(value ?? field.default)} set={set} help={helpOf(field)} />;
  return (
    <Labelled label={needed(field)} help={helpOf(field)} problem={problem}>
      {(control) => {
        if (field.kind === "choice" || field.kind === "edit" || field.kind === "model")
          return (
            <select {...control} value={String(value ?? field.default ?? "")} onChange={(event) => set(event.currentTarget.value || null)}>
              {(field.kind === "edit" || field.default === null || field.default === undefined) && <option value="">{field.required ? "Choose…" : "none"}</option>}
              {choices(field).map(([name, text]) => (
                <option key={name} value={name}>
                  {text}
                </option>
              ))}
            </select>
          );
        const common = { ...control, placeholder: placeholder(field), autocomplete: "off" as const, value: typeof value === "string" || typeof value === "number" ? value : "" };
        if ((field.kind === "integer" || field.kind === "number") && !field.many)
          return <input {...common} type="number" step={field.kind === "integer" ? 1 : "any"} onInput={(event) => set(event.currentTarget.value === "" ? undefined : event.currentTarget.valueAsNumber)} />;
        return <input {...common} type="text" onInput={(event) => set(event.currentTarget.value)} />;
      }}
    </Labelled>
  );
}

const needed = (field: Field) => (
  <>
    {field.label}
    {field.required && <span class="quiet"> (needed)</span>}
  </>
);

function helpOf(field: Field): string {
  const range = rangeOf(field);
  return [field.help, range && `(${range})`, field.many && field.kind !== "edits" && field.kind !== "pictures" ? "Commas between several." : ""].filter(Boolean).join(" ");
}

const placeholder = (field: Field) => (field.default === null || field.default === undefined ? "" : Array.isArray(field.default) ? field.default.join(", ") : String(field.default));

function choices(field: Field): [string, string][] {
  if (field.kind === "edit") return (edits.value ?? []).map((edit) => [edit.name, called(edit) ? `${edit.name} (${called(edit)})` : edit.name]);
  if (field.choices?.length) return field.choices.map((each) => [String(each), String(each)]);
  return [];
}

function EditsField({ field, value, set, problem }: Props) {
  const chosen = Array.isArray(value) ? value : [];
  const known = edits.value ?? [];
  return (
    <fieldset class="field" {...(problem ? { "aria-invalid": true, tabIndex: -1 } : {})}>
      <legend>{needed(field)}</legend>
      {known.length === 0 && <p class="help">No edits yet. Teach one in the Subject room, or upload one in the Edits room.</p>}
      {known.map((edit) => (
        <label class="check" key={edit.name}>
          <input
            type="checkbox"
            checked={chosen.includes(edit.name)}
            onChange={(event) => set(event.currentTarget.checked ? [...chosen, edit.name] : chosen.filter((name) => name !== edit.name))}
          />
          {edit.name} <span class="quiet">{called(edit)}</span>
        </label>
      ))}
      {problem && <p class="problem">{problem}</p>}
      <p class="help">{field.help}</p>
    </fieldset>
  );
}

function PicturesField({ field, value, set, problem }: Props) {
  const now: PicturesValue = isPictures(value) ? value : { word: "", pictures: [] };
  const busy = useSignal("");
  const take = async (files: File[]) => {
    try {
      const added: PicturesValue["pictures"] = [];
      for (const [label, some] of Map.groupBy(files, folderOf)) {
        const got = await uploadAll(some, (done) => (busy.value = `${added.length + done} of ${files.length} pictures`));
        got.refused.forEach((each) => say(`${each.name}: ${each.error}`, "problem"));
        added.push(...got.pictures.map((picture) => ({ picture, label, caption: null })));
      }
      set({ word: "", pictures: [...now.pictures, ...added] });
    } catch (error) {
      say(lineOf(error), "problem");
    } finally {
      busy.value = "";
    }
  };
  const labels = new Set(now.pictures.map((each) => each.label).filter(Boolean));
  return (
    <fieldset class="field pictures-field" {...(problem ? { "aria-invalid": true, tabIndex: -1 } : {})}>
      <legend>{needed(field)}</legend>
      <Drop label="Choose pictures" folder help={busy.value || field.help} take={(files) => void take(files)} />
      {now.pictures.length > 0 && (
        <>
          <p class="quiet" aria-live="polite">
            {plural(now.pictures.length, "picture")}
            {labels.size > 0 && ` in ${plural(labels.size, "class", "classes")}: ${[...labels].slice(0, 6).join(", ")}${labels.size > 6 ? ", …" : ""}`}{" "}
            <button type="button" class="link" onClick={() => set({ word: now.word, pictures: [] })}>
              Remove all
            </button>
          </p>
          <Uploads pictures={now.pictures.slice(0, 24).map((each) => each.picture)} remove={(id) => set({ ...now, pictures: now.pictures.filter((each) => each.picture.id !== id) })} />
        </>
      )}
      {(field.words?.length ?? 0) > 0 && now.pictures.length === 0 && (
        <label class="inline">
          or without pictures of yours
          <input type="text" value={now.word} placeholder={field.words?.join(", ")} list={`words-${field.name}`} onInput={(event) => set({ word: event.currentTarget.value.trim(), pictures: [] })} />
          <datalist id={`words-${field.name}`}>
            {field.words?.map((word) => <option key={word} value={word} />)}
          </datalist>
        </label>
      )}
      {problem && <p class="problem">{problem}</p>}
    </fieldset>
  );
}

function FileField({ field, value, set, problem }: Props) {
  const take = async (files: File[]) => {
    try {
      if (!files[0]) return;
      const got = await api.uploadFile(files[0]);
      set({ upload: got.id, name: got.name });
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  return (
    <fieldset class="field" {...(problem ? { "aria-invalid": true, tabIndex: -1 } : {})}>
      <legend>{needed(field)}</legend>
      <Drop label={isFile(value) ? value.name : "Choose a file"} accept="" many={false} small help={field.help} take={(files) => void take(files)} />
      {problem && <p class="problem">{problem}</p>}
    </fieldset>
  );
}
