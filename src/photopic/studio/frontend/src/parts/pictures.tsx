// The pictures of a job in a grid; each opens large, with its words, its settings and the picture before the edits.
import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, lineOf, thumbnail } from "../lib/api";
import type { DrawForm, Job, Picture, Result } from "../lib/contract";
import { before, change, drawnBefore, isBefore, restore } from "../lib/drawing";
import { go } from "../lib/route";
import { fetchJob, isLive, jobs, keep } from "../lib/store";
import { say } from "../lib/toasts";
import { BeforeAfter } from "./before-after";
import { Dialog } from "./dialog";
import { JobProgress } from "./progress";
import { Lit, WordsRead } from "./words-read";

const isPicture = (result: Result) => result.kind === "picture" && !!result.url;
const held = { picture: null as Result | null }; // put aside to be compared with another

export function PictureGrid({ job, expected = 0 }: { job: Job; expected?: number }) {
  const shown = useSignal<string | null>(null);
  const pinned = useSignal<string | null>(null);
  const open = useSignal<number | null>(null);
  const pictures = job.results.filter(isPicture);
  const missing = isLive(job) ? Math.max(0, expected - pictures.length) : 0;
  const chosen = open.value === null ? null : pictures[open.value];
  return (
    <>
      <WordsRead pictures={pictures} shown={shown} held={pinned} expected={missing > 0 && job.form?.attention === true} />
      <ul class="grid">
        {pictures.map((picture, index) => (
          <li key={picture.url}>
            <button type="button" class="tile" aria-label={`Open ${nameOf(picture, index)}`} onClick={() => (open.value = index)}>
              <span class="frame">
                <img class={small(picture)} src={picture.url!} alt={altOf(job, picture)} width={picture.width ?? 256} height={picture.height ?? 256} />
                <Lit picture={picture} word={shown.value ?? pinned.value} />
              </span>
            </button>
            <span class="caption quiet tabular">{picture.caption ?? nameOf(picture, index)}</span>
          </li>
        ))}
        {Array.from({ length: missing }, (_, index) => (
          <li key={`missing${index}`}>
            <span class="tile awaited" />
            <span class="caption">{"\u00a0"}</span>
          </li>
        ))}
      </ul>
      {chosen && (
        <PictureDialog
          job={job}
          picture={chosen}
          words={{ shown, pinned }}
          close={() => (open.value = null)}
          turn={(by) => (open.value = ((open.value ?? 0) + by + pictures.length) % pictures.length)}
          many={pictures.length > 1}
        />
      )}
    </>
  );
}

const nameOf = (picture: Result, index: number) => (picture.seed !== null && picture.seed !== undefined ? `seed ${picture.seed}` : picture.name || `picture ${index + 1}`);
const small = (picture: Result) => ((picture.width ?? 0) <= 128 ? "pixels" : ""); // shown larger than they are
const altOf = (job: Job, picture: Result) => picture.caption || `${String(job.form?.prompt ?? job.title)}${picture.seed === null || picture.seed === undefined ? "" : `, seed ${picture.seed}`}`;

interface DialogProps {
  job: Job;
  picture: Result;
  words: { shown: Signal<string | null>; pinned: Signal<string | null> };
  close: () => void;
  turn: (by: number) => void;
  many: boolean;
}

function PictureDialog({ job, picture, words, close, turn, many }: DialogProps) {
  const compared = useSignal<{ url: string; label: string } | null>(null);
  const waited = useSignal<string | null>(null); // the job that draws the picture without the edits
  const form = job.form as unknown as DrawForm | undefined;
  useEffect(() => {
    compared.value = null;
    waited.value = null;
    if (!job.form) void fetchJob(job.id).catch(() => undefined);
  }, [picture.url]);

  const waiting = waited.value ? jobs.value.get(waited.value) : undefined;
  const plain = waiting?.results.find(isPicture);
  useEffect(() => {
    if (plain?.url) compared.value = { url: plain.url, label: "before" };
  }, [plain?.url]);

  const compare = async () => {
    if (!form) return;
    const wanted = before(form, picture.seed);
    const known = [...jobs.value.values()].find((each) => each.state === "done" && isBefore(each, wanted) && each.results.some(isPicture));
    try {
      const made = known ?? (await api.start("draw", wanted));
      if (!known) {
        drawnBefore.value = { ids: [...drawnBefore.value.ids, made.id] };
        keep({ ...made, form: wanted as unknown as Record<string, unknown> });
      }
      waited.value = made.id;
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  const key = (event: KeyboardEvent) => {
    if ((event.target as HTMLElement).tagName === "INPUT") return;
    if (event.key === "ArrowRight") turn(1);
    if (event.key === "ArrowLeft") turn(-1);
  };

  const edited = form?.edits?.some((edit) => edit.weight > 0) ?? false;
  return (
    <Dialog title={nameOf(picture, 0)} close={close} wide>
      <div class="picture-dialog" onKeyDown={many ? key : undefined}>
        <div class="stage-picture">
          {compared.value ? (
            <BeforeAfter before={compared.value} after={{ url: picture.url!, label: "after" }} />
          ) : (
            <span class="frame">
              <img class={small(picture)} src={picture.url!} alt={altOf(job, picture)} />
              <Lit picture={picture} word={words.shown.value ?? words.pinned.value} />
            </span>
          )}
          {many && (
            <div class="turn">
              <button type="button" class="quiet" onClick={() => turn(-1)}>
                ← Previous
              </button>
              <button type="button" class="quiet" onClick={() => turn(1)}>
                Next →
              </button>
            </div>
          )}
        </div>
        <div class="picture-side">
          <WordsRead pictures={[picture]} shown={words.shown} held={words.pinned} />
          {waiting && isLive(waiting) && <JobProgress job={waiting} numbers={false} />}
          {waiting?.state === "failed" && <p class="problem">{waiting.error}</p>}
          <div class="stack">
            {compared.value ? (
              <button type="button" onClick={() => (compared.value = null)}>
                Show one picture
              </button>
            ) : (
              edited && (
                <button type="button" disabled={waiting !== undefined && isLive(waiting)} onClick={() => void compare()}>
                  Before and after the edits
                </button>
              )
            )}
            {held.picture && held.picture.url !== picture.url && (
              <button type="button" onClick={() => (compared.value = { url: held.picture!.url!, label: nameOf(held.picture!, 0) })}>
                Compare with {nameOf(held.picture, 0)}
              </button>
            )}
            <button
              type="button"
              class="quiet"
              onClick={() => {
                held.picture = picture;
                say(`${nameOf(picture, 0)} is put aside: open another picture to compare them.`);
              }}
            >
              Put aside to compare
            </button>
            {form?.prompt !== undefined && (
              <button
                type="button"
                class="quiet"
                onClick={() => {
                  restore(form, picture.seed);
                  go("draw");
                  close();
                }}
              >
                Restore these settings
              </button>
            )}
            <button type="button" class="quiet" onClick={() => void startFrom(picture).then(close)}>
              Start a drawing from it
            </button>
            <a class="button quiet" href={picture.url!} download={picture.name}>
              Download
            </a>
          </div>
          {form?.prompt !== undefined && (
            <dl class="facts">
              <div>
                <dt>prompt</dt>
                <dd>{form.prompt}</dd>
              </div>
              {edited && (
                <div>
                  <dt>edits</dt>
                  <dd>{form.edits.map((edit) => `${edit.name} × ${edit.weight}`).join(", ")}</dd>
                </div>
              )}
              <div>
                <dt>steps, guidance</dt>
                <dd>
                  {form.steps}, {form.guidance}
                </dd>
              </div>
            </dl>
          )}
        </div>
      </div>
    </Dialog>
  );
}

/** Uploads a drawn picture as one to start from, and opens the Draw room with it. */
async function startFrom(picture: Result): Promise<void> {
  try {
    const blob = await (await fetch(picture.url!)).blob();
    const { pictures } = await api.upload([new File([blob], picture.name || "start.png", { type: "image/png" })]);
    if (pictures[0]) change({ start: { picture: pictures[0], strength: 0.8, mask: null } });
    go("draw");
  } catch (error) {
    say(lineOf(error), "problem");
  }
}

export function Uploads({ pictures, remove }: { pictures: readonly Picture[]; remove: (id: string) => void }) {
  return (
    <ul class="uploads">
      {pictures.map((picture) => (
        <li key={picture.id}>
          <img src={thumbnail(picture.url, 128)} alt={picture.name} width="64" height="64" loading="lazy" />
          <button type="button" class="icon remove" aria-label={`Remove ${picture.name}`} onClick={() => remove(picture.id)}>
            ×
          </button>
        </li>
      ))}
    </ul>
  );
}
