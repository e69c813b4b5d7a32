// Light, dark, or as the system has it; the choice outlives the tab.
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const KEY = "photopic.theme";

export const theme = signal<Theme>((localStorage.getItem(KEY) as Theme | null) ?? "system");

export function setTheme(chosen: Theme): void {
  theme.value = chosen;
  localStorage.setItem(KEY, chosen);
  apply();
}

function apply(): void {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}

apply();
