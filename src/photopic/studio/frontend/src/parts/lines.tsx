// Curves on common axes, as views ask for them: linear or in decades, numbers or names below.
import type { LinesBlock } from "../lib/contract";
import { number } from "../lib/words";

const WIDE = 640;
const HIGH = 300;
const EDGE = { left: 58, right: 14, top: 12, bottom: 44 };

interface Axis {
  at: (value: number) => number; // in pixels
  ticks: number[];
}

function steps(low: number, high: number): number[] {
  const rough = (high - low || 1) / 5;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * decade).find((each) => each >= rough) ?? decade;
  const ticks: number[] = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) ticks.push(Number(value.toPrecision(12)));
  return ticks;
}

function axis(values: number[], log: boolean, fromZero: boolean, start: number, end: number): Axis {
  const usable = values.filter((value) => Number.isFinite(value) && (!log || value > 0));
  let low = Math.min(...usable, ...(fromZero && !log ? [0] : []));
  let high = Math.max(...usable);
  if (!usable.length) [low, high] = [0, 1];
  if (low === high) high = low + (Math.abs(low) || 1);
  const scale = log ? Math.log10 : (value: number) => value;
  const [first, last] = [scale(low), scale(high)];
  const ticks = log
    ? Array.from({ length: Math.floor(last) - Math.ceil(first) + 1 }, (_, index) => 10 ** (Math.ceil(first) + index))
    : steps(low, high);
  return { at: (value) => start + ((scale(value) - first) / (last - first)) * (end - start), ticks };
}

export function Lines({ block }: { block: LinesBlock }) {
  const points = block.lines.flatMap(([, line]) => line);
  const ranges = (block.ranges ?? []).flat();
  const x = axis(points.map(([at]) => at), block.log_x ?? false, false, EDGE.left, WIDE - EDGE.right);
  const heights = [...points.map(([, value]) => value), ...ranges.flatMap(([, low, high]) => [low, high])];
  const y = axis(heights, block.log_y ?? false, block.from_zero ?? true, HIGH - EDGE.bottom, EDGE.top);
  const names = block.x_names ?? [];
  const xTicks = names.length ? names.map((_, index) => index) : x.ticks;
  const drawn = (value: number) => Number.isFinite(value) && (!block.log_y || value > 0);
  return (
    <figure class="lines">
      <svg viewBox={`0 0 ${WIDE} ${HIGH}`} role="img" aria-label={block.caption || `${block.y_label} over ${block.x_label}`}>
        {y.ticks.map((tick) => (
          <g key={`y${tick}`}>
            <line class="grid" x1={EDGE.left} x2={WIDE - EDGE.right} y1={y.at(tick)} y2={y.at(tick)} />
            <text x={EDGE.left - 8} y={y.at(tick) + 4} text-anchor="end">
              {number(tick)}
            </text>
          </g>
        ))}
        {xTicks.map((tick) => (
          <text key={`x${tick}`} x={x.at(tick)} y={HIGH - EDGE.bottom + 18} text-anchor="middle">
            {names[tick] ?? number(tick)}
          </text>
        ))}
        <text x={(EDGE.left + WIDE - EDGE.right) / 2} y={HIGH - 6} text-anchor="middle">
          {block.x_label}
        </text>
        <text transform={`translate(13 ${(HIGH - EDGE.bottom) / 2}) rotate(-90)`} text-anchor="middle">
          {block.y_label}
        </text>
        {block.lines.map(([label, line], index) => (
          <g key={label} class={`c${index % 6} ${index > 5 ? "dashed" : ""}`}>
            <polyline points={line.filter(([, value]) => drawn(value)).map(([at, value]) => `${x.at(at).toFixed(1)},${y.at(value).toFixed(1)}`).join(" ")} />
            {(block.ranges?.[index] ?? []).map(([at, low, high]) => (
              <line key={at} class="range" x1={x.at(at)} x2={x.at(at)} y1={y.at(low)} y2={y.at(high)} />
            ))}
          </g>
        ))}
      </svg>
      <ul class="legend">
        {block.lines.map(([label], index) => (
          <li key={label} class={`c${index % 6} ${index > 5 ? "dashed" : ""}`}>
            {label}
          </li>
        ))}
      </ul>
      {block.caption && <figcaption>{block.caption}</figcaption>}
    </figure>
  );
}
