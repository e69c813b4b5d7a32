// A form for any method of the manifest: its fields by their kinds, the needed ones first.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, uploading } from "../lib/api";
import type { Field, Job, MethodRow } from "../lib/contract";
import { sent, wrong, type Value, type Values } from "../lib/fields";
import { reveal } from "../lib/reveal";
import { keep } from "../lib/store";
import { useFailure, useSubmit } from "../lib/submit";
import { Alert } from "./field";
import { Fold } from "./fold";
import { MethodField } from "./method-field";

interface Props {
  row: MethodRow;
  first?: readonly string[]; // names of fields to show first; the others fold away
  job?: Job | undefined; // what it last asked for
  started: (job: Job) => void;
  verb?: string;
}

export function MethodForm({ row, first, job, started, verb = "Run" }: Props) {
  const values = useSignal<Values>({});
  const submit = useSubmit();
  useFailure(job, submit);
  useEffect(() => {
    values.value = {};
    submit.problem.value = null;
  }, [row.command]);

  const front = row.fields.filter((field) => (first ? first.includes(field.name) || field.required : !field.advanced || field.required));
  const back = row.fields.filter((field) => !front.includes(field));
  const names = row.fields.map((field) => field.name);

  const send = () => {
    for (const field of row.fields) {
      const line = wrong(field, values.value[field.name]);
      if (line) return submit.fail(field.name, line);
    }
    void submit.run(async () => {
      const job = await api.start("method", { command: row.command, fields: sent(row.fields, values.value) });
      keep(job);
      started(job);
      reveal();
    });
  };
  const set = (field: Field) => (value: Value) => (values.value = { ...values.value, [field.name]: value });
  const shown = (field: Field) => <MethodField key={`${row.command} ${field.name}`} field={field} value={values.value[field.name]} set={set(field)} problem={submit.at(field.name)} />;
  const troubled = back.some((field) => submit.at(field.name));

  return (
    <form
      class="method-form"
      noValidate
      onInput={submit.edited}
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {front.map(shown)}
      {back.length > 0 && (
        <Fold summary={`More options (${back.length})`} wanted={troubled}>
          {back.map(shown)}
        </Fold>
      )}
      <Alert text={submit.rest(names)} />
      <button type="submit" class="primary" disabled={submit.busy.value || uploading.value > 0}>
        {uploading.value > 0 ? "Uploading…" : submit.busy.value ? "Sending…" : verb}
      </button>
    </form>
  );
}
