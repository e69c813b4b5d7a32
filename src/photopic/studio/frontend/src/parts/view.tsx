// A result as its method wants it to be shown: the blocks of photopic.core.view.
import type { Block, FigureBlock, Interval, Scalar, View } from "../lib/contract";
import { cell, clamp, number } from "../lib/words";
import { Lines } from "./lines";

export function ViewPage({ view, level = 3 }: { view: View; level?: 2 | 3 | 4 }) {
  const Heading = `h${level}` as "h3";
  const Below = `h${level + 1}` as "h4";
  return (
    <div class="view">
      {view.title && <Heading>{view.title}</Heading>}
      {view.lead && <p class="lead">{view.lead}</p>}
      {view.sections.map((section, index) => (
        <section key={index}>
          {section.title && section.title !== view.title && (view.title ? <Below>{section.title}</Below> : <Heading>{section.title}</Heading>)}
          {section.blocks.map((block, at) => (
            <BlockOf key={at} block={block} />
          ))}
        </section>
      ))}
      {view.facts && view.facts.length > 0 && <Facts facts={view.facts} />}
    </div>
  );
}

export function Facts({ facts }: { facts: readonly (readonly [string, unknown])[] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{cell(value)}</dd>
        </div>
      ))}
    </dl>
  );
}

function BlockOf({ block }: { block: Block }) {
  switch (block.kind) {
    case "text":
      return <p>{block.text}</p>;
    case "note":
      return (
        <div class="note">
          <b>{block.title ?? "Note"}</b> {block.text}
        </div>
      );
    case "code":
      return (
        <pre tabIndex={0}>
          <code>{block.text}</code>
        </pre>
      );
    case "figure":
      return <Picture figure={block} />;
    case "gallery":
      return (
        <Captioned caption={block.caption}>
          <div class="gallery">
            {block.figures.map((figure, index) => (
              <Picture key={index} figure={figure} />
            ))}
          </div>
        </Captioned>
      );
    case "picture_rows":
      return (
        <Captioned caption={block.caption}>
          {block.rows.map(([label, pictures], index) => (
            <div class="picture-row" key={index}>
              <span class="quiet">{label}</span>
              <div class="strip">
                {pictures.map((picture, at) => (
                  <img key={at} src={picture} alt={`${label}, ${at + 1}`} loading="lazy" />
                ))}
              </div>
            </div>
          ))}
        </Captioned>
      );
    case "table":
      return <Table header={block.header} rows={block.rows} caption={block.caption ?? ""} />;
    case "bars":
      return (
        <Captioned caption={block.caption}>
          <div class="bars">
            {block.bars.map(([label, value, beside], index) => (
              <Bar key={index} label={label} value={value} beside={beside} />
            ))}
          </div>
        </Captioned>
      );
    case "intervals":
      return <Intervals items={block.items} caption={block.caption ?? ""} />;
    case "lines":
      return <Lines block={block} />;
    default:
      return null;
  }
}

function Captioned({ caption, children }: { caption?: string | undefined; children: preact.ComponentChildren }) {
  return (
    <figure>
      {children}
      {caption && <figcaption>{caption}</figcaption>}
    </figure>
  );
}

function Picture({ figure }: { figure: FigureBlock }) {
  return (
    <figure class="shown">
      <img src={figure.image} alt={figure.alt || figure.caption || ""} loading="lazy" {...(figure.width ? { width: figure.width } : {})} />
      {figure.badge && <span class="badge">{figure.badge}</span>}
      {figure.caption && <figcaption>{figure.caption}</figcaption>}
    </figure>
  );
}

const isNumber = (value: Scalar | undefined) => typeof value === "number" || (typeof value === "string" && /^[-+]?[\d.,]+(e[-+]?\d+)?\s?%?$/.test(value));

export function Table({ header, rows, caption }: { header: readonly string[]; rows: readonly (readonly Scalar[])[]; caption?: string }) {
  const right = header.map((_, column) => rows.length > 0 && rows.every((row) => row[column] === null || row[column] === "-" || isNumber(row[column])));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption || header.join(", ")}>
      <table>
        {caption && <caption>{caption}</caption>}
        <thead>
          <tr>
            {header.map((name, column) =>
              name ? (
                <th key={column} scope="col" class={right[column] ? "n" : ""}>
                  {name}
                </th>
              ) : (
                <td key={column} />
              ),
            )}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, index) => (
            <tr key={index}>
              {row.map((value, column) => (
                <td key={column} class={right[column] ? "n" : ""}>
                  {cell(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Bar({ label, value, beside, mark }: { label: string; value: number; beside: string; mark?: number }) {
  const share = clamp(value, 0, 1) * 100;
  return (
    <div class="bar">
      <span class="label">{label}</span>
      <span class="track">
        <span style={{ width: `${share}%` }} />
        {mark !== undefined && <i style={{ left: `${clamp(mark, 0, 1) * 100}%` }} />}
      </span>
      <span class="value">{beside}</span>
    </div>
  );
}

function Intervals({ items, caption }: { items: readonly Interval[]; caption: string }) {
  const low = Math.min(...items.map((item) => item.low));
  const high = Math.max(...items.map((item) => item.high));
  const at = (value: number) => `${high === low ? 50 : 3 + ((value - low) / (high - low)) * 94}%`;
  return (
    <Captioned caption={caption}>
      <div class="intervals">
        {items.map((item, index) => (
          <div key={index} class={item.strong ? "bar strong" : "bar"}>
            <span class="label">{item.label}</span>
            <span class="axis">
              <span class="range" style={{ left: at(item.low), right: `calc(100% - ${at(item.high)})` }} />
              <span class="dot" style={{ left: at(item.value) }} />
            </span>
            <span class="value">
              {number(item.value)} ({number(item.low)} to {number(item.high)})
            </span>
          </div>
        ))}
      </div>
    </Captioned>
  );
}
