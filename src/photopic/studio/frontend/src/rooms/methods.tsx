// The Methods room: a form for every method of the manifest.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { address, route } from "../lib/route";
import { methods, needMethods } from "../lib/store";
import { sentence } from "../lib/words";
import { Workbench } from "../parts/workbench";

export function Methods() {
  const wanted = useSignal("");
  useEffect(() => void needMethods(), []);
  const rows = (methods.value ?? []).filter((row) => `${row.command} ${row.help} ${row.paper ?? ""}`.toLowerCase().includes(wanted.value.trim().toLowerCase()));
  const row = methods.value?.find((each) => each.command === route.value.rest);
  return (
    <div class="room methods">
      <nav class="method-list" aria-label="Methods">
        <label>
          <span class="unseen">Find a method</span>
          <input type="search" placeholder="Find a method" value={wanted.value} onInput={(event) => (wanted.value = event.currentTarget.value)} />
        </label>
        {!methods.value && <p class="quiet reading">Reading…</p>}
        {methods.value && rows.length === 0 && <p class="help">No method has these words. They are looked for in names, help and papers.</p>}
        {[...Map.groupBy(rows, (each) => each.group)].map(([group, of]) => (
          <section key={group}>
            <h2>{sentence(group)}</h2>
            <ul>
              {of.map((each) => (
                <li key={each.command}>
                  <a href={address("methods", each.command)} aria-current={each === row ? "page" : undefined} title={each.help.split("\n")[0]}>
                    {each.command.replace(`${group} `, "")}
                  </a>
                </li>
              ))}
            </ul>
          </section>
        ))}
      </nav>
      <div class="method">
        {row ? (
          <Workbench
            key={row.command}
            command={row.command}
            intro={
              <>
                <h2>photopic {row.command}</h2>
                {row.help.split(/\n\s*\n/).map((paragraph, index) => (
                  <p key={index} class={index ? "help" : ""}>
                    {paragraph}
                  </p>
                ))}
                {row.paper && <p class="help">Paper: {row.paper}</p>}
              </>
            }
            empty={
              <>
                {row.examples.length > 0 && (
                  <>
                    <h3>On the command line</h3>
                    <pre tabIndex={0}>
                      <code>{row.examples.join("\n")}</code>
                    </pre>
                  </>
                )}
                <p>What it makes appears here: {RESULTS[row.result] ?? row.result}.</p>
              </>
            }
          />
        ) : (
          <div class="empty">
            <h2>Every method has its form</h2>
            <p>Choose one to fill it in and run it; it does what its command does on the command line.</p>
          </div>
        )}
      </div>
    </div>
  );
}

const RESULTS: Record<string, string> = {
  Edit: "an edit, in the library",
  Edits: "edits, in the library",
  Report: "numbers, tables and curves",
  Map: "pictures of where in the input",
  Verdict: "accept or reject, and why",
  Model: "a model, as a folder of the workspace",
  Control: "pictures drawn under it",
  File: "a file to download",
};
