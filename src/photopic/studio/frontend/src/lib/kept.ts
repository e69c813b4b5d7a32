// A form that outlives a reload of its tab; each tab has its own.
import { effect, signal, type Signal } from "@preact/signals";

export function kept<T extends object>(key: string, initial: T): Signal<T> {
  const name = `photopic.${key}`;
  const form = signal<T>({ ...initial, ...read(name) });
  let first = true;
  effect(() => {
    const text = JSON.stringify(form.value);
    if (!first) sessionStorage.setItem(name, text);
    first = false;
  });
  return form;
}

function read(name: string): object {
  try {
    const found: unknown = JSON.parse(sessionStorage.getItem(name) ?? "{}");
    return typeof found === "object" && found !== null ? found : {};
  } catch {
    return {};
  }
}
