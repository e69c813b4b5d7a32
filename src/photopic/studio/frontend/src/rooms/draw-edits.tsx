// Which edits are in force while drawing, how far each goes, and what becomes of weights that several of them set.
import type { EditFile } from "../lib/contract";
import { change, drawing, drawWith } from "../lib/drawing";
import { address } from "../lib/route";
import { edits } from "../lib/store";
import type { Submit } from "../lib/submit";
import { called } from "../lib/words";
import { Field, Slider, Switch } from "../parts/field";

export const OVERLAPS: [string, string][] = [
  ["error", "refuse, and say where they touch"],
  ["union", "all that any of them sets"],
  ["first", "the first edit decides"],
  ["sum", "their changes added up"],
  ["ties", "trim, elect a sign, average (TIES)"],
];

export function OverlapField({ value, change, problem }: { value: string; change: (value: string) => void; problem: string | null }) {
  return (
    <Field label="Where they set the same weights" problem={problem}>
      {(control) => (
        <select {...control} value={value} onChange={(event) => change(event.currentTarget.value)}>
          {OVERLAPS.map(([name, text]) => (
            <option key={name} value={name}>
              {name}: {text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

export function EditChooser({ submit }: { submit: Submit }) {
  const form = drawing.value;
  const known = edits.value ?? [];
  const gone = form.edits.filter((edit) => edits.value && !known.some((each) => each.name === edit.name));
  const on = form.edits.filter((edit) => edit.on).length;
  const problem = submit.under("edits");
  return (
    <fieldset class="edits" {...(problem ? { "aria-invalid": true, tabIndex: -1 } : {})}>
      <legend>Edits</legend>
      {edits.value?.length === 0 && (
        <p class="help">
          No edits yet. <a href={address("subject")}>Teach a subject</a> from a few pictures, or <a href={address("edits")}>upload a file</a>.
        </p>
      )}
      {known.map((edit) => (
        <EditRow key={edit.name} edit={edit} />
      ))}
      {gone.map((edit) => (
        <p class="problem" key={edit.name}>
          {edit.name} is no longer in the library.{" "}
          <button type="button" class="link" onClick={() => change({ edits: form.edits.filter((each) => each !== edit) })}>
            Leave it out
          </button>
        </p>
      ))}
      {problem && <p class="problem">{problem}</p>}
      {on > 1 && (
        <OverlapField value={form.overlap} change={(overlap) => change({ overlap })} problem={submit.at("overlap")} />
      )}
    </fieldset>
  );
}

function EditRow({ edit }: { edit: EditFile }) {
  const form = drawing.value;
  const chosen = form.edits.find((each) => each.name === edit.name);
  const words = called(edit);
  const update = (part: { weight?: number; on?: boolean }) =>
    chosen ? change({ edits: form.edits.map((each) => (each === chosen ? { ...each, ...part } : each)) }) : drawWith(edit);
  return (
    <div class="edit-row">
      <Switch label={<b>{edit.name}</b>} on={chosen?.on ?? false} set={(on) => update({ on })} />
      {words && (
        <button type="button" class="link" disabled={form.prompt.includes(words)} onClick={() => change({ prompt: `${form.prompt} ${words}`.trim() })} aria-label={`Put ${words} into the prompt`}>
          {words}
        </button>
      )}
      {chosen?.on && <Slider label={`Weight of ${edit.name}`} hideLabel value={chosen.weight} set={(weight) => update({ weight })} />}
    </div>
  );
}
