// Sending a form: busy while it is under way, and a problem placed at the field that it is about.
import { useSignal, type Signal } from "@preact/signals";
import { fieldOf, lineOf } from "./api";

export interface Submit {
  busy: Signal<boolean>;
  problem: Signal<{ field: string | null; text: string } | null>;
  /** The text for a field, or for a field below it ("layout" hears of "layout.0.words" only when asked with `within`). */
  at: (field: string) => string | null;
  /** The problem of no field that the form shows, or null. */
  rest: (fields: readonly string[]) => string | null;
  fail: (field: string | null, text: string) => void;
  run: (work: () => Promise<void>) => Promise<void>;
}

export function useSubmit(): Submit {
  const busy = useSignal(false);
  const problem = useSignal<{ field: string | null; text: string } | null>(null);
  const fail = (field: string | null, text: string) => {
    problem.value = { field, text };
    // After the next rendering the field is marked; the reader is taken there.
    setTimeout(() => document.querySelector<HTMLElement>("[aria-invalid=true], [role=alert]")?.focus(), 60);
  };
  return {
    busy,
    problem,
    at: (field) => (problem.value?.field === field ? problem.value.text : null),
    rest: (fields) => {
      const found = problem.value;
      if (!found) return null;
      return found.field !== null && fields.includes(found.field) ? null : found.text;
    },
    fail,
    run: async (work) => {
      if (busy.value) return;
      busy.value = true;
      problem.value = null;
      try {
        await work();
      } catch (error) {
        fail(fieldOf(error), lineOf(error));
      } finally {
        busy.value = false;
      }
    },
  };
}
