// Boxes in shares of a picture: moved and resized within it, by the mouse or in steps of the keyboard.
import type { Box } from "./contract";
import { clamp } from "./words";

export const LEAST = 0.05; // smallest side
const round = (value: number) => Math.round(value * 1000) / 1000;
const rounded = (box: Box) => box.map(round) as Box;

export function moved([x0, y0, x1, y1]: Box, dx: number, dy: number): Box {
  const [x, y] = [clamp(dx, -x0, 1 - x1), clamp(dy, -y0, 1 - y1)];
  return rounded([x0 + x, y0 + y, x1 + x, y1 + y]);
}

export function resized([x0, y0, x1, y1]: Box, dx: number, dy: number): Box {
  return rounded([x0, y0, clamp(x1 + dx, x0 + LEAST, 1), clamp(y1 + dy, y0 + LEAST, 1)]);
}

/** The box between two corners, or null for a mere click. */
export function between(from: readonly [number, number], to: readonly [number, number]): Box | null {
  const [x0, x1] = [Math.min(from[0], to[0]), Math.max(from[0], to[0])];
  const [y0, y1] = [Math.min(from[1], to[1]), Math.max(from[1], to[1])];
  return x1 - x0 < LEAST || y1 - y0 < LEAST ? null : rounded([x0, y0, x1, y1]);
}

/** Where a pointer is, in shares of an element. */
export function place(event: PointerEvent, element: Element): [number, number] {
  const area = element.getBoundingClientRect();
  return [clamp((event.clientX - area.left) / area.width, 0, 1), clamp((event.clientY - area.top) / area.height, 0, 1)];
}

const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The direction of an arrow key, or null. */
export const arrow = (event: KeyboardEvent) => ARROWS[event.key] ?? null;

export const percent = (value: number) => `${(value * 100).toFixed(1)}%`;
export const style = ([x0, y0, x1, y1]: Box) => ({
  left: percent(x0),
  top: percent(y0),
  width: percent(x1 - x0),
  height: percent(y1 - y0),
});

export function spoken([x0, y0, x1, y1]: Box): string {
  const of = (value: number) => `${Math.round(value * 100)} %`;
  return `left ${of(x0)}, top ${of(y0)}, width ${of(x1 - x0)}, height ${of(y1 - y0)}`;
}

/** The largest square of a picture around a centre, in shares. */
export function square(width: number, height: number, side = 1, centre: readonly [number, number] = [0.5, 0.5]): Box {
  const short = Math.min(width, height) * side;
  const [w, h] = [short / width, short / height];
  const x = clamp(centre[0] - w / 2, 0, 1 - w);
  const y = clamp(centre[1] - h / 2, 0, 1 - h);
  return rounded([x, y, x + w, y + h]);
}
