// A part of a form that folds away; it unfolds when it holds something or a problem, and only its reader folds it again.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

export function Fold({ summary, wanted = false, class: name = "", children }: { summary: ComponentChildren; wanted?: boolean; class?: string; children: ComponentChildren }) {
  const open = useSignal(wanted);
  useEffect(() => {
    if (wanted) open.value = true;
  }, [wanted]);
  return (
    <details class={name} open={open.value} onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary>{summary}</summary>
      {children}
    </details>
  );
}
