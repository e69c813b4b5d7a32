// A small chart of one number that grows while a job runs: its last value is written beside it.
import type { Point } from "../lib/contract";
import { number, sentence } from "../lib/words";

const WIDE = 320;
const HIGH = 84;
const MOST = 240; // points drawn; more are thinned out

export function Curves({ points, total }: { points: readonly Point[]; total: number }) {
  const stages = [...Map.groupBy(points, ([, , stage]) => stage ?? "")];
  const charts = stages.flatMap(([stage, of]) => [...new Set(of.flatMap(([, numbers]) => Object.keys(numbers)))].map((name) => ({ stage, name, of })));
  const last = points[points.length - 1]?.[2] ?? "";
  if (!charts.length) return null;
  return (
    <div class="curves">
      {charts.map(({ stage, name, of }) => (
        <Curve key={`${stage} ${name}`} name={charts.filter((each) => each.name === name).length > 1 ? `${name}, ${stage}` : name} number={name} points={of} total={stage === last ? total : 0} />
      ))}
    </div>
  );
}

function Curve({ name, number: of, points, total }: { name: string; number: string; points: readonly Point[]; total: number }) {
  const all = points.flatMap(([step, numbers]) => (numbers[of] === undefined ? [] : [[step, numbers[of]] as const]));
  const stride = Math.ceil(all.length / MOST);
  const shown = all.filter((_, index) => index % stride === 0 || index === all.length - 1);
  const last = all[all.length - 1];
  if (!last) return null;
  const values = shown.map(([, value]) => value).filter(Number.isFinite);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const right = Math.max(total, last[0], 1);
  const x = (step: number) => (step / right) * WIDE;
  const y = (value: number) => (high === low ? HIGH / 2 : HIGH - 4 - ((value - low) / (high - low)) * (HIGH - 8));
  return (
    <figure class="curve">
      <figcaption>
        {sentence(name)} <b class="tabular">{number(last[1])}</b>
      </figcaption>
      <svg viewBox={`0 0 ${WIDE} ${HIGH}`} role="img" aria-label={`${name}: ${number(last[1])} at step ${last[0]}, between ${number(low)} and ${number(high)} so far`} preserveAspectRatio="none">
        <polyline points={shown.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ")} vector-effect="non-scaling-stroke" />
      </svg>
    </figure>
  );
}
