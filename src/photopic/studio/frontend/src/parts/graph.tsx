// Which classes are sums of others, as a graph whose nodes can be pulled at; the chosen class is written as its sum.
import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useId, useMemo, useRef } from "preact/hooks";
import { place } from "../lib/boxes";
import type { DependencyRow } from "../lib/contract";
import { begin, settle, step, type Node } from "../lib/force";
import { number, plural } from "../lib/words";

const WIDE = 760;
const HIGH = 520;
const MOST = 48; // nodes; beyond that a picture says nothing
const DRAWN = 8; // sums

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** "bear = 0.9 cat − 0.2 dog" */
function sum(row: DependencyRow): string {
  const terms = row.support.map((name, index) => {
    const theta = row.theta[index] ?? 0;
    return `${theta < 0 ? "− " : index ? "+ " : ""}${number(Math.abs(theta))} ${name}`;
  });
  return `${row.class} = ${terms.join(" ")}`;
}

export function DependencyGraph({ rows }: { rows: readonly DependencyRow[] }) {
  const about = useSignal(""); // a class that the graph is drawn around
  const id = useId();
  const dependent = useMemo(() => [...rows.filter((row) => row.dependent)].sort((a, b) => (a.held_out_error ?? 1) - (b.held_out_error ?? 1)), [rows]);
  if (!dependent.length) return <p class="empty">No class is a sum of a few others within this error. Raise the error, or allow more classes in a sum, and look again.</p>;
  const around = about.value ? dependent.filter((row) => row.class === about.value || row.support.includes(about.value)) : [];
  const shown = fitting(around.length ? around : dependent);
  return (
    <>
      <div class="field graph-find">
        <label for={id}>Draw around a class</label>
        <input id={id} type="search" list={`${id}-names`} placeholder={`the ${shown.length} closest sums`} onChange={(event) => (about.value = event.currentTarget.value.trim())} />
        <datalist id={`${id}-names`}>
          {rows.map((row) => (
            <option key={row.class} value={row.class} />
          ))}
        </datalist>
        {about.value && !around.length && <p class="help">{about.value} is no sum of others and in none; the closest sums are drawn.</p>}
      </div>
      <Graph key={around.length ? about.value : ""} shown={shown} dependent={dependent} all={rows.length} />
    </>
  );
}

/** The first sums whose classes find room, one at least. */
function fitting(rows: readonly DependencyRow[]): DependencyRow[] {
  const names = new Set<string>();
  return rows.slice(0, DRAWN).filter((row, index) => {
    const more = [row.class, ...row.support].filter((name) => !names.has(name));
    if (index > 0 && names.size + more.length > MOST) return false;
    more.forEach((name) => names.add(name));
    return true;
  });
}

interface GraphProps {
  shown: readonly DependencyRow[];
  dependent: readonly DependencyRow[];
  all: number;
}

function Graph({ shown, dependent, all }: GraphProps) {
  const { nodes, edges } = useMemo(() => {
    const names = [...new Set(shown.flatMap((row) => [row.class, ...row.support]))];
    const at = new Map(names.map((name, index) => [name, index]));
    const links = shown.flatMap((row) =>
      row.support.flatMap((name, index) => {
        const [from, to] = [at.get(name), at.get(row.class)];
        return from === undefined || to === undefined ? [] : [{ from, to, theta: row.theta[index] ?? 0 }];
      }),
    );
    const placed = begin(names);
    settle(placed, links.map((link) => [link.from, link.to] as const));
    return { nodes: placed, edges: links };
  }, [shown.map((row) => row.class).join()]);
  const tick = useSignal(0);
  const chosen = useSignal<number | null>(null);
  const held = useRef<Node | null>(null);
  const running = useRef(0);
  const canvas = useRef<SVGSVGElement>(null);
  const near = useComputed(() => new Set(chosen.value === null ? [] : [chosen.value, ...edges.filter((edge) => edge.to === chosen.value || edge.from === chosen.value).flatMap((edge) => [edge.from, edge.to])]));

  useEffect(() => () => cancelAnimationFrame(running.current), []);

  const animate = () => {
    cancelAnimationFrame(running.current);
    let heat = 0.02;
    const frame = () => {
      const fastest = step(nodes, edges.map((edge) => [edge.from, edge.to] as const), heat);
      if (!held.current) heat *= 0.96;
      tick.value++;
      if (held.current || fastest > 0.0006) running.current = requestAnimationFrame(frame);
    };
    running.current = requestAnimationFrame(frame);
  };
  const down = (event: PointerEvent, index: number) => {
    const node = nodes[index];
    if (!node || !canvas.current) return;
    chosen.value = index;
    held.current = node;
    node.held = true;
    canvas.current.setPointerCapture(event.pointerId);
    if (!still()) animate();
  };
  const move = (event: PointerEvent) => {
    if (!held.current || !canvas.current) return;
    [held.current.x, held.current.y] = place(event, canvas.current);
    if (still()) tick.value++;
  };
  const up = () => {
    if (held.current) held.current.held = false;
    held.current = null;
  };

  void tick.value; // positions live outside of the signals; each step renders them anew
  const name = chosen.value === null ? null : nodes[chosen.value]?.name;
  const sums = new Set(shown.map((each) => each.class));
  const row = dependent.find((each) => each.class === name);
  const users = dependent.filter((each) => name && each.support.includes(name));
  return (
    <figure class="graph">
      <svg ref={canvas} viewBox={`0 0 ${WIDE} ${HIGH}`} role="group" aria-label="Which classes are sums of others" onPointerMove={move} onPointerUp={up} onPointerCancel={up}>
        <defs>
          <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0 8 4 0 8z" />
          </marker>
        </defs>
        {edges.map((edge, index) => {
          const [from, to] = [nodes[edge.from]!, nodes[edge.to]!];
          const on = chosen.value !== null && (edge.to === chosen.value || edge.from === chosen.value);
          const [dx, dy] = [(to.x - from.x) * WIDE, (to.y - from.y) * HIGH];
          const short = 1 - 10 / (Math.hypot(dx, dy) || 1); // the tip ends at the node's rim
          return (
            <line
              key={index}
              class={`${on ? "on" : ""} ${edge.theta < 0 ? "minus" : ""}`}
              x1={from.x * WIDE}
              y1={from.y * HIGH}
              x2={from.x * WIDE + dx * short}
              y2={from.y * HIGH + dy * short}
              stroke-width={1 + Math.min(3, 2 * Math.abs(edge.theta))}
              marker-end="url(#tip)"
            />
          );
        })}
        {nodes.map((node, index) => (
          <g
            key={node.name}
            class={`node ${near.value.has(index) ? "near" : ""} ${chosen.value === index ? "chosen" : ""}`}
            transform={`translate(${node.x * WIDE} ${node.y * HIGH})`}
            tabIndex={0}
            role="button"
            aria-label={node.name}
            aria-pressed={chosen.value === index}
            onPointerDown={(event) => down(event, index)}
            onFocus={() => (chosen.value = index)}
          >
            <circle r="15" class="reach" />
            <circle r={sums.has(node.name) ? 8 : 5} class={sums.has(node.name) ? "sum" : ""} />
            <text y="-11" text-anchor="middle" aria-hidden="true" class={sums.has(node.name) ? "of-sum" : ""}>
              {node.name.length > 22 ? `${node.name.slice(0, 20)}…` : node.name}
            </text>
          </g>
        ))}
      </svg>
      <figcaption aria-live="polite">
        {row ? (
          <>
            <b>{sum(row)}</b>
            {row.held_out_error !== null && `; error on unseen pictures ${number(row.held_out_error)}`}
          </>
        ) : name ? (
          `${name} is part of ${users.map((each) => each.class).join(", ")}.`
        ) : (
          `${plural(dependent.length, "class", "classes")} of ${all} are sums of a few others${dependent.length > shown.length ? `; those of the smallest error are drawn` : ""}. Choose one to read its sum, or pull at it.`
        )}
      </figcaption>
    </figure>
  );
}
