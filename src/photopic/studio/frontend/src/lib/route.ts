// Rooms live behind the hash: #/draw, #/methods/edit%20diff, #/runs/ID.
import { signal } from "@preact/signals";

export const ROOMS = ["subject", "draw", "edits", "classifier", "guard", "runs", "methods"] as const;
export type Room = (typeof ROOMS)[number];

interface Route {
  room: Room;
  rest: string;
}

function read(): Route {
  const [, name = "", ...rest] = location.hash.split("/");
  const room = (ROOMS as readonly string[]).includes(name) ? (name as Room) : "draw";
  return { room, rest: decodeURIComponent(rest.join("/")) };
}

export const route = signal<Route>(read());
addEventListener("hashchange", () => (route.value = read()));

export const address = (room: Room, rest = "") => `#/${room}${rest ? `/${encodeURIComponent(rest)}` : ""}`;
export function go(room: Room, rest = ""): void {
  location.hash = address(room, rest);
}
