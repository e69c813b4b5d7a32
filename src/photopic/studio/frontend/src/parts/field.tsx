// A labelled control with its help below and its problem beside it.
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

interface Described {
  id: string;
  "aria-describedby"?: string;
  "aria-invalid"?: true;
}

interface FieldProps {
  label: ComponentChildren;
  help?: ComponentChildren;
  problem?: string | null;
  class?: string;
  children: (control: Described) => ComponentChildren;
}

export function Field({ label, help, problem, class: name = "", children }: FieldProps) {
  const id = useId();
  const described = [help ? `${id}-help` : "", problem ? `${id}-problem` : ""].filter(Boolean).join(" ");
  const control: Described = { id };
  if (described) control["aria-describedby"] = described;
  if (problem) control["aria-invalid"] = true;
  return (
    <div class={`field ${name}`}>
      <label for={id}>{label}</label>
      {children(control)}
      {problem && (
        <p class="problem" id={`${id}-problem`}>
          {problem}
        </p>
      )}
      {help && (
        <p class="help" id={`${id}-help`}>
          {help}
        </p>
      )}
    </div>
  );
}

interface NumberProps {
  label: ComponentChildren;
  value: number | null;
  set: (value: number | null) => void;
  min?: number;
  max?: number;
  step?: number | "any";
  help?: ComponentChildren;
  problem?: string | null;
  placeholder?: string;
}

export function NumberField({ label, value, set, help, problem, step = 1, ...limits }: NumberProps) {
  return (
    <Field label={label} help={help} problem={problem ?? null} class="narrow">
      {(control) => (
        <input
          {...control}
          {...limits}
          type="number"
          inputMode={step === 1 ? "numeric" : "decimal"}
          step={step}
          value={value ?? ""}
          onInput={(event) => set(event.currentTarget.value === "" ? null : event.currentTarget.valueAsNumber)}
        />
      )}
    </Field>
  );
}

interface SliderProps {
  label: string;
  value: number;
  set: (value: number) => void;
  min?: number;
  max?: number;
  step?: number;
  disabled?: boolean;
  hideLabel?: boolean;
}

export function Slider({ label, value, set, min = 0, max = 1, step = 0.05, disabled = false, hideLabel = false }: SliderProps) {
  const id = useId();
  return (
    <div class="slider">
      <label for={id} class={hideLabel ? "unseen" : ""}>
        {label}
      </label>
      <input
        id={id}
        type="range"
        {...{ min, max, step, value, disabled }}
        onInput={(event) => set(event.currentTarget.valueAsNumber)}
      />
      <output for={id}>{value.toFixed(2)}</output>
    </div>
  );
}

interface SwitchProps {
  label: ComponentChildren;
  on: boolean;
  set: (on: boolean) => void;
  help?: ComponentChildren;
  hideLabel?: boolean;
}

export function Switch({ label, on, set, help, hideLabel = false }: SwitchProps) {
  const id = useId();
  return (
    <div class="switch">
      <input
        id={id}
        type="checkbox"
        role="switch"
        checked={on}
        {...(help ? { "aria-describedby": `${id}-help` } : {})}
        onChange={(event) => set(event.currentTarget.checked)}
      />
      <label for={id} class={hideLabel ? "unseen" : ""}>
        {label}
      </label>
      {help && (
        <p class="help" id={`${id}-help`}>
          {help}
        </p>
      )}
    </div>
  );
}

export function Alert({ text }: { text: string | null }) {
  return text ? (
    <p class="alert" role="alert" tabIndex={-1}>
      {text}
    </p>
  ) : null;
}
