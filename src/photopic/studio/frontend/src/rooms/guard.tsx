// The Guard room: fit a guard around a classifier from clean pictures, then see which pictures it trusts, and why.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, guardAddress, lineOf, uploadAll } from "../lib/api";
import type { GuardFile } from "../lib/contract";
import { guards, isLive, keep, newest, refreshGuards } from "../lib/store";
import { say } from "../lib/toasts";
import { bytes, moment } from "../lib/words";
import { Drop } from "../parts/drop";
import { Field } from "../parts/field";
import { JobOutcome, ofMethod, Workbench } from "../parts/workbench";

export function Guard() {
  const fitted = newest.value.filter((job) => ofMethod(job, "guard fit"));
  const finished = fitted.filter((job) => job.state === "done").length;
  useEffect(() => void refreshGuards(), [finished]);
  return (
    <div class="room guard">
      <Check />
      <section class="block" aria-label="Fit a guard">
        <h2>Fit a guard</h2>
        <Workbench
          command="guard fit"
          first={["model", "clean", "reject"]}
          verb="Fit it"
          intro={<p class="help">One half of the pictures teaches what is usual, the other half sets the threshold.</p>}
          empty={<p>Choose a classifier and a folder of pictures that you trust. The guard then knows what is usual for this classifier, and says so of every picture that you show it.</p>}
        />
      </section>
    </div>
  );
}

function Check() {
  const known = guards.value ?? [];
  const chosen = useSignal("");
  const busy = useSignal("");
  const guard = known.find((each) => each.name === chosen.value) ?? known[0];
  const checked = newest.value.filter((job) => job.kind === "check");
  const job = checked[0];
  const check = async (files: File[]) => {
    if (!guard) return;
    try {
      busy.value = `0 of ${files.length} pictures`;
      const got = await uploadAll(files, (done, of) => (busy.value = `${done} of ${of} pictures`));
      got.refused.forEach((each) => say(`${each.name}: ${each.error}`, "problem"));
      if (!got.pictures.length) return;
      keep(await api.start("check", { guard: guard.name, pictures: got.pictures.map((picture) => picture.id) }));
    } catch (error) {
      say(lineOf(error), "problem");
    } finally {
      busy.value = "";
    }
  };
  const remove = async (file: GuardFile) => {
    try {
      await api.deleteGuard(file.name);
      await refreshGuards();
    } catch (error) {
      say(lineOf(error), "problem");
    }
  };
  return (
    <section class="block two" aria-label="Check pictures">
      <div class="panel">
        <h2>Check pictures</h2>
        {!guard && <p class="help">{guards.value ? "There is no guard yet: fit one below." : "Reading…"}</p>}
        {guard && (
          <>
            <Field label="Guard" help={`${bytes(guard.bytes)}, around ${guard.model ?? "a classifier"}, ${moment(guard.created)}: ${guard.checks.map((each) => each.replaceAll("_", " ")).join(", ")}`}>
              {(control) => (
                <select {...control} value={guard.name} onChange={(event) => (chosen.value = event.currentTarget.value)}>
                  {known.map((each) => (
                    <option key={each.name} value={each.name}>
                      {each.name}
                    </option>
                  ))}
                </select>
              )}
            </Field>
            <div class="row wrap">
              <a class="button quiet" href={guardAddress(guard.name)} download={guard.name}>
                Download
              </a>
              <button type="button" class="quiet" onClick={() => void remove(guard)}>
                Delete
              </button>
            </div>
            <Drop label="Choose pictures to check" folder help={busy.value || "One, several, or a folder."} take={(files) => void check(files)} />
          </>
        )}
      </div>
      <div class="outcome" aria-busy={job !== undefined && isLive(job)}>
        {job ? (
          <JobOutcome key={job.id} job={job} />
        ) : (
          <div class="empty">
            <p>Drop a picture: you see whether it is accepted, by which scores and thresholds, and what speaks against it.</p>
          </div>
        )}
      </div>
    </section>
  );
}
