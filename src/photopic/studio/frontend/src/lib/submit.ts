// Sending a form: busy while it is under way, and a problem placed at the field that it is about.
import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { fieldOf, lineOf } from "./api";
import type { Job } from "./contract";

export interface Submit {
  busy: Signal<boolean>;
  problem: Signal<{ field: string | null; text: string } | null>;
  /** The text for a field. */
  at: (field: string) => string | null;
  /** The text for a field or one below it: "edits" hears of "edits.0" too. */
  under: (field: string) => string | null;
  /** The problem of no field that the form shows, or null. */
  rest: (fields: readonly string[]) => string | null;
  fail: (field: string | null, text: string) => void;
  /** The form was changed: what was wrong with it may be mended. */
  edited: () => void;
  run: (work: () => Promise<void>) => Promise<void>;
}

const isUnder = (field: string | null | undefined, above: string) => field === above || (field?.startsWith(`${above}.`) ?? false);

/** A job that fails over a field of the form that asked for it marks that field. */
export function useFailure(job: Job | undefined, submit: Submit): void {
  const failed = job?.state === "failed" && job.field ? job.id : null;
  const seen = useRef(failed); // what had failed before this page was opened marks nothing
  useEffect(() => {
    if (failed && failed !== seen.current && job?.field) submit.fail(job.field, job.error ?? "");
    seen.current = failed;
  }, [failed]);
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
    under: (field) => (isUnder(problem.value?.field, field) ? (problem.value?.text ?? null) : null),
    at: (field) => (problem.value?.field === field ? problem.value.text : null),
    rest: (fields) => {
      const found = problem.value;
      if (!found) return null;
      return found.field !== null && fields.some((field) => isUnder(found.field, field)) ? null : found.text;
    },
    fail,
    edited: () => (problem.value = null),
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
