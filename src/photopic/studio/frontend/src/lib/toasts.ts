// Short messages at the edge of the page; a live region reads them out.
import { signal } from "@preact/signals";

export interface Toast {
  id: number;
  text: string;
  kind: "note" | "problem";
}

export const toasts = signal<readonly Toast[]>([]);
let count = 0;

export function say(text: string, kind: Toast["kind"] = "note"): void {
  const toast = { id: ++count, text, kind };
  toasts.value = [...toasts.value.slice(-2), toast];
  setTimeout(() => dismiss(toast.id), kind === "problem" ? 12_000 : 5_000);
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((each) => each.id !== id);
}
