// Where the nodes of a graph come to rest: they push each other off, edges pull, the centre holds. Positions are in a unit square.
import { clamp } from "./words";

export interface Node {
  name: string;
  x: number;
  y: number;
  held: boolean; // by the pointer
}

const PUSH = 0.0025;
const PULL = 0.06;
const CENTRE = 0.03;

/** Nodes on a circle in the order of their names: the same graph starts, and ends, the same way. */
export function begin(names: readonly string[]): Node[] {
  return names.map((name, index) => {
    const angle = (2 * Math.PI * index) / names.length;
    return { name, x: 0.5 + 0.35 * Math.cos(angle), y: 0.5 + 0.35 * Math.sin(angle), held: false };
  });
}

/** One step of all nodes; returns how far the fastest went. */
export function step(nodes: Node[], edges: readonly (readonly [number, number])[], heat: number): number {
  const rest = 0.7 / Math.sqrt(nodes.length + 1); // length at which an edge neither pulls nor pushes
  const forces = nodes.map((node) => ({ x: (0.5 - node.x) * CENTRE, y: (0.5 - node.y) * CENTRE }));
  for (let a = 0; a < nodes.length; a++) {
    for (let b = a + 1; b < nodes.length; b++) {
      const [one, other] = [nodes[a]!, nodes[b]!];
      const [dx, dy] = [one.x - other.x, one.y - other.y];
      const square = Math.max(dx * dx + dy * dy, 1e-4);
      const push = (PUSH * rest) / square;
      forces[a]!.x += dx * push;
      forces[a]!.y += dy * push;
      forces[b]!.x -= dx * push;
      forces[b]!.y -= dy * push;
    }
  }
  for (const [a, b] of edges) {
    const [one, other] = [nodes[a]!, nodes[b]!];
    const [dx, dy] = [other.x - one.x, other.y - one.y];
    const length = Math.hypot(dx, dy) || 1e-3;
    const pull = (PULL * (length - rest)) / length;
    forces[a]!.x += dx * pull;
    forces[a]!.y += dy * pull;
    forces[b]!.x -= dx * pull;
    forces[b]!.y -= dy * pull;
  }
  let fastest = 0;
  for (const [index, node] of nodes.entries()) {
    if (node.held) continue;
    const [dx, dy] = [clamp(forces[index]!.x, -heat, heat), clamp(forces[index]!.y, -heat, heat)];
    node.x = clamp(node.x + dx, 0.08, 0.92); // room for the names
    node.y = clamp(node.y + dy, 0.06, 0.96);
    fastest = Math.max(fastest, Math.abs(dx), Math.abs(dy));
  }
  return fastest;
}

/** Comes to rest without being watched: for readers who want no motion, and as the start for those who do. */
export function settle(nodes: Node[], edges: readonly (readonly [number, number])[], steps = 200): void {
  for (let index = 0; index < steps; index++) step(nodes, edges, 0.05 * (1 - index / steps) + 0.001);
}
