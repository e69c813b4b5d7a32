// What a job made: pictures, files, pages, verdicts and views, in this order of a reader's interest.
import { editAddress, guardAddress, thumbnail } from "../lib/api";
import type { DependencyRow, Job, Result, Verdicts } from "../lib/contract";
import { drawWith } from "../lib/drawing";
import { address, go } from "../lib/route";
import { edits } from "../lib/store";
import { number, sentence } from "../lib/words";
import { DependencyGraph } from "./graph";
import { PictureGrid } from "./pictures";
import { Bar, ViewPage } from "./view";

export function Results({ job, expected = 0 }: { job: Job; expected?: number }) {
  const of = (kind: Result["kind"]) => job.results.filter((result) => result.kind === kind);
  const rows = dependencies(job);
  return (
    <div class="results">
      {job.warnings.map((warning, index) => (
        <p class="note" key={index}>
          {warning}
        </p>
      ))}
      {(of("picture").length > 0 || expected > 0) && <PictureGrid job={job} expected={expected} />}
      {of("edit").map((result) => (
        <EditMade key={result.name} name={result.name} />
      ))}
      {of("guard").map((result) => (
        <p key={result.name} class="made">
          <b>{result.name}</b>
          <a class="button primary" href={address("guard")}>
            Check pictures with it
          </a>
          <a class="button quiet" href={result.url ?? guardAddress(result.name)} download={result.name}>
            Download
          </a>
        </p>
      ))}
      {of("verdicts").map((result, index) =>
        result.data ? <VerdictList key={index} verdicts={result.data as Verdicts} /> : <p key={index} class="quiet reading">Reading…</p>,
      )}
      {of("file").map((result) => (
        <p key={result.name} class="made">
          <b>{result.name}</b>
          {result.url && (
            <a class="button" href={result.url} download={result.name}>
              Download
            </a>
          )}
        </p>
      ))}
      {rows && <DependencyGraph rows={rows} />}
      {of("view").map((result, index) => (result.view ? <ViewPage key={index} view={result.view} /> : <p key={index} class="quiet reading">Reading…</p>))}
      {of("page").map((result) => result.url && <Page key={result.url} url={result.url} name={result.name === "page.html" ? "All of it as a page" : result.name} />)}
    </div>
  );
}

/** A result's own page; it runs no script and asks for nothing. */
export function Page({ url, name }: { url: string; name: string }) {
  return (
    <p class="made">
      <b>{name}</b>
      <a class="button" href={url} target="_blank" rel="noopener">
        Open the page
      </a>
    </p>
  );
}

export function EditMade({ name }: { name: string }) {
  const file = edits.value?.find((each) => each.name === name);
  return (
    <p class="made">
      <b>{name}</b>
      {file?.token && (
        <button
          type="button"
          class="primary"
          onClick={() => {
            drawWith(file);
            go("draw");
          }}
        >
          Draw with it
        </button>
      )}
      <a class="button quiet" href={address("edits", name)}>
        Inspect
      </a>
      <a class="button quiet" href={editAddress(name)} download={name}>
        Download
      </a>
    </p>
  );
}

/** Rows of a report of `measure dependencies`, told by their shape. */
function dependencies(job: Job): DependencyRow[] | null {
  for (const result of job.results) {
    const rows = (result.data as { rows?: unknown } | null | undefined)?.rows;
    if (Array.isArray(rows) && rows.length && rows.every((row) => row && Array.isArray((row as DependencyRow).support) && Array.isArray((row as DependencyRow).theta)))
      return rows as DependencyRow[];
  }
  return null;
}

export function VerdictList({ verdicts }: { verdicts: Verdicts }) {
  return (
    <section>
      <p>
        <b>{verdicts.accepted}</b> accepted, <b>{verdicts.rejected}</b> rejected by {verdicts.guard} around {verdicts.model}.
      </p>
      <ul class="verdicts">
        {verdicts.pictures.map((row, index) => (
          <li key={index} class={row.accepted ? "" : "rejected"}>
            {row.id && <img src={thumbnail(`/api/pictures/${encodeURIComponent(row.id)}`, 256)} alt="" width="96" height="96" loading="lazy" />}
            <div>
              <p class="verdict">
                <b>{row.accepted ? "✓ accept" : "✕ reject"}</b> {row.picture}
                <span class="quiet">
                  {" "}
                  taken for {row.label} ({Math.round(row.probability * 100)} %)
                </span>
              </p>
              <p>{row.reason}</p>
              <div class="bars">
                {verdicts.checks.map((check) => {
                  const { score = 0, threshold = 0 } = row.evidence[check] ?? {};
                  const most = 2 * Math.abs(threshold) || 1; // the threshold stands in the middle
                  return <Bar key={check} label={check.replaceAll("_", " ")} value={score / most} mark={threshold / most} beside={`${number(score)} of ${number(threshold)}`} />;
                })}
              </div>
            </div>
          </li>
        ))}
      </ul>
      {verdicts.caveats.length > 0 && (
        <>
          <h3>What it cannot say</h3>
          <ul class="quiet">
            {verdicts.caveats.map((caveat, index) => (
              <li key={index}>{sentence(caveat)}.</li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
