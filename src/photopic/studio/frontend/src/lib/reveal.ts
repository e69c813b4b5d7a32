// Where the outcome stands below the form, a press of its button leads there.
export function reveal(): void {
  if (!matchMedia("(max-width: 720px)").matches) return;
  setTimeout(() => document.querySelector(".outcome")?.scrollIntoView({ block: "start" }), 60);
}
