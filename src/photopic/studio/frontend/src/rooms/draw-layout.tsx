// Where things go: boxes on a canvas, each with the words of the prompt that belong in it and the edit that works there.
import type { LayoutBox } from "../lib/contract";
import { change, drawing } from "../lib/drawing";
import { edits } from "../lib/store";
import type { Submit } from "../lib/submit";
import { called, plural } from "../lib/words";
import { Field, NumberField, Switch } from "../parts/field";
import { Fold } from "../parts/fold";
import { focusLater, LayoutCanvas } from "../parts/layout-editor";

export function LayoutEditor({ submit }: { submit: Submit }) {
  const { layout, in_region, start, edits: chosen } = drawing.value;
  const set = (boxes: LayoutBox[]) => change({ layout: boxes });
  const add = () => {
    const shift = 0.08 * (layout.length % 4);
    set([...layout, { words: "", box: [0.1 + shift, 0.3 + shift, 0.5 + shift, 0.7 + shift], edit: null, strength: null }]);
    focusLater(`[data-words="${layout.length}"]`);
  };
  const on = chosen.filter((edit) => edit.on);
  const troubled = submit.problem.value?.field?.startsWith("layout") ?? false;
  return (
    <Fold class="layout" wanted={layout.length > 0 || troubled} summary={layout.length ? `Layout (${plural(layout.length, "box", "boxes")})` : "Layout"}>
      <LayoutCanvas boxes={layout} background={start?.picture.url ?? null} change={set} />
      {submit.at("layout") && <p class="problem">{submit.at("layout")}</p>}
      <ol class="boxes">
        {layout.map((box, index) => (
          <BoxRow key={index} {...{ box, index, submit }} edits={on.map((edit) => edit.name)} set={(part) => set(layout.map((each, at) => (at === index ? { ...each, ...part } : each)))} remove={() => set(layout.filter((_, at) => at !== index))} />
        ))}
      </ol>
      <button type="button" class="quiet layout-add" onClick={add}>
        Add a box
      </button>
      {layout.length > 0 && on.length > 0 && (
        <Switch label="Each edit in its own box only" on={in_region} set={(value) => change({ in_region: value })} help="Edits that overlap then do not meet: each changes its region of the picture." />
      )}
    </Fold>
  );
}

interface RowProps {
  box: LayoutBox;
  index: number;
  edits: string[];
  submit: Submit;
  set: (part: Partial<LayoutBox>) => void;
  remove: () => void;
}

function BoxRow({ box, index, edits: names, submit, set, remove }: RowProps) {
  // Choosing an edit also writes its words into the box, where none are.
  const bind = (name: string | null) => {
    const words = called(edits.value?.find((edit) => edit.name === name) ?? { noun: null, token: null });
    set({ edit: name, ...(box.words.trim() || !words ? {} : { words }) });
  };
  return (
    <li class={`k${index % 4}`}>
      <Field label={`Words of box ${index + 1}`} problem={submit.at(`layout.${index}.words`)}>
        {(control) => <input {...control} data-words={index} type="text" value={box.words} placeholder="cat" onInput={(event) => set({ words: event.currentTarget.value })} />}
      </Field>
      <button type="button" class="icon" aria-label={`Remove box ${index + 1}`} onClick={remove}>
        ×
      </button>
      <Field label="Edit" problem={submit.at(`layout.${index}.edit`)}>
        {(control) => (
          <select {...control} value={box.edit ?? ""} onChange={(event) => bind(event.currentTarget.value || null)}>
            <option value="">none</option>
            {names.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        )}
      </Field>
      <NumberField label="Strength" value={box.strength} min={0} step={0.5} placeholder="2.5" set={(strength) => set({ strength })} problem={submit.at(`layout.${index}.strength`)} />
    </li>
  );
}
