// A picture to begin with in place of noise, how far to go from it, and the part of it to draw anew.
import { api, lineOf, thumbnail } from "../lib/api";
import type { Picture } from "../lib/contract";
import { change, drawing } from "../lib/drawing";
import type { Submit } from "../lib/submit";
import { say } from "../lib/toasts";
import { Drop } from "../parts/drop";
import { Slider } from "../parts/field";
import { Fold } from "../parts/fold";

async function one(files: File[], took: (picture: Picture) => void): Promise<void> {
  try {
    const { pictures, refused } = await api.upload(files.slice(0, 1));
    if (pictures[0]) took(pictures[0]);
    else say(refused[0] ? `${refused[0].name}: ${refused[0].error}` : "No picture came through.", "problem");
  } catch (error) {
    say(lineOf(error), "problem");
  }
}

export function StartPicture({ submit }: { submit: Submit }) {
  const { start } = drawing.value;
  const problem = submit.under("start");
  return (
    <Fold summary="Start from a picture" wanted={start !== null || problem !== null}>
      {!start && (
        <Drop label="Choose a picture" many={false} help="Its central square is drawn over, as far as you say." problem={problem} take={(files) => void one(files, (picture) => change({ start: { picture, strength: 0.8, mask: null } }))} />
      )}
      {start && (
        <div class="start">
          <img src={thumbnail(start.picture.url)} alt={`Starts from ${start.picture.name}`} width="96" height="96" />
          {start.mask && <img src={thumbnail(start.mask.url)} alt="The part that is drawn anew, white" width="96" height="96" />}
          <button type="button" class="link" onClick={() => change({ start: null })}>
            Remove
          </button>
          <Slider label="How far to go from it" value={start.strength} min={0.05} set={(strength) => change({ start: { ...start, strength } })} />
          <Drop label={start.mask ? "Another mask" : "Choose a mask"} small many={false} help="White is drawn anew, black stays to the bit." take={(files) => void one(files, (mask) => change({ start: { ...start, mask } }))} />
          {problem && <p class="problem">{problem}</p>}
        </div>
      )}
    </Fold>
  );
}
